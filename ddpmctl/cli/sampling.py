"""What the commands that sample have in common: find the model, check the request, then load."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl.cli.output import Output
from ddpmctl.errors import UsageError
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.request import Labels, SamplingOptions, SamplingRequest
from ddpmctl.sampling.variation import PLAIN, Start, Variation

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine
    from ddpmctl.sampling.reproduce import ReproductionTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingArguments:
    """The options that commands which sample share, as they were typed."""

    model: str | None = None
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    interval: str | None = None
    seed: int | None = None
    device: str = "auto"
    precision: str = "auto"

    def request(
        self,
        checkpoint: Checkpoint,
        labels: Labels = (),
        target: "ReproductionTarget | None" = None,
        variation: Variation = PLAIN,
    ) -> SamplingRequest:
        """The request for a model, or for an image to reproduce."""
        interval = None if self.interval is None else parse_interval(self.interval)
        options: SamplingOptions = {
            "sampler": self.sampler, "steps": self.steps, "guidance": self.guidance, "guidance_interval": interval,
            "variation": variation,
        }  # fmt: skip
        resolve = target.request if target else SamplingRequest.resolve
        request = resolve(checkpoint, labels, seed=self.seed, device=self.device, precision=self.precision, **options)
        if interval and request.sampling.guidance == 1.0:
            raise UsageError(
                "--guidance-interval has no effect with guidance 1.0", "--guidance 1.5 --guidance-interval 0.3:0.85"
            )
        return request

    def load(self, out: Output, request: SamplingRequest) -> "tuple[Engine, SamplingRequest]":
        """Load the model of a checked request, which the engine completes; prints the seed if it was drawn."""
        from ddpmctl.sampling.engine import Engine

        if self.seed is None:
            out.note(f"seed {request.seed}")
        engine = Engine(request.checkpoint, request.device, request.precision)
        return engine, engine.resolve(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureArguments:
    """A picture to edit and how, as it was typed."""

    path: Path | None = None
    strength: float | None = None
    fit: str | None = None
    invert: bool | None = None
    mask: Path | None = None

    def read(self, out: Output, checkpoint: Checkpoint) -> Start:
        """Prepare it for a model, and print what was done to it."""
        if self.path is None:
            raise UsageError("--strength, --fit and --invert apply to a picture", "--from drawing.png")
        strength = (1.0 if self.mask else 0.6) if self.strength is None else self.strength
        start = Start.read(checkpoint, self.path, strength, self.fit, invert=self.invert, mask=self.mask)
        drawing = start.drawing
        done = {
            "taken as it is": drawing.kept,
            "dark on light, inverted": drawing.inverted and self.invert is None,
            "placed as MNIST's digits are": not drawing.kept and start.record.fit == "digit",
            "thin strokes thickened": drawing.thickened,
        }
        if any(done.values()):
            out.note(f"{self.path}: {'; '.join(text for text, applies in done.items() if applies)}")
        if start.mask is not None:
            out.note(f"{self.mask}: changes {start.mask.mean():.0%} of the picture")
        return start


def interpolated(sampling: SamplingArguments, between: tuple[int, int]) -> SamplingArguments:
    """The options with the first of two seeds, which replace ``--seed``."""
    if sampling.seed is not None:
        raise UsageError("--between names both seeds, and --seed a third", f"omit --seed {sampling.seed}")
    return replace(sampling, seed=between[0])


def parse_interval(text: str) -> tuple[float, float]:
    """``0.3:0.85`` as two numbers."""
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise UsageError(f"'{text}' is not an interval", "--guidance-interval 0.3:0.85") from error


@contextmanager
def steps_bar(out: Output, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over sampling steps; gives the function that advances it."""
    with out.progress() as bar:
        task = bar.add_task("sampling", total=total)
        yield lambda done: bar.advance(task, done)
