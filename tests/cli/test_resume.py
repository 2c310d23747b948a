"""Training runs that are interrupted by any signal at any point, and resumed."""

import os
import re
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ddpmctl.cli.training_display import Display
from ddpmctl.data.dataset import Dataset
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.registry.pointers import open_pointer
from ddpmctl.training.train_step import TrainStep
from ddpmctl.training.trainer import Trainer
from ddpmctl.training.validation import Validator
from tests.conftest import Cli

from .support import Running, alter_manifest, complaint, copy_model, reported, tell_of_another_run

SMALL = ("--preset", "quick", "--device", "cpu", "--dataset", "strokes:60", "--batch-size", 18)
A_RUN = (*SMALL, "--epochs", 3)
"""Nine steps of 18 images, three an epoch."""


def last(home: Path, name: str = "a") -> Checkpoint:
    return open_pointer(name, home / "models" / name, "last")


def weights(home: Path, name: str) -> dict[str, bytes]:
    commit = last(home, name)
    learnt = {name: array for name, array in commit.state().items() if not name.startswith("previews.")}
    return {name: array.tobytes() for name, array in {**commit.weights(), **learnt}.items()}


def signal_at(monkeypatch: pytest.MonkeyPatch, step: int, *signals: int) -> None:
    """Send real signals to this process after a step."""
    inner, left = Display.on_step, list(signals)

    def stepped(self: Display, number: int, rate: float) -> None:
        inner(self, number, rate)
        while number == step and left:
            os.kill(os.getpid(), left.pop(0))

    monkeypatch.setattr(Display, "on_step", stepped)


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "terminal closed"),
    ],
)
def test_a_cut_training_goes_on_as_if_nothing_had_been(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int, code: int, word: str
) -> None:
    assert here("train", *A_RUN, "--name", "uncut").returncode == 0
    signal_at(monkeypatch, 5, sent)
    error, hint = complaint(here("train", *A_RUN, "--name", "a"), code)
    assert re.fullmatch(rf"{word} after 5 of 9 steps; checkpoint saved as 'a' \(validation MSE \S+ at epoch 1\)", error)
    assert hint == "ddpmctl train --resume a"
    listed = here("models")
    assert "'a' is unfinished (step 5 of 9): ddpmctl train --resume a" in listed.stderr
    assert reported(here("models", "--json"), "models")["unfinished"] == [
        {"name": "a", "steps": 5, "planned_steps": 9, "stopped": "interrupted"}
    ]

    done = here(*hint.split()[1:])
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert re.match(r"resuming 'a' on cpu in \S+\nstep 5 of 9, batch size 18, 3 epochs\n", done.stderr)
    assert "not bit for bit" not in done.stderr
    assert weights(tmp_path, "a") == weights(tmp_path, "uncut")
    parts = reported(here("inspect", "a", "--json"), "inspect")["run"]["segments"]
    assert [(part["why"], part["step"], part["exact"]) for part in parts] == [("begun", 0, True), ("resumed", 5, True)]
    told = here("inspect", "a").stdout
    assert re.search(r"segments +begun at step 0 of 9, .*\n +resumed at step 5 of 9, ", told)


