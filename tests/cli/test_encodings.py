"""Terminals and logs that cannot write every character: older Windows, the C locale."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Cli, clean_environment

pytestmark = pytest.mark.slow

NARROW = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
NARROWEST = {"PYTHONIOENCODING": "ascii"}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Pictures whose classes have names that few encodings can write."""
    for number, name in enumerate(("Ärger", "猫", "plain")):
        folder = tmp_path / "own" / name
        folder.mkdir(parents=True)
        for k in range(6):
            Image.new("L", (32, 32), 40 * number + k).save(folder / f"{k}.png")
    return tmp_path / "own"


@pytest.mark.parametrize("encoding", [NARROW, NARROWEST], ids=["cp1252", "ascii"])
def test_names_that_cannot_be_written_stop_nothing(
    cli: Cli, tmp_path: Path, foreign: Path, encoding: dict[str, str]
) -> None:
    typed = ("train", "--preset", "quick", "--dataset", f"folder:{foreign}", "--epochs", 2, "--name", "a")
    done = cli(*typed, "--device", "cpu", "--quiet", **encoding)
    assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr
    told = cli("inspect", "a", **encoding)
    assert told.returncode == 0, told.stderr
    assert "plain" in told.stdout
    assert "?" in told.stdout
    # The curve is drawn in what can be written.
    assert "*" in told.stdout
    assert cli("inspect", "a", PYTHONIOENCODING="utf-8").stdout.count("猫") == 1
    made = cli("grid", "-m", "a", "--steps", 1, "-o", "sheet.png", **encoding)
    assert made.returncode == 0, made.stderr


def test_json_is_the_same_in_any_encoding(tiny_home: Path, tmp_path: Path) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", "ddpmctl", "inspect", "tiny", "--json", "--history"],
            env={**clean_environment(tiny_home), **encoding}, cwd=tmp_path, capture_output=True, check=True,
        ).stdout
        for encoding in ({}, NARROWEST)
    ]  # fmt: skip
    assert said[0] == said[1]


def test_a_log_has_no_escape_codes_and_no_bars(cli: Cli) -> None:
    done = cli("train", "--preset", "quick", "--dataset", "strokes:300", "--max-steps", 3, "--device", "cpu")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "▀" not in done.stderr
    assert "━" not in done.stderr
