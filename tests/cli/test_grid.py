"""``ddpmctl grid``: the grid of samples."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ddpmctl.registry import Registry
from tests.builders import register_random, tiny_config
from tests.conftest import Cli

from .support import computed, pixels, reported, tiny_checkpoint, tree

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GAP = 6
PAPER = 255


def cell(sheet: NDArray[np.uint8], row: int, column: int, side: int, bands: int) -> NDArray[np.uint8]:
    """The image in a row and column of a sheet, below ``bands`` bands of titles."""
    band = max(14, side // 5)
    y, x = GAP + bands * band + row * (side + GAP), GAP + column * (side + GAP)
    return sheet[y : y + side, x : x + side]


def title(sheet: NDArray[np.uint8], row: int, column: int, side: int) -> NDArray[np.uint8]:
    """The strip above an image of a sheet whose every row has titles."""
    band = max(14, side // 5)
    y, x = GAP + row * (band + side + GAP), GAP + column * (side + GAP)
    return sheet[y : y + band, x : x + side]


def images_of(tiny: Cli, tmp_path: Path, labels: tuple[str, ...], *options: object) -> NDArray[np.uint8]:
    """What ``generate`` makes of these labels, enlarged as a sheet does."""
    assert tiny("generate", *labels, *options, "-o", "images.npz").returncode == 0
    with np.load(tmp_path / "images.npz") as archive:
        return np.stack([cv2.resize(image, (128, 128), interpolation=cv2.INTER_CUBIC) for image in archive["images"]])


def test_the_sheet_is_two_rows_of_five_titled_digits_four_times_enlarged(tiny: Cli, tmp_path: Path) -> None:
    done = tiny("grid", "--seed", 3)
    assert (done.returncode, done.stdout, done.stderr) == (0, "test_results.png\n", "model tiny (the newest)\n")
    with Image.open(tmp_path / "test_results.png") as image:
        assert (image.format, image.mode) == ("PNG", "L")
        assert image.size == (GAP + 5 * (128 + GAP), GAP + 2 * (25 + 128 + GAP))


def test_every_cell_holds_its_digit_under_its_title(tiny_here: Cli, tmp_path: Path) -> None:
    tiny_here("grid", "--seed", 3)
    sheet = pixels(tmp_path / "test_results.png")
    expected = images_of(tiny_here, tmp_path, CLASSES, "--seed", 3)
    titles = []
    for digit in range(10):
        row, column = divmod(digit, 5)
        assert np.array_equal(cell(sheet, row, column, 128, bands=row + 1), expected[digit])
        titles.append(title(sheet, row, column, 128))
        dark = titles[-1] < 64
        # Large enough to read: letters of a third of the strip's height at least, on white paper.
        assert np.ptp(np.flatnonzero(dark.any(axis=1))) >= 8
        assert (titles[-1] == PAPER).mean() > 0.5
    assert len({strip.tobytes() for strip in titles}) == 10


def test_rows_are_samples_of_each_class_under_one_line_of_titles(tiny_here: Cli, tmp_path: Path) -> None:
    few = ("--seed", 3, "--steps", 2)
    made = reported(tiny_here("grid", "--rows", 3, *few, "-o", "s.png", "--json"), "grid")
    assert (made["rows"], made["upscale"], made["files"]) == (3, 4, ["s.png"])
    sheet = pixels(tmp_path / "s.png")
    assert sheet.shape == (GAP + 25 + 3 * (128 + GAP), GAP + 10 * (128 + GAP))
    expected = images_of(tiny_here, tmp_path, CLASSES * 3, *few)
    for k in range(30):
        assert np.array_equal(cell(sheet, k // 10, k % 10, 128, bands=1), expected[k])
    assert all((title(sheet, 0, column, 128) < 64).any() for column in range(10))


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_the_cells_are_enlarged_as_asked(tiny_here: Cli, tmp_path: Path, factor: int) -> None:
    tiny_here("grid", "--upscale", factor, "--steps", 1, "-o", "s.png")
    side = 32 * factor
    band = max(14, side // 5)
    assert pixels(tmp_path / "s.png").shape == (GAP + 2 * (band + side + GAP), GAP + 5 * (side + GAP))


def test_what_made_the_sheet_is_reported(tiny_here: Cli, tiny_home: Path) -> None:
    model = tiny_checkpoint(tiny_home)
    asked = ("--sampler", "ddim", "--steps", 3, "--guidance", 1.0, "--seed", 12, "--model", "tiny", "--device", "cpu")
    done = tiny_here("grid", *asked, "--json")
    assert done.stderr == ""
    assert reported(done, "grid") == {
        "model": "tiny",
        "digest": model.digest,
        "seed": 12,
        "sampler": "ddim",
        "steps": 3,
        "guidance": 1.0,
        "guidance_interval": [0.0, 1.0],
        **computed(),
        "rows": 1,
        "upscale": 4,
        "files": ["test_results.png"],
    }


def test_the_default_name_never_overwrites_and_an_explicit_one_does(tiny_here: Cli, tmp_path: Path) -> None:
    names = [tiny_here("grid", "--steps", 1).stdout.strip() for _ in range(3)]
    assert names == ["test_results.png", "test_results-1.png", "test_results-2.png"]
    before = tree(tmp_path)
    assert sorted(before) == sorted(names)
    assert tiny_here("grid", "--steps", 2, "-o", "test_results.png").stdout == "test_results.png\n"
    after = tree(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"test_results.png"}


def test_a_sheet_of_many_classes_is_no_wider_than_twenty(here: Cli, tmp_path: Path) -> None:
    names = tuple(f"class {k}" for k in range(45))
    config = tiny_config(model={"num_classes": 45})
    register_random(Registry(tmp_path), "many", config, classes=names)
    made = ("--model", "many", "--steps", 1, "--seed", 0, "--upscale", 1)
    assert here("grid", *made, "-o", "one.png").returncode == 0
    assert pixels(tmp_path / "one.png").shape == (GAP + 5 * (14 + 32 + GAP), GAP + 10 * (32 + GAP))
    assert here("grid", *made, "--rows", 2, "-o", "two.png").returncode == 0
    assert pixels(tmp_path / "two.png").shape == (GAP + 3 * (14 + 2 * (32 + GAP)), GAP + 20 * (32 + GAP))
    assert here("generate", "Class-44", *made, "-o", "last.png").returncode == 0
    last = pixels(tmp_path / "last.png")
    # The seed of the last class alone is that of its place on the sheet.
    alone = here("generate", 44, "--model", "many", "--steps", 1, "--seed", 44, "-o", "alone.png")
    assert alone.returncode == 0
    sheet = pixels(tmp_path / "one.png")
    y, x = GAP + 4 * (14 + 32 + GAP) + 14, GAP + 4 * (32 + GAP)
    assert np.abs(sheet[y : y + 32, x : x + 32].astype(int) - pixels(tmp_path / "alone.png").astype(int)).max() <= 1
    assert not np.array_equal(last, pixels(tmp_path / "alone.png"))