def test_latest_is_the_run_that_was_last_worked_on(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint(here("train", "--resume", "latest"), 1) == (
        "there is no run to resume",
        "start one: ddpmctl train",
    )
    signal_at(monkeypatch, 2, signal.SIGINT)
    assert here("train", *A_RUN, "--name", "b").returncode == 130
    assert here("train", "--resume", "latest").stdout == "b\n"


def test_a_finished_training_says_so(here: Cli, tmp_path: Path) -> None:
    assert here("train", *A_RUN, "--name", "a").returncode == 0
    before = last(tmp_path)
    done = here("train", "--resume", "a")
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert done.stderr.startswith("'a' has finished training (9 steps); more epochs can be added\n")
    assert last(tmp_path) == before


def test_a_finished_training_is_given_more_epochs(here: Cli, tmp_path: Path) -> None:
    assert here("train", *A_RUN, "--name", "a").returncode == 0
    done = here("train", "--resume", "a", "--epochs", 2)
    assert done.returncode == 0
    assert "step 9 of 15, batch size 18, 5 epochs\n" in done.stderr
    run = last(tmp_path).manifest.run
    assert (run.step, run.planned_steps, run.stopped) == (15, 15, "done")
    assert [part.why for part in run.segments] == ["begun", "extended"]
    assert (
        complaint(here("train", "--resume", "a", "--epochs", 0), 2)[0]
        == "--epochs should be greater than or equal to 1, not '0'"
    )


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("batch-size", 32, "cannot change batch size of 'a' from 18 to 32 on resume"),
        ("preset", "classic", "cannot change preset of 'a' from quick to classic on resume"),
        ("dataset", "mnist", "cannot change dataset of 'a' from strokes:60 to mnist on resume"),
        ("lr", 0.5, "cannot change lr of 'a' from 0.0045 to 0.5 on resume"),
        ("seed", 3, "cannot change seed of 'a' from 0 to 3 on resume"),
        ("max-time", "10s", "cannot change max time of 'a' from none to 10 on resume"),
        ("name", "b", "cannot change name of 'a' from a to b on resume"),
        ("target", "epsilon", "cannot change target of 'a' from v to epsilon on resume"),
    ],
)
def test_what_was_planned_cannot_be_changed(
    tiny_home: Path, here: Cli, tmp_path: Path, option: str, value: object, said: str
) -> None:
    commit = copy_model(tiny_home, tmp_path, "a")
    run = last(tmp_path).manifest.run
    data = {"name": "strokes:60", "digest": "0" * 64, "count": 60, "fit": ""}
    config = last(tmp_path).manifest.config.to_dict()
    config["training"]["batch_size"] = 18
    alter_manifest(commit, dataset=data, config=config, run={**asdict(run), "stopped": "interrupted"})
    error, hint = complaint(here("train", "--resume", "a", f"--{option}", value), 2)
    assert error == said
    assert hint == f"omit --{option}, or train a new model"


