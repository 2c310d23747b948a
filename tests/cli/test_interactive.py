"""``ddpmctl generate --interactive``: at a terminal, and with labels from a pipe."""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Cli, clean_environment

from .support import Terminal, complaint, pixels

ASK = ("generate", "--interactive", "--seed", 5, "--steps", 3)


def test_a_terminal_is_asked_for_one_label_after_the_other(tiny_home: Path, tmp_path: Path, tiny_here: Cli) -> None:
    with Terminal(tiny_home, *ASK, cwd=tmp_path, COLORTERM="truecolor") as terminal:
        terminal.wait_for("label> ")
        terminal.type("eight\n")
        terminal.wait_for("eight.png")
        terminal.type("ten\n")
        terminal.wait_for("unknown label 'ten'")
        terminal.type("3 4\n")
        terminal.wait_for("images-2.png")
        terminal.type("\n")
        assert terminal.finish() == 0
    assert "labels: zero, one, two" in terminal.text
    assert "▀" in terminal.text
    # Each comes from the next seed, and is what it is when asked for alone.
    for label, seed, file in ((8, 5, "eight.png"), (3, 6, "images-1.png"), (4, 7, "images-2.png")):
        assert tiny_here("generate", label, "--seed", seed, "--steps", 3, "-o", "alone.png").returncode == 0
        assert np.array_equal(pixels(tmp_path / file), pixels(tmp_path / "alone.png"))


def test_the_model_is_loaded_once_and_each_line_is_timed(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, "generate", "-i", "--no-show", cwd=tmp_path) as terminal:
        for number in range(3):
            terminal.wait_for("label> ")
            terminal.type("8\n")
            terminal.wait_for("eight.png" if not number else f"eight-{number}.png")
        terminal.type("quit\n")
        assert terminal.finish() == 0
    seconds = [float(found) for found in re.findall(r"^(\d+\.\d\d) s$", terminal.text, re.MULTILINE)]
    assert len(seconds) == 3
    assert terminal.text.count("labels: zero") == 1
    assert seconds[0] > 0


def test_labels_may_be_piped_in_and_paths_piped_out(tiny_home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ddpmctl", *map(str, ASK), "-o", ".", "-n", "2"],
        input="8\nthree\n", cwd=tmp_path, env=clean_environment(tiny_home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["eight-1.png", "eight-2.png", "three-1.png", "three-2.png"]
    assert "label>" not in done.stdout + done.stderr


def test_what_cannot_be_made_of_a_pipe_ends_with_1_after_all_the_others(
    tiny_here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("8\nten\n3\n"))
    done = tiny_here(*ASK)
    assert done.returncode == 1
    assert done.stdout.split() == ["eight.png", "three.png"]
    assert "error: unknown label 'ten'" in done.stderr
    assert "error: 1 line failed" in done.stderr


@pytest.mark.parametrize("more", [("8",), ("--json",), ("-o", "x.png")], ids=str)
def test_what_does_not_go_together_is_said(tiny_here: Cli, more: tuple[str, ...]) -> None:
    assert "--interactive" in complaint(tiny_here(*ASK, *more), 2)[0]


def test_ctrl_c_ends_it(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, *ASK, cwd=tmp_path) as terminal:
        terminal.wait_for("label> ")
        time.sleep(0.5)  # it is waiting for a line by then
        terminal.type("\x03")
        assert terminal.finish() == 130
    assert "Traceback" not in terminal.text
