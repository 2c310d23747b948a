"""File contents and names cannot send control characters to the terminal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpmctl.registry import Registry
from tests.builders import DIGITS, register, rewrite_manifest
from tests.conftest import Cli

from .support import complaint, copy_model

BAD = ["\x1b[31mred", "line\nbreak", "\u202egnp.exe", "bell\a", "\u2028"]
"""A colour, a line break, a text that runs backwards, a bell, a separator of lines."""


def is_clean(text: str) -> bool:
    return not any(char in text for char in "\x1b\u202e\a\u2028")


def classes(values: dict[str, Any], bad: str) -> None:
    values["classes"] = [*DIGITS[:9], bad]


def preset(values: dict[str, Any], bad: str) -> None:
    values["preset"] = bad


def version(values: dict[str, Any], bad: str) -> None:
    values["versions"][bad] = "1"


def device(values: dict[str, Any], bad: str) -> None:
    values["run"]["segments"][0]["device"] = bad


def setting(values: dict[str, Any], bad: str) -> None:
    values["config"]["model"][bad] = 1


@pytest.mark.parametrize("bad", BAD, ids=ascii)
@pytest.mark.parametrize("place", [classes, preset, version, device, setting], ids=lambda place: place.__name__)
def test_a_manifest_with_control_characters_is_damaged(
    here: Cli, tiny_home: Path, tmp_path: Path, place: Any, bad: str
) -> None:
    commit = copy_model(tiny_home, tmp_path, "hurt")
    values = json.loads((commit / "manifest.json").read_text())
    place(values, bad)
    rewrite_manifest(commit, values)
    for typed in ("inspect hurt", "generate 8 -m hurt"):
        error, _ = complaint(here(*typed.split()), 1)
        assert error.startswith("damaged checkpoint: ")
        assert is_clean(error)
    for typed in ("models", "models verify"):
        done = here(*typed.split())
        assert is_clean(done.stdout + done.stderr)


@pytest.mark.parametrize("bad", ["\x1b[2J", "\u202e"], ids=ascii)
@pytest.mark.parametrize("row", ["{},1,0.5", "1,1,{}", '"{}",,'])
def test_a_history_with_control_characters_is_damaged(here: Cli, tmp_path: Path, row: str, bad: str) -> None:
    history = f"epoch,step,train_mse\n1,1,0.5\n{row.format(bad)}\n"
    register(Registry(tmp_path), "hurt", history=history)
    for typed in ("inspect hurt --history", "models verify hurt"):
        done = here(*typed.split())
        assert done.returncode == 1
        assert "history.csv: " in done.stdout + done.stderr
        assert is_clean(done.stdout + done.stderr)


@pytest.mark.parametrize("row", ["1,1", "1,1,0.5,7", "1,1,many", "1,1,nan", "1,1,-1"])
def test_a_history_that_is_no_table_of_numbers_is_damaged(here: Cli, tmp_path: Path, row: str) -> None:
    register(Registry(tmp_path), "hurt", history=f"epoch,step,train_mse\n1,1,0.5\n{row}\n")
    error, _ = complaint(here("inspect", "hurt", "--history"), 1)
    assert "history.csv: " in error


@pytest.mark.parametrize("bad", BAD, ids=ascii)
def test_tensors_with_control_characters_in_their_names_are_damaged(here: Cli, tmp_path: Path, bad: str) -> None:
    register(Registry(tmp_path), "hurt", weights={bad: np.zeros((2, 3), np.float32)})
    error, _ = complaint(here("inspect", "hurt", "--layers"), 1)
    assert error.endswith("weights.safetensors: it contains characters that cannot be displayed")
    assert here("models", "verify", "hurt").returncode == 1


@pytest.mark.parametrize(
    "typed",
    [("generate", "8", "-m"), ("inspect",), ("generate", "--like"), ("models", "import"), ("models", "rm", "-y"),
     ("grid", "-o"), ("train", "--dataset"), ("data", "verify", "--data-dir"), ("generate", "8", "--sampler")],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("bad", ["\x1b[31mred.png", "\u202egnp.png", "\udcff.png"], ids=ascii)
def test_what_was_typed_is_repeated_with_escapes(tiny_here: Cli, typed: tuple[str, ...], bad: str) -> None:
    done = tiny_here(*typed, bad) if typed[0] != "grid" else tiny_here(*typed, f"{bad}/no.png")
    assert done.returncode in (1, 2)
    assert is_clean(done.stderr)
    assert bad.encode("unicode_escape").decode() in done.stderr


def test_a_folder_with_control_characters_in_its_path_is_refused_before_training(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "\x1b[31m" / "a").mkdir(parents=True)
    error, hint = complaint(here("train", "--dataset", "folder:\x1b[31m"), 2)
    assert error.endswith("\\x1b[31m' contains characters that cannot be displayed")
    assert hint == "rename the folder"


def test_a_model_of_such_a_name_is_not_listed(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "good")
    copy_model(tiny_home, tmp_path, "other")
    (tmp_path / "models" / "other").rename(tmp_path / "models" / "x\x1b[31m")
    assert here("models", "-q").stdout == "good\n"