def test_what_was_planned_may_be_said_again(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_at(monkeypatch, 2, signal.SIGINT)
    assert here("train", *A_RUN, "--name", "a").returncode == 130
    assert here("train", "--resume", "a", *SMALL, "--name", "a", "--seed", 0).returncode == 0


def test_other_images_under_the_same_name_are_refused(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_at(monkeypatch, 2, signal.SIGINT)
    assert here("train", *A_RUN, "--name", "a").returncode == 130
    monkeypatch.setattr(Dataset, "digest", lambda self: "1" * 64)
    error, hint = complaint(here("train", "--resume", "a"), 1)
    assert error == "the images of strokes:60 have changed since 'a' was trained"
    assert hint.startswith("pass the original --data-dir")


def test_what_cannot_be_resumed_is_said(here: Cli, tmp_path: Path, tiny_home: Path) -> None:
    copy_model(tiny_home, tmp_path, "tiny")
    assert complaint(here("train", "--resume", "tinny"), 1) == ("unknown model 'tinny'", "did you mean tiny?")
    tell_of_another_run(last(tmp_path, "tiny").path)
    error, hint = complaint(here("train", "--resume", "tiny", "--epochs", 1), 1)
    assert (error, hint) == ("'tiny' cannot be resumed: its training state was not saved", "ddpmctl train")


def test_on_other_threads_it_goes_on_and_says_that_it_is_not_exact(cli: Cli, tmp_path: Path) -> None:
    with Running(
        tmp_path, "train", *SMALL, "--epochs", 2000, "--patience", 2000, "--name", "a", OMP_NUM_THREADS="2"
    ) as running:
        running.wait_for("epoch 1/")
        running.send(signal.SIGINT)
        assert running.finish().returncode == 130
    left = last(tmp_path).manifest.run.step
    # One more epoch instead of all of the plan.
    done = cli("train", "--resume", "a", "--epochs", 1, OMP_NUM_THREADS="1")
    assert done.returncode == 0
    assert re.search(
        r"^warning: results will not be bit-exact from here on: "
        r"device was cpu \(.*, 2 threads\), now cpu \(.*, 1 threads\)$",
        done.stderr,
        re.MULTILINE,
    )
    parts = last(tmp_path).manifest.run.segments
    assert [(part.why, part.exact) for part in parts] == [("begun", True), ("extended", False)]
    assert parts[1].step == left


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_commit(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at(monkeypatch, 5, signal.SIGINT, signal.SIGINT)
    error, hint = complaint(here("train", *A_RUN, "--name", "a", "--checkpoint-every", "2steps"), 130)
    assert (error, hint) == ("stopped immediately; the last checkpoint was saved earlier", "ddpmctl train --resume a")
    # Two steps, and then the end of the first epoch: the next would have come after the fifth.
    assert last(tmp_path).manifest.run.step == 3
    assert here("train", "--resume", "a").returncode == 0
    assert here("train", *A_RUN, "--name", "uncut").returncode == 0
    assert weights(tmp_path, "a") == weights(tmp_path, "uncut")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_are_heard_while_an_epoch_is_judged_and_while_it_is_saved(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int, code: int
) -> None:
    assert here("train", *A_RUN, "--name", "uncut").returncode == 0
    for kind, method in (
        (Validator, "mse"),
        (TrainStep, "weights"),
    ):  # the latter is called by a commit, for the first time before the first step
        inner, calls = getattr(kind, method), iter(range(99))
        wanted = 1 if method == "weights" else 0

        def signalled(self: Any, *arguments: Any, inner: Any = inner, calls: Any = calls, wanted: int = wanted) -> Any:
            if next(calls) == wanted:
                os.kill(os.getpid(), sent)
            return inner(self, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(kind, method, signalled)
            assert here("train", *A_RUN, "--name", method, "--checkpoint-every", "1step").returncode == code
        assert here("train", "--resume", method).returncode == 0
        assert weights(tmp_path, method) == weights(tmp_path, "uncut")


def test_ctrl_c_before_anything_is_saved_leaves_nothing(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_plan", lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert here("train", *SMALL, "--max-time", "5s", "--name", "a").returncode == 130
    assert Registry(tmp_path).names("last") == []
    assert not (tmp_path / "models" / "a").exists()


def test_a_run_of_which_no_epoch_is_finished_is_named_by_those_who_look_for_a_model(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Display, step: int, rate: float) -> None:
        raise MemoryError

    monkeypatch.setattr(Display, "on_step", die)
    assert here("train", *A_RUN, "--name", "a").returncode == 1
    for command in (("generate", 3), ("inspect",), ("generate", 3, "-m", "a")):
        assert complaint(here(*command), 1) == ("'a' has not finished an epoch yet", "ddpmctl train --resume a")
    assert last(tmp_path).manifest.run.step == 0


@pytest.mark.parametrize("text", ["often", "0s", "3 weeks"])
def test_an_interval_that_is_none_is_refused(here: Cli, text: str) -> None:
    assert complaint(here("train", *A_RUN, "--checkpoint-every", text), 2) == (
        f"'{text}' is not an interval",
        "--checkpoint-every 30s, 200steps or 1epoch",
    )


def test_a_replacement_that_is_cut_before_its_first_epoch_leaves_the_old_model(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here("train", *A_RUN, "--name", "a").returncode == 0
    before = Registry(tmp_path).open("a")
    signal_at(monkeypatch, 2, signal.SIGINT)
    assert here("train", *A_RUN, "--name", "a", "--force", "--seed", 5).returncode == 130
    assert Registry(tmp_path).open("a") == before
    # What is told of the old model is the old model's, and the new run goes on.
    assert reported(here("inspect", "a", "--json"), "inspect")["run"]["seed"] == 0
    assert here("train", "--resume", "a").returncode == 0
    assert Registry(tmp_path).open("a").manifest.run.seed == 5
