"""A model learning, from the strips that its training kept: ``ddpmctl animate --training``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ddpmctl.cli.output import Output
from ddpmctl.cli.provenance import record, told_name
from ddpmctl.cli.sampling import last_commit, open_model
from ddpmctl.config import strip_sampling
from ddpmctl.errors import CheckpointError
from ddpmctl.registry import Checkpoint

if TYPE_CHECKING:
    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images

COLUMNS = 5


@dataclass(frozen=True, slots=True)
class Learning:
    """What a training kept of its way.

    Attributes:
        checkpoint: the model.
        last: its last commit.
        strips: what it made of the same noise, each uint8[K,S,S] or [K,S,S,3].
        steps: after which each was drawn; 0 is the noise itself.
    """

    checkpoint: Checkpoint
    last: Checkpoint
    strips: "list[Images]"
    steps: list[int]

    @classmethod
    def of(cls, out: Output, reference: str) -> Self:
        """Open a model and read the strips of its training; the errors are those of `read`, too."""
        checkpoint = open_model(out, reference)
        return cls.read(checkpoint, last_commit(out, checkpoint))

    @classmethod
    def read(cls, checkpoint: Checkpoint, last: Checkpoint) -> Self:
        """Read the strips that the last commit of a model holds.

        Raises:
            CheckpointError: when it holds none.
        """
        if last.manifest.resume is None:
            raise CheckpointError(
                f"'{checkpoint.name}' holds a model and nothing of its training",
                "take one that was trained here, and not imported: ddpmctl models",
            )
        images, steps = last.strips()
        if len(steps) < 2:
            raise CheckpointError(
                f"the training of '{checkpoint.name}' kept no strips: it was too short, or done by an older ddpmctl",
                "train for a minute: ddpmctl train --preset quick --max-time 60s",
            )
        return cls(checkpoint, last, list(images), steps)

    def picked(self, count: int) -> Self:
        """So many of them at most, the first and the last among them."""
        from ddpmctl.imaging.animation import pick

        numbers = pick(len(self.steps), count)
        strips, steps = [self.strips[k] for k in numbers], [self.steps[k] for k in numbers]
        return type(self)(self.checkpoint, self.last, strips, steps)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.checkpoint.manifest.classes

    @property
    def labels(self) -> list[int]:
        """Of the images in a strip."""
        return [k % len(self.classes) for k in range(len(self.strips[0]))]

    def when(self, number: int) -> str:
        """How far the training was, in words."""
        resume, step = self.last.manifest.resume, self.steps[number]
        assert resume is not None, "what kept strips can go on"
        return f"step {step:,}, epoch {step / resume.plan.steps_per_epoch:.1f}" if step else "before the first step"

    def sheets(self, factor: int) -> "list[Images]":
        """A titled sheet a strip."""
        from ddpmctl.imaging.sheet import labelled_sheet

        starts = range(0, len(self.labels), COLUMNS)
        titles = [[self.classes[label] for label in self.labels[k : k + COLUMNS]] for k in starts]
        return [
            labelled_sheet([list(strip[k : k + COLUMNS]) for k in starts], titles, factor, caption=self.when(number))
            for number, strip in enumerate(self.strips)
        ]

    def rows(self) -> "list[Images]":
        """Each strip as one small picture, for a terminal."""
        from ddpmctl.cli.terminal import laid_out

        side = self.strips[0].shape[1]
        return [laid_out(list(strip), COLUMNS * (side + 1), 10**6)[0] for strip in self.strips]

    def made(self, typed: list[str], factor: int) -> "Provenance":
        """The record of an animation of it.

        Args:
            typed: what is typed for it, after the model.
            factor: how much it is enlarged.
        """
        run = self.last.manifest.run
        return record(
            self.checkpoint, "animation", self.labels, strip_sampling(self.last.manifest.config),
            ["ddpmctl", "animate", "--training", told_name(self.checkpoint), *typed],
            seed=0, device=run.device, precision=run.precision, batch=len(self.labels), upscale=factor,
        )  # fmt: skip

    def default_file(self) -> Path:
        """Where the animation goes when nothing is said."""
        from ddpmctl.imaging.files import free_path, safe_stem

        return free_path(Path(f"{safe_stem(told_name(self.checkpoint))}-learning.gif"))
