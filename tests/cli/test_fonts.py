"""Titles in scripts that Pillow's own font lacks, with and without a font that has them."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest

from ddpmctl.imaging import fonts
from ddpmctl.imaging.grid import labelled_grid
from tests.conftest import Cli
from tests.imaging.support import Images, noise

DEJAVU = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
"""It has Greek, Cyrillic and symbols, and no CJK."""

CHESS = "\u265e\u2654"
"""Two characters that Pillow's own font lacks and DejaVu has."""


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is the only one with fonts; matplotlib's own is not there either."""
    fonts.installed.cache_clear()
    monkeypatch.setattr(fonts, "font_folders", lambda: [tmp_path])
    monkeypatch.setattr(fonts, "find_spec", lambda name: None)
    return tmp_path


def title(text: str) -> Images:
    """The strip above the image of a sheet with that title."""
    return labelled_grid([[noise(1, 32, 32)[0]]], [[text]], 4)[:31]


def test_what_pillow_s_own_font_has_needs_no_other(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "installed", lambda: pytest.fail("fonts were looked for"))
    assert fonts.missing_characters(["eight", "T-shirt/top", "a b"]) == ""


def test_an_installed_font_draws_what_the_own_one_lacks(only: Path) -> None:
    without = title(CHESS[0]), title(CHESS[1])
    assert np.array_equal(*without), "two boxes"
    assert fonts.missing_characters([CHESS, "8"]) == "".join(sorted(CHESS))
    fonts.installed.cache_clear()
    (only / "deep").mkdir()
    (only / "deep" / "Some.TTF").write_bytes(DEJAVU.read_bytes())
    (only / "broken.ttf").write_bytes(b"no font")
    (only / "notes.txt").write_text("")
    assert fonts.missing_characters([CHESS, "8"]) == ""
    assert not np.array_equal(title(CHESS[0]), title(CHESS[1]))
    assert not np.array_equal(title(CHESS[0]), without[0])
    # What no font has is named, and the rest of the title is drawn.
    assert fonts.missing_characters([CHESS + "\u5b57", "\u5b57"]) == "\u5b57"


def test_the_font_of_matplotlib_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_folders", list)
    fonts.installed.cache_clear()
    assert fonts.installed() == (DEJAVU,)
    assert fonts.missing_characters([CHESS]) == ""
    fonts.installed.cache_clear()


def test_joiners_and_variation_selectors_are_not_missed(only: Path) -> None:
    assert fonts.missing_characters(["a\u200db\ufe0f"]) == ""
    assert np.array_equal(title("a\u200db\ufe0f"), title("ab"))


@pytest.fixture
def chess(tmp_path: Path) -> str:
    """A dataset of two classes that are named by chess pieces."""
    from PIL import Image

    for name in ("king\u5b57", "knight\u265e"):
        (tmp_path / "pieces" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.fromarray(noise(1, 32, 32)[0])
            image.save(tmp_path / "pieces" / name / f"{number}.png")
    return f"folder:{tmp_path / 'pieces'}"


def test_a_command_warns_once_of_boxes(tiny_here: Cli, only: Path, chess: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = tiny_here("data", "show", chess, "-o", "sheet.png")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning:") == 1
    assert "warning: no installed font has glyphs for \u265e\u5b57: they are drawn as boxes" in done.stderr
    fonts.installed.cache_clear()
    monkeypatch.setattr(fonts, "installed", lambda: (DEJAVU,))
    shown = tiny_here("data", "show", chess, "-o", "sheet.png")
    assert "warning: no installed font has glyphs for \u5b57: " in shown.stderr
