"""``train --log tensorboard``: the events as TensorBoard reads them."""

from pathlib import Path
from typing import Any

import pytest

from ddpmctl.cli.commands import train
from ddpmctl.registry import Registry, last_of
from ddpmctl.training import pacing, previews
from tests.conftest import Cli

from .support import complaint

TRAIN = ("train", "--preset", "quick", "--dataset", "strokes:300", "--batch-size", 90, "--device", "cpu")


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_losses_rates_and_previews_are_there(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "SHARE", 1e9)
    done = here(*TRAIN, "--epochs", 2, "--name", "a", "--log", "tensorboard")
    assert done.returncode == 0, done.stderr
    assert f"to monitor: tensorboard --logdir '{tmp_path / 'tensorboard'}'" in done.stderr
    read = events(tmp_path / "tensorboard/a")
    history = last_of(Registry(tmp_path).open("a")).history
    for tag, column in (("mse/train", "train_mse"), ("mse/validation", "validation_mse")):
        assert [event.step for event in read.Scalars(tag)] == [3, 6]
        told = [event.value for event in read.Scalars(tag)]
        assert told == pytest.approx([float(row[column]) for row in history], rel=1e-4)
    assert [event.step for event in read.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    means = [event.value for event in read.Scalars("step/loss")]
    assert sum(means[:3]) / 3 == pytest.approx(float(history[0]["train_mse"]), rel=1e-4)
    assert {"step/gradient_norm", "step/learning_rate", "speed/images_per_second"} <= set(read.Tags()["scalars"])
    images = read.Images("samples")
    assert [image.step for image in images] == [0, 1, 2, 3, 4, 5, 6]
    assert (images[-1].width, images[-1].height) == (320, 32)


def test_a_run_that_goes_on_is_written_on(here: Cli, tmp_path: Path) -> None:
    assert here(*TRAIN, "--epochs", 1, "--name", "a", "--log", "tensorboard").returncode == 0
    assert here("train", "--resume", "a", "--epochs", 1, "--log", "tensorboard").returncode == 0
    assert [event.step for event in events(tmp_path / "tensorboard/a").Scalars("mse/train")] == [3, 6]


def test_the_learning_rates_follow_a_plan_that_changed(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "GUESS", 1e-5)  # no machine is as fast as the first plan takes it to be
    options = ("--max-time", "3s", "--patience", 10_000, "--name", "a", "--log", "tensorboard")
    assert here(*TRAIN, *options).returncode == 0
    resume = last_of(Registry(tmp_path).open("a")).manifest.resume
    assert resume is not None
    assert len(resume.plan.segments) > 1
    told = events(tmp_path / "tensorboard/a").Scalars("step/learning_rate")
    assert [event.step for event in told] == list(range(1, resume.plan.steps + 1))
    assert [event.value for event in told] == pytest.approx([resume.plan.lr(event.step - 1) for event in told])


def test_without_being_asked_nothing_is_written(here: Cli, tmp_path: Path) -> None:
    assert here(*TRAIN, "--max-steps", 1).returncode == 0
    assert not (tmp_path / "tensorboard").exists()


def test_where_it_is_not_installed_or_mistyped_nothing_begins(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complaint(here(*TRAIN, "--log", "tensorbord"), 2)[1] == "did you mean tensorboard?"
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    assert complaint(here(*TRAIN, "--log", "tensorboard"), 1) == (
        "tensorboard is not installed",
        "in the project's folder: pip install '.[tensorboard]'",
    )  # fmt: skip
    assert not (tmp_path / "models").exists()
