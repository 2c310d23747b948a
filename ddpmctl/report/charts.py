"""Curves of a page, in the units of an SVG view box."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 350, 10, 186
"""The area of the curves."""

TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        points: x and y of each, from left to right; finite.
        tooltips: of the points.
        colour: index of its colour; the curves of one model share one.
    """

    name: str
    points: Sequence[tuple[float, float]]
    tooltips: Sequence[str]
    colour: int
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves over one axis, ready to be drawn.

    Attributes:
        x_ticks: positions in the view box and their labels; likewise ``y_ticks``.
        places: for each line its points in the view box.
    """

    title: str
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    places: list[list[tuple[float, float]]]

    def data(self) -> list[dict[str, object]]:
        """The lines for the script of the page."""
        return [
            {"name": line.name, "points": [[x, y, text] for (x, y), text in zip(places, line.tooltips, strict=True)]}
            for line, places in zip(self.lines, self.places, strict=True)
        ]

    def path(self, number: int) -> str:
        """A line as the points of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.places[number])


def chart(title: str, x_label: str, lines: Sequence[Line], *, log: bool = False) -> Chart | None:
    """A chart of the lines with at least two points; None if there is none.

    Args:
        log: make the y axis logarithmic and omit values of 0 and below.
    """
    drawn = [line for line in (map(_positive, lines) if log else lines) if len(line.points) > 1]
    if not drawn:
        return None
    xs = [x for line in drawn for x, _ in line.points]
    ys = [math.log10(y) if log else y for line in drawn for _, y in line.points]
    (left, right), (low, high) = (_span(values) for values in (xs, ys))

    def place_x(x: float) -> float:
        return round(LEFT + (x - left) / (right - left) * (RIGHT - LEFT), 2)

    def place_y(y: float) -> float:
        return round(BOTTOM - ((math.log10(y) if log else y) - low) / (high - low) * (BOTTOM - TOP), 2)

    marks = log_ticks(low, high) if log else ticks(low, high)
    return Chart(
        title,
        x_label,
        [(place_x(value), f"{value:,g}") for value in ticks(left, right)],
        [(place_y(value), f"{value:g}") for value in marks],
        drawn,
        [[(place_x(x), place_y(y)) for x, y in line.points] for line in drawn],
    )


def ticks(low: float, high: float) -> list[float]:
    """A few round ticks between two values."""
    raw = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round ticks between two values given as logarithms; evenly spaced if they are close."""
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [
            float(f"{factor * 10.0**power:.6g}")
            for power in range(math.floor(low), math.ceil(high) + 1)
            for factor in factors
            if low - 1e-9 <= math.log10(factor) + power <= high + 1e-9
        ]
        if len(found) >= 3:
            return found
    return ticks(10**low, 10**high)


def _span(values: list[float]) -> tuple[float, float]:
    """The least and the largest; half a unit around a single value."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _positive(line: Line) -> Line:
    kept = [(point, text) for point, text in zip(line.points, line.tooltips, strict=True) if point[1] > 0]
    return replace(line, points=[point for point, _ in kept], tooltips=[text for _, text in kept])
