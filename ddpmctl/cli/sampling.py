"""What the commands that sample have in common: find the model, check the request, then load."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.progress import Progress, TaskID

from ddpmctl import plugins
from ddpmctl.cli.output import Output
from ddpmctl.config import PRECISIONS, SamplingConfig, choose, resolve_sampling
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.labels import resolve_label, taken_as_index
from ddpmctl.registry import Checkpoint, Registry, last_of

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request for images, before torch is imported.

    Attributes:
        checkpoint: the model.
        sampling: complete settings.
        seed: of the first image.
        drawn: whether the seed was drawn here, and the user is to be told it.
        device: as given.
        precision: as given.
    """

    checkpoint: Checkpoint
    sampling: SamplingConfig
    seed: int
    drawn: bool
    device: str
    precision: str

    def load(self, out: Output) -> "Engine":
        """The model in memory, once nothing can be wrong any more; says the seed that was drawn."""
        from ddpmctl.sampling.engine import Engine

        if self.drawn:
            out.note(f"seed {self.seed}")
        return Engine(self.checkpoint, self.device, self.precision, notice=out.warn)

    def keywords(self) -> dict[str, Any]:
        """The settings as arguments of `Engine.generate` and `Engine.trajectory`."""
        return {
            "seed": self.seed,
            "sampler": self.sampling.sampler,
            "steps": self.sampling.steps,
            "guidance": self.sampling.guidance,
            "guidance_interval": self.sampling.guidance_interval,
        }

    def record(self) -> dict[str, Any]:
        """What made the images, for ``--json``."""
        from ddpmctl.devices import choose_device, choose_precision

        device = choose_device(self.device)
        model = {"model": self.checkpoint.name, "digest": self.checkpoint.digest}
        return {
            **model,
            **self.keywords(),
            "device": str(device),
            "precision": choose_precision(self.precision, device)[0],
        }


def prepare(
    out: Output,
    model: str | None,
    sampler: str | None,
    steps: int | None,
    guidance: float | None,
    interval: str | None,
    seed: int | None,
    device: str,
    precision: str,
    default_sampler: tuple[str, int] | None = None,
) -> Request:
    """Find the model and complete the settings, saying on stderr what was chosen for the user.

    Args:
        default_sampler: a sampler and its steps that the command prefers to the model's own, where the user names
            neither.
    """
    checkpoint = open_model(out, model)
    config = checkpoint.manifest.config
    if default_sampler and sampler is None and steps is None:
        sampler, steps = default_sampler[0], min(default_sampler[1], config.diffusion.timesteps)
    acts = parse_interval(interval) if interval is not None else None
    sampling = resolve_sampling(config, sampler, steps, guidance, acts, plugins.available(plugins.SAMPLERS))
    choose("precision", precision, PRECISIONS)
    if acts and sampling.guidance == 1.0:
        raise UsageError("a guidance of 1.0 acts nowhere", "--guidance 1.5 --guidance-interval 0.3:0.85")
    drawn = seed is None
    seed = secrets.randbelow(2**31) if seed is None else seed
    if not 0 <= seed <= 9 * 10**18:
        raise UsageError(f"the seed {seed} is out of range", "--seed 0..9000000000000000000")
    return Request(checkpoint, sampling, seed, drawn, device, precision)


def label_index(out: Output, label: str, classes: tuple[str, ...]) -> int:
    """The index of a typed label; says so where a number is an index although classes are named by numbers.

    Raises:
        UsageError: for a label that the model does not have.
    """
    index = resolve_label(label, classes)
    if taken_as_index(label, classes):
        out.note(f"no class is named '{label}': taken as index {index}, the class '{classes[index]}'")
    return index


def parse_interval(text: str) -> tuple[float, float]:
    """``0.3:0.85`` as two numbers.

    Raises:
        UsageError: when they are not two numbers.
    """
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise UsageError(f"'{text}' is no interval", "--guidance-interval 0.3:0.85") from error


def open_model(out: Output, reference: str | None) -> Checkpoint:
    """Open the model that was asked for, or the newest, saying which."""
    registry = Registry()
    in_use = registry.default() if reference is None else None
    checkpoint = registry.open(in_use or reference)
    if reference in (None, "latest"):
        out.note(f"model {checkpoint.name} ({'in use' if in_use else 'the newest'})")
    return checkpoint


def last_commit(out: Output, checkpoint: Checkpoint) -> Checkpoint:
    """The last commit of a model, which tells of its whole training; the given one, said aloud, where it is damaged."""
    try:
        return last_of(checkpoint)
    except CheckpointError as error:
        out.warn(f"{error.message}; telling of the best commit instead")
        return checkpoint


@contextmanager
def steps_bar(out: Output, total: int) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar over sampling steps."""
    with out.progress() as bar:
        yield bar, bar.add_task("sampling", total=total)
