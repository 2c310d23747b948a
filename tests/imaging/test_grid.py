"""Grids of titled images."""

from itertools import combinations

import numpy as np
import pytest

from ddpmctl.imaging.grid import GAP, INK, PAPER, labelled_grid
from ddpmctl.imaging.upscale import upscale
from tests.builders import DIGITS

from .support import Images, noise

FACTOR = 4
SIDE = 32 * FACTOR


def cells(sheet: Images, rows: int, columns: int, titled: list[bool]) -> list[list[tuple[Images, Images]]]:
    """Title and picture of each cell, found where they must be."""
    band = SIDE // 5
    found, y = [], GAP
    for row in range(rows):
        height = band if titled[row] else 0
        lefts = [GAP + column * (SIDE + GAP) for column in range(columns)]
        found.append(
            [(sheet[y : y + height, x : x + SIDE], sheet[y + height : y + height + SIDE, x : x + SIDE]) for x in lefts]
        )
        y += height + SIDE + GAP
    return found


def paper_only(sheet: Images, rows: int, columns: int, titled: list[bool]) -> bool:
    """Whether there is nothing outside the cells."""
    rest = sheet.copy()
    for row in cells(rest, rows, columns, titled):
        for title, image in row:
            title[:] = PAPER
            image[:] = PAPER
    return bool((rest == PAPER).all())


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_the_test_sheet_has_a_readable_title_over_each_picture(colour: bool) -> None:
    images = noise(10, 32, 32, 3) if colour else noise(10, 32, 32)
    sheet = labelled_grid([list(images[:5]), list(images[5:])], [DIGITS[:5], DIGITS[5:]], FACTOR)
    band = SIDE // 5
    assert sheet.dtype == np.uint8
    assert sheet.shape[:2] == (GAP + 2 * (band + SIDE + GAP), GAP + 5 * (SIDE + GAP))
    assert sheet.shape[2:] == ((3,) if colour else ())
    found = [cell for row in cells(sheet, 2, 5, [True, True]) for cell in row]
    titles = [title for title, _ in found]
    for (_, image), original in zip(found, images, strict=True):
        assert np.array_equal(image, upscale(original, FACTOR))
    for title in titles:
        ink = title.reshape(band, SIDE, -1).min(axis=2) < 100
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        # Tall enough to read, and in the middle.
        assert rows[-1] - rows[0] >= 8
        assert title.min() == INK
        assert abs((columns[0] + columns[-1]) / 2 - SIDE / 2) < 3
    assert all(not np.array_equal(one, other) for one, other in combinations(titles, 2))
    assert paper_only(sheet, 2, 5, [True, True])


def test_titles_may_stand_over_the_first_row_alone() -> None:
    images = noise(6, 32, 32)
    sheet = labelled_grid([list(images[:3]), list(images[3:])], [DIGITS[:3], []], FACTOR)
    assert sheet.shape == (GAP + SIDE // 5 + 2 * (SIDE + GAP), GAP + 3 * (SIDE + GAP))
    found = [image for row in cells(sheet, 2, 3, [True, False]) for _, image in row]
    for image, original in zip(found, images, strict=True):
        assert np.array_equal(image, upscale(original, FACTOR))
    assert paper_only(sheet, 2, 3, [True, False])


def test_a_short_row_leaves_paper() -> None:
    images = noise(3, 32, 32)
    sheet = labelled_grid([list(images[:2]), list(images[2:])], [DIGITS[:2], DIGITS[2:3]], FACTOR)
    title, empty = cells(sheet, 2, 2, [True, True])[1][1]
    assert (title == PAPER).all()
    assert (empty == PAPER).all()


@pytest.mark.parametrize("title", ["Handwritten digit eight", "W" * 20])
@pytest.mark.parametrize("factor", [1, 4])
def test_a_long_title_stays_over_its_picture(title: str, factor: int) -> None:
    images = list(noise(3, 32, 32))
    sheet = labelled_grid([images], [["", title, ""]], factor)
    side = 32 * factor
    band = sheet.shape[0] - side - 2 * GAP
    head = sheet[GAP : GAP + band]
    left = GAP + side + GAP
    assert (head[:, left : left + side] < 200).any()
    assert (head[:, :left] == PAPER).all()
    assert (head[:, left + side :] == PAPER).all()
