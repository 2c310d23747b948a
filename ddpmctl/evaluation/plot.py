"""A picture of quality against cost, by matplotlib."""

import io
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """One way of sampling.

    Attributes:
        line: what it shares with the points that it is joined to.
        evaluations: of the network, an image.
        ratio: Frechet distance over the real floor; None if that is unknown.
        accuracy: share of labels read right.
    """

    line: str
    evaluations: int
    ratio: float | None
    accuracy: float


def quality_against_cost(points: list[Point]) -> bytes:
    """Distance and accuracy over evaluations of the network, a line a way of sampling, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for line in dict.fromkeys(point.line for point in points):
        along = sorted((point for point in points if point.line == line), key=lambda point: point.evaluations)
        known = [(point.evaluations, point.ratio) for point in along if point.ratio is not None]
        if known:
            left.plot(*zip(*known, strict=True), marker="o", label=line)
        right.plot([point.evaluations for point in along], [100 * point.accuracy for point in along], marker="o")
    left.axhline(1, color="grey", linestyle=":", label="real images")
    left.set_ylabel("Frechet distance / real floor")
    right.set_ylabel("label accuracy, %")
    for axes in (left, right):
        if len(axes.lines) > (axes is left):  # a logarithmic axis needs a point
            axes.set_xscale("log")
        axes.set_xlabel("evaluations of the network, an image")
        axes.grid(alpha=0.3)
    left.set_ylim(bottom=0)
    left.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()
