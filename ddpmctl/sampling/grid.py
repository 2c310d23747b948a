"""A labelled grid with samples of every class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmctl.errors import Setting, UsageError
from ddpmctl.imaging.grid import class_grid
from ddpmctl.imaging.provenance import Provenance
from ddpmctl.imaging.upscale import Images
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import SamplingRequest

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine

MAX_ROWS = 1000


@dataclass(frozen=True, slots=True)
class SampleGrid:
    """A grid, uint8[H,W] or uint8[H,W,3], and its images before upscaling, uint8[N,..]."""

    pixels: Images
    images: Images
    provenance: Provenance


def grid_labels(classes: int, rows: int) -> list[int]:
    """The labels of a grid with ``rows`` samples of each class."""
    if not 1 <= rows <= MAX_ROWS:
        raise UsageError(f"rows must be in 1..{MAX_ROWS}, not {rows}", Setting("rows", 2))
    return list(range(classes)) * rows


def sample_grid(
    engine: "Engine", request: SamplingRequest, upscale: int = 4, on_step: Callable[[int], None] | None = None
) -> SampleGrid:
    """Sample every class and arrange the images with titles.

    Args:
        request: completed by `Engine.resolve`, for the labels of `grid_labels`.
    """
    images = engine.run(request, on_step)
    rows = len(request.labels) // len(engine.classes)
    argv = request.to_argv("grid", rows=rows, upscale=upscale)
    provenance = build_provenance(request, "sheet", argv, upscale=upscale)
    return SampleGrid(class_grid(images, engine.classes, upscale), images, provenance)
