"""``ddpmctl models use`` and ``mv``, and the completion of names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpmctl.errors import CheckpointError
from ddpmctl.registry import Registry
from tests.builders import register_random, tiny_config
from tests.conftest import Cli, clean_environment

from .support import complaint, reported, tree


@pytest.fixture
def two(tmp_path: Path) -> Registry:
    """A registry with two models, ``young`` the newer one."""
    registry = Registry(tmp_path)
    for step, name in ((10, "old"), (20, "young")):
        register_random(registry, name, tiny_config(), step=step)
    return registry


def test_the_model_in_use_is_taken_where_none_is_named(two: Registry, here: Cli) -> None:
    assert "model young (the newest)" in here("inspect").stderr
    done = here("models", "use", "old")
    assert (done.returncode, done.stdout) == (0, "old\n")
    assert "model old (default)" in here("inspect").stderr
    assert "model young (the newest)" in here("inspect", "latest").stderr
    assert here("inspect", "young").stderr == ""
    listed = {model["name"]: model["in_use"] for model in reported(here("models", "--json"), "models")["models"]}
    assert listed == {"old": True, "young": False}
    assert "default" in here("models").stdout


def test_a_model_that_is_not_there_cannot_be_used(two: Registry, here: Cli) -> None:
    assert complaint(here("models", "use", "yuong"), 1) == ("unknown model 'yuong'", "did you mean young?")
    assert two.default() is None


def test_a_model_in_use_that_was_removed_is_used_no_more(two: Registry, here: Cli) -> None:
    two.use("old")
    assert here("models", "rm", "old", "--yes").returncode == 0
    assert "model young (the newest)" in here("inspect").stderr


def test_a_renamed_model_is_the_same_and_stays_in_use(two: Registry, here: Cli, tmp_path: Path) -> None:
    two.use("old")
    before = tree(tmp_path / "models" / "old")
    assert here("models", "mv", "old", "ancient").stdout == "ancient\n"
    assert two.names() == ["ancient", "young"]
    assert tree(tmp_path / "models" / "ancient") == before
    assert two.default() == "ancient"


@pytest.mark.parametrize(
    ("typed", "code", "error", "hint"),
    [
        (("odl", "x"), 1, "unknown model 'odl'", "did you mean old?"),
        (("old", "young"), 2, "a model named 'young' already exists", "choose a different name"),
        (("old", "old"), 2, "a model named 'old' already exists", "choose a different name"),
        (("old", "latest"), 2, "'latest' is not a valid model name", None),
        (("old", "../x"), 2, "'../x' is not a valid model name", None),
    ],
)
def test_a_name_that_cannot_be_given_is_refused(
    two: Registry, here: Cli, tmp_path: Path, typed: tuple[str, str], code: int, error: str, hint: str | None
) -> None:
    before = tree(tmp_path)
    said = complaint(here("models", "mv", *typed), code)
    assert said[0] == error
    assert hint is None or said[1] == hint
    assert tree(tmp_path) == before


def test_a_model_in_training_keeps_its_name(two: Registry) -> None:
    with two.writer("young", "", replace=True), pytest.raises(CheckpointError, match="another process is training"):
        two.rename("young", "x")
    with two.writer("next", ""), pytest.raises(CheckpointError, match="another process is training 'next'"):
        two.rename("young", "next")
    two.rename("young", "next")
    assert two.names() == ["next", "old"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ddpmctl inspect ", ["old", "young"]),
        ("ddpmctl generate 8 --model yo", ["young"]),
        ("ddpmctl models mv o", ["old"]),
        ("ddpmctl train --resume y", ["young"]),
    ],
)
def test_names_of_models_are_completed(two: Registry, tmp_path: Path, typed: str, offered: list[str]) -> None:
    words = typed.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "ddpmctl"],
        env={
            **clean_environment(tmp_path),
            "_DDPMCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=os.fspath(tmp_path),
    )
    assert done.stdout.split() == offered, done.stderr
