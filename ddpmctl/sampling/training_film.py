"""Animation of the previews stored during training."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ddpmctl.errors import CheckpointError
from ddpmctl.imaging.animation import Timing, pick
from ddpmctl.imaging.files import free_path, safe_stem
from ddpmctl.imaging.grid import labelled_grid, tile
from ddpmctl.imaging.upscale import Images
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.animation import Animation
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import SamplingRequest, command_line, public_name
from ddpmctl.sampling.settings import preview_sampling

COLUMNS = 5


@dataclass(frozen=True, slots=True)
class TrainingFilm:
    """The previews of a training run, all sampled from the same noise.

    Attributes:
        checkpoint: the model.
        last: its last checkpoint, which has the previews.
        previews: each uint8[K,S,S] or [K,S,S,3].
        steps: the step of each; 0 is the noise itself.
    """

    checkpoint: Checkpoint
    last: Checkpoint
    previews: list[Images]
    steps: list[int]

    @classmethod
    def read(cls, checkpoint: Checkpoint, last: Checkpoint, count: int) -> Self:
        """Read the previews of a model from its last checkpoint: at most ``count``, with the first and last."""
        if last.manifest.resume is None:
            raise CheckpointError(
                f"'{checkpoint.name}' has no training state",
                "use a model that was trained here, not imported: ddpmctl models",
            )
        images, steps = last.previews()
        if len(steps) < 2:
            raise CheckpointError(
                f"'{checkpoint.name}' has no previews: the run was too short or used an older ddpmctl",
                "train for a minute: ",
                shlex.join(command_line("train", preset="quick", max_time="60s")),
            )
        numbers = pick(len(steps), count)
        return cls(checkpoint, last, [images[k] for k in numbers], [steps[k] for k in numbers])

    @property
    def labels(self) -> list[int]:
        """The labels of the images in a preview."""
        return [k % len(self.checkpoint.manifest.classes) for k in range(len(self.previews[0]))]

    @property
    def captions(self) -> list[str]:
        """Step and epoch of each preview."""
        resume = self.last.manifest.resume
        assert resume is not None, "previews are part of the state"
        epoch = resume.plan.steps_per_epoch
        return [f"step {step:,}, epoch {step / epoch:.1f}" if step else "before the first step" for step in self.steps]

    def tiles(self) -> list[Images]:
        """Each preview as one small image."""
        return [tile(list(preview), COLUMNS) for preview in self.previews]

    def animate(self, timing: Timing, upscale: int = 4) -> Animation:
        """One titled grid per preview, with step and epoch below."""
        starts = range(0, len(self.labels), COLUMNS)
        classes = self.checkpoint.manifest.classes
        titles = [[classes[label] for label in self.labels[k : k + COLUMNS]] for k in starts]
        frames = [
            labelled_grid([list(preview[k : k + COLUMNS]) for k in starts], titles, upscale, caption=caption)
            for preview, caption in zip(self.previews, self.captions, strict=True)
        ]
        run = self.last.manifest.run
        request = SamplingRequest(
            checkpoint=self.checkpoint, labels=tuple(self.labels), sampling=preview_sampling(self.last.manifest.config),
            seed=0, device=run.device, precision=run.precision, batch_size=len(self.labels),
        )  # fmt: skip
        argv = command_line("animate", training=public_name(self.checkpoint), **asdict(timing), upscale=upscale)
        provenance = build_provenance(request, "animation", argv, upscale=upscale)
        return Animation(frames, self.tiles(), timing, provenance)

    def default_file(self) -> Path:
        """An unused name for the animation in the current folder."""
        return free_path(Path(f"{safe_stem(public_name(self.checkpoint))}-training.gif"))
