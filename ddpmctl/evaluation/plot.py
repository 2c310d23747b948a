"""A plot of quality against cost, by matplotlib."""

import io
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """One sampling setting.

    Attributes:
        line: the name of the line that joins it to others.
        nfe: network function evaluations per image.
        ratio: Frechet distance over the real-data floor; None if that is unknown.
        accuracy: label accuracy.
    """

    line: str
    nfe: int
    ratio: float | None
    accuracy: float


def quality_against_cost(points: list[Point]) -> bytes:
    """Frechet distance and label accuracy over network function evaluations, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for line in dict.fromkeys(point.line for point in points):
        joined = sorted((point for point in points if point.line == line), key=lambda point: point.nfe)
        known = [(point.nfe, point.ratio) for point in joined if point.ratio is not None]
        if known:
            left.plot(*zip(*known, strict=True), marker="o", label=line)
        right.plot([point.nfe for point in joined], [100 * point.accuracy for point in joined], marker="o")
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
