"""Images as terminal characters."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ddpmctl.cli.terminal import SHADES, curve, to_characters

from .support import Images


def rendered(image: Images, columns: int, *, colour: bool) -> str:
    """What a terminal is sent."""
    text = io.StringIO()
    # no_color, since the tests set NO_COLOR.
    console = Console(
        file=text, force_terminal=colour, color_system="truecolor" if colour else None, no_color=not colour, width=100
    )
    console.print(to_characters(image, columns, colour=colour), end="")
    return text.getvalue()


def test_without_colour_a_picture_is_a_ramp_of_shades() -> None:
    image = np.repeat(np.array([[0, 26, 128, 255], [255, 128, 26, 0]], np.uint8), 2, axis=0)
    assert rendered(image, 80, colour=False).rstrip("\n") == " .+@\n@+. "
    assert (SHADES[0], SHADES[-1]) == (" ", "@")


def test_with_colour_a_character_is_two_pixels() -> None:
    image = np.array([[0, 255], [128, 7]], np.uint8)
    assert rendered(image, 80, colour=True) == (
        "\x1b[38;2;0;0;0;48;2;128;128;128m▀\x1b[0m\x1b[38;2;255;255;255;48;2;7;7;7m▀\x1b[0m\n"
    )


def test_an_odd_row_has_black_below() -> None:
    image = np.array([[[255, 0, 9]]], np.uint8)
    assert rendered(image, 80, colour=True) == "\x1b[38;2;255;0;9;48;2;0;0;0m▀\x1b[0m\n"


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("shape", [(64, 60), (64, 60, 3)])
@pytest.mark.parametrize(("columns", "expected"), [(80, (60, 32)), (60, (60, 32)), (30, (30, 16)), (1, (1, 1))])
def test_a_picture_fits_into_the_columns(
    colour: bool, shape: tuple[int, ...], columns: int, expected: tuple[int, int]
) -> None:
    text = rendered(np.full(shape, 255, np.uint8), columns, colour=colour)
    mark = "▀" if colour else "@"
    assert [line.count(mark) for line in text.rstrip("\n").split("\n")] == [expected[0]] * expected[1]


def test_a_curve_falls_from_its_largest_to_its_smallest_value() -> None:
    assert curve([1.0, 0.1, 0.01], columns=8, rows=4).split("\n") == [
        "   1 ⠑⢄⠀⠀⠀⠀⠀⠀",
        "     ⠀⠀⠑⢄⠀⠀⠀⠀",
        "     ⠀⠀⠀⠀⠑⢄⠀⠀",
        "0.01 ⠀⠀⠀⠀⠀⠀⠑⢄",
    ]


@pytest.mark.parametrize("values", [[0.25], [0.25, 0.25, 0.25]])
def test_a_curve_of_one_value_is_a_level_line(values: list[float]) -> None:
    lines = curve(values, columns=5, rows=2).split("\n")
    assert lines == ["0.25 ⠉⠉⠉⠉⠉", "0.25 ⠀⠀⠀⠀⠀"]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_a_curve_has_a_dot_in_every_column_of_dots(values: list[float]) -> None:
    lines = [line[-60:] for line in curve(values).split("\n")]
    assert len(lines) == 8
    dots = sum((ord(character) - 0x2800).bit_count() for line in lines for character in line)
    assert dots == 120
