"""A plot of quality against cost, by matplotlib."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpmctl.evaluation.api import SamplingResult


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
