"""``ddpmctl animate --training``: animations of training previews."""

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Cli, clean_environment

from .support import OFTEN, complaint, frames, reported


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model that was trained for long enough to keep strips."""
    home = tmp_path_factory.mktemp("trained")
    typed = shlex.split("train --preset quick --dataset strokes:300 --batch-size 32 --device cpu --epochs 2 --name a")
    subprocess.run([*OFTEN, *typed], env=clean_environment(home), cwd=home, check=True)
    return home


@pytest.fixture
def learning(trained: Path, here: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("DDPMCTL_HOME", str(trained))
    return here


def test_the_animation_shows_every_strip_from_the_noise_to_the_last(learning: Cli, tmp_path: Path) -> None:
    told = reported(learning("animate", "--training", "a", "-o", "learning.gif", "--upscale", 1, "--json"), "animate")
    assert told["files"] == ["learning.gif"]
    assert told["steps"][0] == 0
    assert told["steps"] == sorted(told["steps"])
    pictures, durations = frames(tmp_path / "learning.gif")
    assert len(pictures) == told["frames"] == len(told["steps"]) >= 4
    assert durations == [200] * (len(pictures) - 1) + [2000]
    # Two titled rows of five, and a caption.
    assert pictures[0].shape == (6 + 2 * (14 + 32 + 6) + 14 + 6, 6 + 5 * 38, 3)
    # The noise is brighter on the whole than strokes on black.
    assert pictures[0].mean() > pictures[-1].mean() + 10


def test_fewer_frames_keep_the_first_and_the_last(learning: Cli, tmp_path: Path) -> None:
    every = reported(learning("animate", "--training", "a", "-o", "all.gif", "--json"), "animate")["steps"]
    two = reported(learning("animate", "--training", "a", "--frames", 2, "-o", "two.gif", "--json"), "animate")["steps"]
    assert two == [every[0], every[-1]]


def test_it_tells_how_it_was_made(learning: Cli, tmp_path: Path) -> None:
    assert learning("animate", "--training", "a").stdout == "a-training.gif\n"
    made = reported(learning("inspect", "a-training.gif", "--json"), "inspect")
    assert (made["kind"], made["model"], made["model_now"]) == ("animation", "a", "a")
    assert made["command"] == "ddpmctl animate --training a --frames 60 --fps 5 --hold 2 --upscale 4"
    before = (tmp_path / "a-training.gif").read_bytes()
    assert learning(*made["command"].split()[1:], "-o", "again.gif").returncode == 0
    assert (tmp_path / "again.gif").read_bytes() == before


def test_the_size_of_what_is_kept_beside_the_weights_is_small(trained: Path) -> None:
    from ddpmctl.registry import Registry, last_of

    images, steps = last_of(Registry(trained).open("a")).previews()
    assert images.shape == (len(steps), 10, 32, 32)
    assert images.dtype == np.uint8


def test_what_was_imported_or_was_too_short_cannot_be_shown_learning(
    trained: Path, here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "home"))
    shutil.copytree(trained / "models", tmp_path / "home/models")
    assert here("export", "a", "a.zip").returncode == 0
    assert here("models", "import", "a.zip", "--name", "b").returncode == 0
    assert complaint(here("animate", "--training", "b"), 1) == (
        "'b' has no training state",
        "use a model that was trained here, not imported: ddpmctl models",
    )
    short = ("train", "--preset", "quick", "--dataset", "strokes:60", "--max-steps", 1, "--name", "c")
    assert here(*short).returncode == 0
    error, hint = complaint(here("animate", "--training", "c"), 1)
    assert error.startswith("'c' has no previews: the run was too short")
    assert hint == "train for a minute: ddpmctl train --preset quick --max-time 60s"
    assert complaint(here("animate", "--training", "d"), 1)[0] == "unknown model 'd'"
    assert not list(tmp_path.glob("*.gif"))
