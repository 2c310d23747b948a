"""`ddpmctl.train` and `ddpmctl.resume` as a notebook calls them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpmctl
from ddpmctl.training.callbacks import Callback
from ddpmctl.training.history import EpochRow
from ddpmctl.training.run_spec import RunSpec, resume_command
from tests.builders import tiny_config

SMALL: dict[str, Any] = {"dataset": "strokes:60", "device": "cpu", "precision": "fp32", "batch_size": 18}
"""Three steps an epoch."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path))
    return tmp_path


class Epochs(Callback):
    """Overrides one method, as users do."""

    def __init__(self) -> None:
        self.rows: list[EpochRow] = []

    def on_epoch_end(self, row: EpochRow, patience_left: int, step_metrics: np.ndarray) -> None:
        self.rows.append(row)


def weights(run: ddpmctl.TrainedModel) -> dict[str, np.ndarray]:
    from ddpmctl.registry import last_of

    return last_of(run.checkpoint).weights()


def test_a_model_is_trained_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    epochs = Epochs()
    run = ddpmctl.train(config=tiny_config(), epochs=2, name="tiny", callbacks=[epochs], **SMALL)
    assert (run.name, run.stopped, run.steps, run.planned_steps) == ("tiny", "done", 6, 6)
    assert [row.epoch for row in epochs.rows] == [1, 2]
    assert run.best is not None
    assert run.best.value == min(row.validation_mse or 1 for row in epochs.rows)
    assert run.checkpoint.manifest.config.training.epochs == 2
    assert ddpmctl.Engine.load("tiny", "cpu").generate([3], seed=1, steps=2).shape == (1, 32, 32)
    assert capfd.readouterr() == ("", "")


def test_a_preset_is_taken_by_name_and_the_model_gets_one() -> None:
    run = ddpmctl.train(preset="quick", max_steps=2, **SMALL)
    manifest = run.checkpoint.manifest
    assert (run.name, run.steps, manifest.preset, manifest.config.training.batch_size) == (
        "strokes-quick-1", 2, "quick", 18,
    )  # fmt: skip


def test_an_interrupted_run_is_resumed_bit_for_bit_and_given_more_epochs() -> None:
    settings: dict[str, Any] = {"config": tiny_config(), "epochs": 2, **SMALL}
    uncut = ddpmctl.train(name="uncut", **settings)
    asked = iter([False] * 4 + [True] * 9)
    cut = ddpmctl.train(name="cut", should_stop=lambda: next(asked), **settings)
    assert (cut.stopped, cut.steps) == ("interrupted", 4)
    resumed = ddpmctl.resume("cut")
    assert (resumed.stopped, resumed.steps) == ("done", 6)
    assert all(np.array_equal(array, weights(uncut)[name]) for name, array in weights(resumed).items())
    assert ddpmctl.resume("cut").steps == 6
    epochs = Epochs()
    assert ddpmctl.resume("cut", epochs=1, callbacks=[epochs]).steps == 9
    assert [row.epoch for row in epochs.rows] == [3]


def test_errors_have_a_type_and_name_settings_as_python_spells_them() -> None:
    ddpmctl.train(config=tiny_config(), max_steps=1, name="taken", **SMALL)
    with pytest.raises(ddpmctl.DdpmctlError, match="a model named 'taken' already exists"):
        ddpmctl.train(config=tiny_config(), max_steps=1, name="taken", **SMALL)
    with pytest.raises(ddpmctl.DdpmctlError) as caught:
        ddpmctl.train(accumulate=0)
    assert caught.value.hint == "accumulate=1 or more"
    with pytest.raises(ddpmctl.DdpmctlError) as caught:
        ddpmctl.resume("taken", lr=0.5, epochs=1)
    assert caught.value.message.startswith("cannot change lr of 'taken' from ")
    assert caught.value.hint == "omit lr, or train a new model"
    with pytest.raises(ddpmctl.DdpmctlError, match="unknown setting 'batchsize'"):
        ddpmctl.train(batchsize=4)


def test_a_failing_callback_ends_the_run_which_stays_resumable() -> None:
    class Fails(Callback):
        def on_step(self, step: int, images_per_second: float) -> None:
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        ddpmctl.train(config=tiny_config(), epochs=1, name="a", callbacks=[Fails()], **SMALL)
    assert ddpmctl.resume("a").steps == 3


def test_a_spec_is_written_as_the_command_that_trains_it() -> None:
    spec = RunSpec(preset="quick", dataset="strokes:60", max_time=90.0, lr=1e-3, flip=True, pixel_range="0..1")
    assert spec.to_argv() == [
        "ddpmctl", "train", "--preset", "quick", "--dataset", "strokes:60", "--flip", "--max-time", "90s",
        "--lr", "0.001", "--pixel-range", "0..1",
    ]  # fmt: skip
    command = resume_command("a", epochs=3)
    assert (command.command_line, str(command)) == (
        "ddpmctl train --resume a --epochs 3", "ddpmctl.resume('a', epochs=3)",
    )  # fmt: skip


def test_a_stored_run_has_the_spec_that_it_was_planned_with() -> None:
    run = ddpmctl.train(config=tiny_config(), max_steps=2, name="a", seed=5, **SMALL)
    spec = RunSpec.of(run.checkpoint)
    assert (spec.name, spec.seed, spec.batch_size, spec.max_steps, spec.device) == ("a", 5, 18, 2, "cpu")
    assert spec.resolve_config() == run.checkpoint.manifest.config


def test_importing_the_api_imports_no_torch() -> None:
    names = "ddpmctl.train, ddpmctl.resume, ddpmctl.RunSpec, ddpmctl.Callback"
    code = f"import sys, ddpmctl; {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
