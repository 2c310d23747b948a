"""Settings that a preset has for a kind of device, at the command line."""

from pathlib import Path
from typing import Any

import pytest

from ddpmctl import config
from ddpmctl.config import load_preset
from ddpmctl.registry import Registry
from tests.conftest import Cli

SMALL = ("--preset", "standard", "--dataset", "strokes:300", "--device", "cpu", "--max-steps", 1)


@pytest.fixture(autouse=True)
def a_cpu_with_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset says of a CPU what it says of a GPU, and a small set is large enough."""

    def patched(name: str) -> Any:
        preset = load_preset(name)
        return type(preset)(preset.name, preset.summary, preset.config, {"cpu": {"batch_size": 10, "lr": 1e-3}})

    monkeypatch.setattr("ddpmctl.training.run_spec.load_preset", patched)
    monkeypatch.setattr(config, "MIN_BATCHES", 2)


def training_of(home: Path, name: str) -> Any:
    return Registry(home).open(name).manifest.config.training


def test_they_are_taken_recorded_and_said(here: Cli, tmp_path: Path) -> None:
    done = here("train", *SMALL, "--name", "a")
    assert done.returncode == 0, done.stderr
    assert "batch size 10 (preset 'standard' on cpu)\n" in done.stderr
    assert (training_of(tmp_path, "a").batch_size, training_of(tmp_path, "a").lr) == (10, 1e-3)


@pytest.mark.parametrize(("given", "expected"), [(("--batch-size", 20), (20, 2e-3)), (("--lr", 3e-3), (128, 3e-3))])
def test_who_gives_one_of_them_gets_the_usual_other(
    here: Cli, tmp_path: Path, given: tuple[object, ...], expected: tuple[int, float]
) -> None:
    done = here("train", *SMALL, *given, "--name", "a")
    assert done.returncode == 0, done.stderr
    assert "(preset 'standard' on cpu)" not in done.stderr
    assert (training_of(tmp_path, "a").batch_size, training_of(tmp_path, "a").lr) == expected
