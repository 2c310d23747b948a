"""Images in the terminal, rendered by a terminal emulator."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli

from .support import OFTEN, Terminal, copy_model, pixels

COLOURS: dict[str, Any] = {"COLORTERM": "truecolor"}
BLOCK = "▀"

MAKING = {
    "generate": ("generate", 8, "--seed", 1, "--steps", 2),
    "grid": ("grid", "--seed", 1, "--steps", 2),
    "animate": ("animate", 3, "--seed", 1, "--frames", 4),
    "inspect --at": ("inspect", "tiny", "--at", 500, "--label", 8),
    "data show": ("data", "show", "strokes:60"),
}


def blocks(text: str) -> list[int]:
    """How many half blocks each line has that has any."""
    return [line.count(BLOCK) for line in text.splitlines() if BLOCK in line]


@pytest.mark.parametrize("command", MAKING)
def test_a_terminal_shows_what_is_made(tiny_home: Path, tmp_path: Path, command: str) -> None:
    with Terminal(tiny_home, *MAKING[command], cwd=tmp_path, **COLOURS) as terminal:
        assert terminal.finish() == 0, terminal.text
    widths = blocks(terminal.text)
    assert len(widths) >= 5
    assert max(widths) <= 110
    assert "\x1b[38;2;" in terminal.screen


def test_a_digit_in_the_terminal_is_the_one_in_the_file(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, "generate", 8, "--seed", 1, "-o", "x.png", cwd=tmp_path, **COLOURS) as terminal:
        assert terminal.finish() == 0
    cells = re.findall(r"\x1b\[38;2;(\d+);\d+;\d+;48;2;(\d+);\d+;\d+m(▀+)", terminal.screen)
    drawn = [(int(upper), int(lower)) for upper, lower, run in cells for _ in run]
    image = pixels(tmp_path / "x.png").astype(int)
    assert drawn == [(int(high), int(low)) for high, low in zip(image[::2].flat, image[1::2].flat, strict=True)]


def test_a_terminal_of_256_colours_shows_them(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, *MAKING["generate"], cwd=tmp_path) as terminal:
        assert terminal.finish() == 0
    assert blocks(terminal.text) == [32] * 16
    assert "\x1b[38;5;" in terminal.screen


@pytest.mark.parametrize("poor", [{"NO_COLOR": "1"}, {"TERM": "linux"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_where_there_are_no_colours_or_characters_it_is_a_ramp_of_shades(
    tiny_home: Path, tmp_path: Path, poor: dict[str, Any]
) -> None:
    with Terminal(tiny_home, *MAKING["generate"], cwd=tmp_path, **poor) as terminal:
        assert terminal.finish() == 0
    assert BLOCK not in terminal.text
    assert sum(any(shade in line for shade in ":-=+*#%@") for line in terminal.text.splitlines()[2:-1]) >= 5


@pytest.mark.parametrize("how", [("--no-show",), ("--json",), ("--quiet",)], ids=str)
def test_it_is_not_shown_to_those_who_want_something_else(tiny_home: Path, tmp_path: Path, how: tuple[str]) -> None:
    with Terminal(tiny_home, *MAKING["generate"], *how, cwd=tmp_path, **COLOURS) as terminal:
        assert terminal.finish() == 0
    assert BLOCK not in terminal.text


def test_off_a_terminal_nothing_is_drawn_even_if_it_is_asked_for(tiny_here: Cli) -> None:
    done = tiny_here(*MAKING["generate"], "--show")
    assert (done.returncode, done.stdout) == (0, "eight.png\n")
    assert BLOCK not in done.stderr
    assert "images are not shown: stderr is not a terminal" in done.stderr
    assert "nothing is drawn" not in tiny_here(*MAKING["generate"]).stderr


def test_a_notebook_is_no_terminal_though_it_looks_like_one(tiny_home: Path, tmp_path: Path) -> None:
    jupyter: dict[str, Any] = {"JPY_PARENT_PID": "1", "FORCE_COLOR": "1", "TERM": "xterm-color"}
    with Terminal(tiny_home, *MAKING["generate"], cwd=tmp_path, **jupyter) as terminal:
        assert terminal.finish() == 0
    assert "eight.png" in terminal.text
    assert BLOCK not in terminal.text
    assert "\x1b[1A" not in terminal.screen
    assert "\x1b[?25l" not in terminal.screen


def test_a_log_with_forced_colours_has_no_bars_and_pictures(tiny: Cli) -> None:
    done = tiny(*MAKING["generate"], TTY_COMPATIBLE="1", FORCE_COLOR="1")
    assert done.returncode == 0
    assert BLOCK not in done.stderr
    assert "\x1b[?25l" not in done.stderr
    assert "sampling" not in done.stderr


def test_of_many_images_as_many_are_shown_as_there_is_room_for(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, "generate", 8, "-n", 200, "--steps", 1, "-o", "many.npz", cwd=tmp_path) as terminal:
        assert terminal.finish() == 0
    assert len(blocks(terminal.text)) <= 36
    assert re.search(r"\d+ more images not shown", terminal.text)


def test_a_picture_from_a_file_is_shown_by_inspect(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, *MAKING["generate"], "--upscale", 4, "-o", "x.png", cwd=tmp_path) as terminal:
        assert terminal.finish() == 0
    with Terminal(tiny_home, "inspect", "x.png", cwd=tmp_path) as terminal:
        assert terminal.finish() == 0
    assert blocks(terminal.text) == [32] * 16
    with Terminal(tiny_home, "inspect", "tiny", cwd=tmp_path) as terminal:
        assert terminal.finish() == 0
    assert "dpmpp" in terminal.text


def test_an_animation_plays_in_place(tiny_home: Path, tmp_path: Path) -> None:
    typed = ("animate", 3, "--frames", 6, "--fps", 5, "--hold", 0, "--play", "-o", "x.gif")
    with Terminal(tiny_home, *typed, cwd=tmp_path, **COLOURS) as terminal:
        assert terminal.finish() == 0
    frames = terminal.text.count(BLOCK) / (32 * 16)
    assert frames == 7  # the last is drawn again, and stays
    # Each but the first begins where the one before began.
    assert terminal.screen.count("\x1b[1A") >= 5 * 15
    assert (tmp_path / "x.gif").is_file()


def test_playing_off_a_terminal_is_said_to_be_nothing(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("animate", 3, "--frames", 3, "--play", "-o", "x.gif")
    assert (done.returncode, done.stdout) == (0, "x.gif\n")
    assert "images are not shown: stderr is not a terminal" in done.stderr


@pytest.mark.slow
@pytest.mark.slow
def test_train_shows_a_preview_and_a_curve_and_keeps_them_off_where_unwanted(tmp_path: Path) -> None:
    typed = ("train", "--preset", "quick", "--dataset", "strokes:300", "--batch-size", 32, "--device", "cpu")
    with Terminal(tmp_path, *typed, "--epochs", 6, program=OFTEN, **COLOURS) as terminal:
        assert terminal.finish() == 0, terminal.text
    assert re.search(r"preview after \d+ steps:", terminal.text)
    assert "MSE (log scale):" in terminal.text
    assert max(blocks(terminal.text)) > 60
    with Terminal(tmp_path, *typed, "--epochs", 3, **COLOURS) as terminal:
        assert terminal.finish() == 0
    assert "initial noise:" in terminal.text
    with Terminal(tmp_path, *typed, "--epochs", 1, "--no-show", **COLOURS) as terminal:
        assert terminal.finish() == 0
    assert BLOCK not in terminal.text


@pytest.mark.slow
@pytest.mark.slow
def test_the_live_picture_of_a_training_fits_into_the_terminal(tmp_path: Path) -> None:
    copied = ("train", "--preset", "quick", "--dataset", "strokes:300", "--batch-size", 32, "--device", "cpu")
    with Terminal(tmp_path, *copied, "--epochs", 5, program=OFTEN, lines=24, columns=80, **COLOURS) as terminal:
        assert terminal.finish() == 0
    # Rich puts dots where a live picture is too tall.
    assert not re.search(r"^ *\.\.\. *$", terminal.text, re.MULTILINE)
    assert max(blocks(terminal.text)) <= 80


FAKE = """
import sys
from textual_image import renderable
renderable.Image = renderable.{kind}Image
sys.argv = ["ddpmctl", *sys.argv[1:]]
from ddpmctl.cli.main import main
main()
"""


@pytest.mark.parametrize(("kind", "mark"), [("TGP", "\x1b_G"), ("Sixel", "\x1bP")])
def test_kitty_and_sixel_get_pixels(tiny_home: Path, tmp_path: Path, kind: str, mark: str) -> None:
    program = (sys.executable, "-c", FAKE.format(kind=kind))
    with Terminal(tiny_home, *MAKING["generate"], cwd=tmp_path, program=program, **COLOURS) as terminal:
        assert terminal.finish() == 0, terminal.text
    before, _, after = terminal.screen.partition("seed")
    assert mark in before + after
    assert BLOCK not in terminal.text


def test_a_terminal_that_says_it_can_do_sixel_is_believed(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, *MAKING["generate"], cwd=tmp_path, **COLOURS) as terminal:
        terminal.wait_for("\x1b[c", raw=True)
        terminal.type("\x1b[?62;4c")
        assert terminal.finish() == 0, terminal.text
    assert "\x1bP" in terminal.screen
    assert BLOCK not in terminal.text


def test_a_demo_that_is_there_is_shown(tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "demo")
    with Terminal(tmp_path, "demo", "--no-show", **COLOURS) as terminal:
        assert terminal.finish() == 0
    assert BLOCK not in terminal.text
