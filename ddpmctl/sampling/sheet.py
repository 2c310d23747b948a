"""A labelled sheet with samples of every class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmctl.errors import Setting, UsageError
from ddpmctl.imaging.provenance import Provenance
from ddpmctl.imaging.sheet import class_sheet
from ddpmctl.imaging.upscale import Images
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import SamplingRequest

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine

MAX_ROWS = 1000


@dataclass(frozen=True, slots=True)
class SampleSheet:
    """A sheet, uint8[H,W] or uint8[H,W,3], and the images on it, uint8[N,..], which are not enlarged."""

    pixels: Images
    images: Images
    provenance: Provenance


def sheet_labels(classes: int, rows: int) -> list[int]:
    """The labels of a sheet with so many samples of each class."""
    if not 1 <= rows <= MAX_ROWS:
        raise UsageError(f"{rows} rows are not possible", Setting("rows", f"1..{MAX_ROWS}"))
    return list(range(classes)) * rows


def sample_sheet(
    engine: "Engine", request: SamplingRequest, upscale: int = 4, on_step: Callable[[int], None] | None = None
) -> SampleSheet:
    """Sample every class and lay the images out with titles.

    Args:
        request: completed by `Engine.resolve`, for the labels of `sheet_labels`.
    """
    images = engine.run(request, on_step)
    rows = len(request.labels) // len(engine.classes)
    argv = request.to_argv("grid", rows=rows, upscale=upscale)
    provenance = build_provenance(request, "sheet", argv, upscale=upscale)
    return SampleSheet(class_sheet(images, engine.classes, upscale), images, provenance)
