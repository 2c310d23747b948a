"""A labelled grid with samples of every class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ddpmctl.errors import Setting, UsageError
from ddpmctl.imaging.grid import class_grid, labelled_grid
from ddpmctl.imaging.provenance import Provenance
from ddpmctl.imaging.upscale import Images
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import SamplingRequest

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine

MAX_ROWS = 1000
COLUMNS = 10
"""Pictures per row of a sheet of edits."""


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


def edit_grid(
    engine: "Engine", request: SamplingRequest, upscale: int = 4, on_step: Callable[[int], None] | None = None
) -> SampleGrid:
    """A picture as it was prepared, and images that were edited from it.

    Args:
        request: completed by `Engine.resolve`, with a picture.
    """
    from ddpmctl.sampling.loop import start_image, start_pixels

    start, images = request.variation.start, engine.run(request, on_step)
    assert start is not None, "an edited image has a picture"
    drawing = start_pixels(start_image(start, engine.diffusion), engine.diffusion.pixel_range, images.shape[1])()
    cells = [*drawing, *images]
    titles = ["drawing", *(f"seed {seed}" for seed in request.seeds)]
    rows = [range(first, min(first + COLUMNS, len(cells))) for first in range(0, len(cells), COLUMNS)]
    shown = [[cells[k] for k in row] for row in rows], [[titles[k] for k in row] for row in rows]
    argv = request.to_argv("edit", sheet=True, upscale=upscale)
    provenance = build_provenance(request, "sheet", argv, upscale=upscale)
    return SampleGrid(labelled_grid(*shown, upscale), np.stack(cells), provenance)
