"""Plots by matplotlib: quality against cost, and errors by class and timestep."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ddpmctl.evaluation.api import SamplingResult

MAX_EXCESS = 100
"""Percentage above which all errors have one colour."""

MAX_TITLE = 24
"""Characters of a title."""


@dataclass(frozen=True, slots=True)
class ErrorMap:
    """The errors of one image by class and timestep.

    Attributes:
        pixels: the image, uint8[S,S] or uint8[S,S,3].
        predicted: index of the predicted class.
        errors: float64[classes, timesteps].
    """

    pixels: NDArray[np.uint8]
    title: str
    classes: Sequence[str]
    predicted: int
    timesteps: Sequence[int]
    errors: NDArray[np.float64]


def quality_against_cost(results: "Sequence[SamplingResult]") -> bytes:
    """Frechet distance and label accuracy over network function evaluations, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label in dict.fromkeys(result.label for result in results):
        joined = sorted((result for result in results if result.label == label), key=lambda result: result.nfe)
        known = [(each.nfe, each.metrics.frechet.ratio) for each in joined if each.metrics.frechet.ratio is not None]
        if known:
            left.plot(*zip(*known, strict=True), marker="o", label=label)
        right.plot([each.nfe for each in joined], [100 * each.metrics.accuracy for each in joined], marker="o")
    left.axhline(1, color="grey", linestyle=":", label="real images")
    left.set_ylabel("Frechet distance / real-data floor")
    right.set_ylabel("label accuracy, %")
    for axes in (left, right):
        if len(axes.lines) > (axes is left):  # a logarithmic axis needs a point
            axes.set_xscale("log")
        axes.set_xlabel("network function evaluations (NFE) per image")
        axes.grid(alpha=0.3)
    left.set_ylim(bottom=0)
    left.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def error_maps(maps: "Sequence[ErrorMap]") -> bytes:
    """Images, and the errors of each class at each timestep relative to the smallest one, as a PNG."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    height = max(2.2, 0.9 + 0.17 * len(maps[0].classes))
    figure = Figure(figsize=(9, height * len(maps)), layout="constrained")
    grid = figure.subplots(len(maps), 2, width_ratios=(1, 3.4), squeeze=False)
    for (left, right), each in zip(grid, maps, strict=True):
        left.imshow(each.pixels, cmap="gray", vmin=0, vmax=255)
        # Names are shown as they are: "$" would start a formula.
        title = "\n".join(line[:MAX_TITLE] for line in (each.title, each.classes[each.predicted]))
        left.set_title(title, fontsize="medium", parse_math=False)
        left.axis("off")
        excess = 100 * (each.errors / each.errors.min(axis=0) - 1)
        shown = right.imshow(excess, aspect="auto", cmap="viridis_r", norm=PowerNorm(0.5, 0, MAX_EXCESS))
        right.set_yticks(range(len(each.classes)), each.classes, fontsize="small", parse_math=False)
        right.get_yticklabels()[each.predicted].set_fontweight("bold")
        ticks = range(0, len(each.timesteps), 3)
        right.set_xticks(ticks, [str(each.timesteps[k]) for k in ticks], fontsize="small")
        right.set_xlabel("timestep, from the image to noise", fontsize="small")
        figure.colorbar(shown, ax=right, label="error above the smallest, %", extend="max")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()
