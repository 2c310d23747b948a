"""Curves in pixels: inside their frame, in order, with round numbers beside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpmctl.report.charts import BOTTOM, LEFT, RIGHT, TOP, Line, chart, log_ticks, ticks


def line(values: list[float], name: str = "a") -> Line:
    return Line(name, list(enumerate(values)), [f"{value}" for value in values], 0)


def test_a_curve_goes_from_corner_to_corner() -> None:
    drawn = chart("title", "step", [line([1.0, 0.1, 0.01])], log=True)
    assert drawn
    assert drawn.places == [[(LEFT, TOP), ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (RIGHT, BOTTOM)]]
    assert [name for _, name in drawn.y_ticks] == ["0.01", "0.1", "1"]
    assert drawn.path(0) == f"{LEFT:.1f},{TOP:.1f} 200.0,98.0 {RIGHT:.1f},{BOTTOM:.1f}"
    assert drawn.data() == [{"name": "a", "points": [[50, 10, "1.0"], [200.0, 98.0, "0.1"], [350, 186, "0.01"]]}]


def test_one_point_is_no_curve_and_nothing_is_no_chart() -> None:
    assert chart("title", "step", [line([1.0])]) is None
    assert chart("title", "step", []) is None
    both = chart("title", "step", [line([1.0]), line([1.0, 2.0], "b")])
    assert both
    assert [kept.name for kept in both.lines] == ["b"]


def test_a_logarithmic_axis_leaves_out_what_has_no_logarithm() -> None:
    drawn = chart("title", "step", [line([1.0, 0.0, 0.5])], log=True)
    assert drawn
    assert drawn.lines[0].tooltips == ["1.0", "0.5"]


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40), st.booleans())
def test_every_point_and_every_tick_lies_inside(values: list[float], log: bool) -> None:
    drawn = chart("title", "step", [line(values)], log=log)
    assert drawn
    for x, y in drawn.places[0]:
        assert LEFT <= x <= RIGHT
        assert TOP <= y <= BOTTOM
    assert [x for x, _ in drawn.places[0]] == sorted(x for x, _ in drawn.places[0])
    for y, _ in drawn.y_ticks:
        assert TOP - 0.02 <= y <= BOTTOM + 0.02
    assert 2 <= len(drawn.x_ticks) <= 12


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 999, [0, 200, 400, 600, 800]), (1, 2, [1, 1.2, 1.4, 1.6, 1.8, 2])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_round_however_small_the_span() -> None:
    assert log_ticks(-3, 0) == [0.001, 0.01, 0.1, 1]
    assert log_ticks(-1, 0) == [0.1, 0.3, 1]
    assert log_ticks(-1.01, -0.99) == [0.098, 0.099, 0.1, 0.101, 0.102]
