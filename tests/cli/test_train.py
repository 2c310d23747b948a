"""``ddpmctl train``: from a command to a registered model, and every way in which a run can end."""

import json
import os
import re
import shlex
import signal
import sys
import time
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from ddpmctl.cli import training_display as display
from ddpmctl.cli.output import Output
from ddpmctl.cli.training import graceful_end
from ddpmctl.cli.training_display import Display
from ddpmctl.config import load_preset
from ddpmctl.core.diffusion import Diffusion
from ddpmctl.data import downloads
from ddpmctl.data.sources import SOURCES
from ddpmctl.plan import Plan, RateSegment
from ddpmctl.registry import Registry, last_of
from ddpmctl.registry.pointers import open_pointer
from ddpmctl.training.callbacks import RunInfo
from ddpmctl.training.execution import Execution
from ddpmctl.training.history import EpochRow
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.trainer import Trainer
from tests.builders import tiny_config
from tests.conftest import Cli

from .support import Running, Terminal, complaint, reported, tiny_checkpoint, tree

QUICK = ("--preset", "quick", "--device", "cpu")
SMALL = (*QUICK, "--dataset", "strokes:60")
ENDLESS = (*QUICK, "--dataset", "strokes:200", "--batch-size", 60, "--epochs", 5000, "--patience", 5000)

A_RUN = (
    *(*QUICK, "--dataset", "strokes:200", "--batch-size", 60, "--epochs", 3, "--lr", 0.001, "--patience", 2),
    *("--timesteps", 100, "--schedule", "linear", "--target", "epsilon", "--precision", "fp32", "--seed", 7),
)


def test_a_run_is_told_line_by_line_and_registered_as_it_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    done = cli("train", *A_RUN, "--name", "mine")
    assert (done.returncode, done.stdout) == (0, "mine\n")
    mse = r"\d\.\d{4}"
    mark = r"( \(best\)|, patience [01])"
    expected = [
        r"training 'mine' on cpu in fp32 \(as requested\)",
        r"9 steps, batch size 60, 3 epochs",
        *(
            rf"epoch {k}/3: train MSE {mse}, validation MSE {mse}{mark}, lr [\d.e-]+, \d+ images/s, \d+ s"
            for k in (1, 2, 3)
        ),
        rf"finished after \d+ s of training; best validation MSE {mse} at epoch [123]",
        r"generate samples: ddpmctl grid --model mine",
    ]
    # A slow machine also hears how long it will take.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("about ")]
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line)

    manifest = tiny_checkpoint(tmp_path, "mine").manifest
    quick = load_preset("quick").config
    assert manifest.preset == "quick"
    assert manifest.config == replace(
        quick,
        model=replace(quick.model, sample_size=28),  # in float32
        diffusion=replace(quick.diffusion, timesteps=100, schedule="linear", parameterization="epsilon"),
        training=replace(quick.training, batch_size=60, epochs=3, lr=0.001, patience=2),
    )
    assert manifest.classes == ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert (manifest.dataset.name, manifest.dataset.count) == ("strokes:200", 200)
    assert (manifest.best.name, manifest.best.parameterization) == ("validation_mse", "epsilon")
    last = last_of(tiny_checkpoint(tmp_path, "mine"))
    run = last.manifest.run
    assert (run.step, run.planned_steps, run.epochs, run.images, run.stopped) == (9, 9, 3, 540, "done")
    assert (run.seed, run.precision, run.max_time) == (7, "fp32", 0.0)
    assert [row["epoch"] for row in last.history] == ["1", "2", "3"]


def test_the_result_is_json_alone_on_stdout(here: Cli, tmp_path: Path) -> None:
    result = reported(here("train", *SMALL, "--epochs", 1, "--name", "new", "--json"), "train")
    checkpoint = tiny_checkpoint(tmp_path, "new")
    best = checkpoint.manifest.best
    assert result == {
        "name": "new",
        "path": str(tmp_path / "models" / "new" / "00000001"),
        "steps": 1,
        "seconds": checkpoint.manifest.run.seconds,
        "best": {"name": "validation_mse", "parameterization": best.parameterization, "value": best.value, "epoch": 1},
    }


def test_quiet_says_the_name_and_nothing_else(here: Cli) -> None:
    done = here("train", *SMALL, "--epochs", 1, "-q")
    assert (done.returncode, done.stdout) == (0, "strokes-quick-1\n")
    # One step may well have learned nothing, which is a warning.
    assert [line for line in done.stderr.splitlines() if "did not learn" not in line] == []


def test_names_are_generated_readable_and_counted(here: Cli, tmp_path: Path) -> None:
    assert [here("train", *SMALL, "--epochs", 1).stdout for _ in range(2)] == ["strokes-quick-1\n", "strokes-quick-2\n"]
    # The default preset, and the count goes on from what is there.
    assert here("train", "--dataset", "strokes:60", "--device", "cpu", "--epochs", 1).stdout == "strokes-standard-1\n"
    assert tiny_checkpoint(tmp_path, "strokes-standard-1").manifest.preset == "standard"
    assert Registry(tmp_path).names() == ["strokes-quick-1", "strokes-quick-2", "strokes-standard-1"]


def test_a_taken_name_is_refused_and_force_replaces_it(here: Cli, tmp_path: Path) -> None:
    assert here("train", *SMALL, "--epochs", 1, "--name", "a").returncode == 0
    before = tree(tmp_path)
    assert complaint(here("train", *SMALL, "--epochs", 2, "--name", "a"), 2) == (
        "a model named 'a' already exists",
        "choose a different --name, or replace it with --force",
    )
    assert tree(tmp_path) == before
    assert here("train", *SMALL, "--epochs", 2, "--name", "a", "--force").returncode == 0
    assert last_of(tiny_checkpoint(tmp_path, "a")).manifest.run.epochs == 2


def test_a_run_that_fails_at_once_leaves_the_model_it_would_have_replaced(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here("train", *SMALL, "--epochs", 1, "--name", "a").returncode == 0
    before = tiny_checkpoint(tmp_path, "a")
    monkeypatch.setattr(Diffusion, "loss", lambda *_: torch.full((60,), torch.nan, requires_grad=True))
    assert here("train", *SMALL, "--name", "a", "--force").returncode == 1
    assert tiny_checkpoint(tmp_path, "a") == before
    assert tiny_checkpoint(tmp_path, "a").weights()


def test_the_same_seed_trains_the_same_model_and_another_seed_another(here: Cli, tmp_path: Path) -> None:
    digests = []
    for seed in (1, 1, 2):
        name = here("train", *SMALL, "--epochs", 1, "--seed", seed).stdout.strip()
        digests.append(tiny_checkpoint(tmp_path, name).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_time_limit_lays_the_run_out_and_is_recorded(here: Cli, tmp_path: Path) -> None:
    done = here("train", *SMALL, "--max-time", "2s", "--name", "a")
    assert done.returncode == 0
    run = last_of(tiny_checkpoint(tmp_path, "a")).manifest.run
    assert run.max_time == 2
    assert (run.stopped, run.step) in (("done", run.planned_steps), ("early", run.step))
    assert "\nas many steps of batch size 54 as fit in 2 s\n" in done.stderr


def test_with_epochs_a_time_limit_is_no_more_than_a_limit(here: Cli, tmp_path: Path) -> None:
    assert here("train", *SMALL, "--max-time", "1h", "--epochs", 1, "--name", "a").returncode == 0
    run = tiny_checkpoint(tmp_path, "a").manifest.run
    assert (run.planned_steps, run.epochs, run.max_time) == (1, 1, 3600)


def test_a_run_is_laid_out_in_as_many_steps_as_are_asked_for(here: Cli, tmp_path: Path) -> None:
    def planned(*limits: object) -> int:
        assert here("train", *SMALL, *limits, "--name", "a", "--force").returncode == 0
        run = last_of(tiny_checkpoint(tmp_path, "a")).manifest.run
        assert run.step == run.planned_steps
        return run.step

    # An epoch of these images is one step.
    assert planned("--max-steps", 3) == 3
    assert planned("--max-steps", 3, "--epochs", 2) == 2
    assert planned("--max-steps", 3, "--max-time", "1h") == 3


def test_a_run_of_no_steps_is_refused(here: Cli) -> None:
    said = complaint(here("train", *SMALL, "--max-steps", 0), 2)
    assert said == ("--max-steps should be greater than or equal to 1, not '0'", "--max-steps must be at least 1")


def test_a_run_that_learns_no_more_stops_early_and_says_so(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = chain([0.7, 0.5, 0.6], repeat(0.5))
    monkeypatch.setattr(Trainer, "_validation_mse", lambda _: next(losses))
    done = here("train", *SMALL, "--epochs", 50, "--patience", 3, "--name", "a")
    assert (done.returncode, done.stdout) == (0, "a\n")
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    marks = [re.findall(r"validation MSE (\S+?)(?: (\(best\))|, (patience \d+)),", line)[0] for line in lines]
    assert marks == [
        ("0.7000", "(best)", ""),
        ("0.5000", "(best)", ""),
        ("0.6000", "", "patience 2"),
        ("0.5000", "", "patience 1"),
        ("0.5000", "", "patience 0"),
    ]
    assert "\nearly stopping: no improvement for 3 epochs\n" in done.stderr
    assert re.search(r"\nfinished after \d+ s of training; best validation MSE 0\.5000 at epoch 2\n", done.stderr)
    best = tiny_checkpoint(tmp_path, "a")
    assert (best.manifest.metric.epoch, best.manifest.metric.value) == (2, 0.5)
    assert (last_of(best).manifest.run.epochs, last_of(best).manifest.run.stopped) == (5, "early")


def test_a_loss_that_is_not_finite_sends_the_run_back_and_says_so(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Diffusion.loss, iter(range(1000))

    def loss(self: Diffusion, *arguments: Any) -> torch.Tensor:
        # The fifth batch that is trained on: the second of the third epoch.
        broken = torch.is_grad_enabled() and next(calls) == 4
        return whole(self, *arguments) * (torch.nan if broken else 1)

    monkeypatch.setattr(Diffusion, "loss", loss)
    options = ("--batch-size", 27, "--lr", 0.004, "--epochs", 5, "--name", "a", "--checkpoint-every", "1epoch")
    done = here("train", *SMALL, *options)
    assert done.returncode == 0
    assert re.search(
        r"\nwarning: the loss is not finite at step 5, with a learning rate of \S+: "
        r"restored step 4 with half the learning rate \(0\.002\)\n",
        done.stderr,
    )
    told = reported(here("inspect", "a", "--json"), "inspect")["run"]["segments"]
    assert [(part["why"], part["step"], part["peak_lr"]) for part in told] == [
        ("begun", 0, 0.004), ("rolled back", 4, 0.002),
    ]  # fmt: skip
    assert "rolled back at step 4 of 10, learning rate 0.002" in here("inspect", "a").stdout


def test_a_run_that_is_never_finite_ends_with_the_rate_to_try(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Diffusion.loss, iter(range(1000))

    def loss(self: Diffusion, *arguments: Any) -> torch.Tensor:
        broken = torch.is_grad_enabled() and next(calls) >= 4
        return whole(self, *arguments) * (torch.nan if broken else 1)

    monkeypatch.setattr(Diffusion, "loss", loss)
    options = ("--batch-size", 27, "--lr", 0.004, "--epochs", 20, "--name", "a", "--checkpoint-every", "1epoch")
    done = here("train", *SMALL, *options)
    error, hint = complaint(done, 1)
    words = r"the loss is not finite at step 5, with a learning rate of (\S+); still not finite after \d roll-backs .*"
    match = re.fullmatch(words, error)
    assert match, error
    assert 0 < float(match[1]) <= 0.0005
    assert hint == "train again with a lower learning rate, such as --lr 0.0001"
    assert "\nthe best checkpoint so far is saved as 'a'\n" in done.stderr
    assert tiny_checkpoint(tmp_path, "a").manifest.run.epochs in (1, 2)


def test_a_held_out_loss_that_is_not_finite_is_no_best_one(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_validation_mse", lambda _: float("nan"))
    error, hint = complaint(here("train", *SMALL, "--epochs", 3, "--name", "a"), 1)
    assert error.startswith("the validation loss is not finite at step 1, with a learning rate of ")
    assert hint.startswith("train again with a lower learning rate, such as --lr ")
    assert Registry(tmp_path).names() == []


def test_ctrl_c_keeps_the_best_so_far_and_nobody_trains_under_its_name_meanwhile(cli: Cli, tmp_path: Path) -> None:
    with Running(tmp_path, "train", *ENDLESS, "--name", "a") as running:
        running.wait_for("epoch 2/")
        assert complaint(cli("train", *SMALL, "--name", "a", "--force"), 1) == (
            "another process is training 'a'",
            "choose a different --name",
        )
        # Readers see the best so far while it trains.
        assert cli("models", "-q").stdout == "a\n"
        running.send(signal.SIGINT)
        done = running.finish()
    assert "\nstopping after this step; Ctrl-C again stops immediately\n" in done.stderr
    error, hint = complaint(done, 130)
    match = re.fullmatch(
        r"interrupted after ([\d,]+) of 15,000 steps; checkpoint saved as 'a' \(validation MSE (\S+) at epoch (\d+)\)",
        error,
    )
    assert match, error
    best = tiny_checkpoint(tmp_path, "a").manifest.best
    assert best is not None
    assert (f"{best.value:.4f}", str(best.epoch)) == match.groups()[1:]
    run = last_of(tiny_checkpoint(tmp_path, "a")).manifest.run
    assert (run.stopped, f"{run.step:,}") == ("interrupted", match[1])
    assert hint == "ddpmctl train --resume a"
    assert cli("grid", "--model", "a").returncode == 0
    assert (tmp_path / "test_results.png").is_file()


def test_ctrl_c_before_the_first_epoch_is_over_keeps_a_model_too(cli: Cli, tmp_path: Path) -> None:
    # One batch an epoch, and a batch that takes a while.
    big = (*QUICK, "--dataset", "strokes:1500", "--batch-size", 400, "--epochs", 100, "--name", "a")
    with Running(tmp_path, "train", *big) as running:
        running.wait_for("batch size 400")
        running.send(signal.SIGINT)
        done = running.finish()
    error, hint = complaint(done, 130)
    assert re.match(r"interrupted after [1-3] of 300 steps; checkpoint saved as 'a'", error)
    assert hint == "ddpmctl train --resume a"
    assert cli("inspect", "a").returncode == 0


def test_termination_leaves_whole_commits_only(cli: Cli, tmp_path: Path) -> None:
    with Running(tmp_path, "train", *ENDLESS, "--name", "a") as running:
        running.wait_for("epoch 1/")
        running.send(signal.SIGTERM)
        done = running.finish()
    error, hint = complaint(done, 143)
    assert re.match(r"terminated after [\d,]+ of 15,000 steps; checkpoint saved as 'a'", error)
    assert hint == "ddpmctl train --resume a"
    assert cli("models", "-q").stdout == "a\n"
    assert tiny_checkpoint(tmp_path, "a").weights()
    assert [name for name in tree(tmp_path) if name.endswith(".tmp")] == []
    assert cli("inspect", "a").returncode == 0


def test_a_terminal_that_is_closed_keeps_the_training(tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and nothing can be written to the terminal any more."""
    with Terminal(tmp_path, "train", *ENDLESS, "--name", "a", "--no-show") as terminal:
        terminal.wait_for("run")
        os.close(terminal.master)
        terminal.master = os.open(os.devnull, os.O_RDONLY)
        assert terminal.process.wait(timeout=300) == 129
    run = Registry(tmp_path).resume("a")[1].manifest.run
    assert run.stopped == "interrupted"


def test_a_hang_up_that_is_ignored_does_not_end_a_training(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does for what it starts
    try:
        with Running(tmp_path, "train", *ENDLESS, "--name", "a") as running:
            running.wait_for("epoch 1/")
            running.send(signal.SIGHUP)
            running.wait_for("epoch 2/")
            running.send(signal.SIGTERM)
            assert running.finish().returncode == 143
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_is_suspended_does_not_use_up_its_time(tmp_path: Path) -> None:
    with Running(tmp_path, "train", *ENDLESS, "--max-time", "20s", "--name", "a") as running:
        running.wait_for("steps of")
        started = time.monotonic()
        begun = commit_seconds(tmp_path, "a")
        running.send(signal.SIGSTOP)
        time.sleep(6)
        running.send(signal.SIGCONT)
        running.wait_for("epoch 1/")
        running.send(signal.SIGTERM)
        running.finish()
        elapsed = time.monotonic() - started
    # Whatever else takes time in there, the training took no more than what is left without the suspension.
    assert commit_seconds(tmp_path, "a") - begun < elapsed - 6 + 0.5


def commit_seconds(home: Path, name: str) -> float:
    """The time that was spent training, as the last commit of a run records it."""
    return open_pointer(name, home / "models" / name, "last").manifest.run.seconds


def test_ctrl_c_before_anything_was_learnt_leaves_nothing(tmp_path: Path) -> None:
    # Drawing this many takes minutes.
    with Running(tmp_path, "train", *QUICK, "--dataset", "strokes:1000000", "--name", "a") as running:
        while not (tmp_path / "models").exists():  # the name is taken, and the drawing begins
            assert running.process.poll() is None, running.said
            time.sleep(0.05)
        running.send(signal.SIGINT)
        done = running.finish()
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    assert Registry(tmp_path).names() == []
    assert list(tree(tmp_path)) in ([], ["models"])


def test_a_terminal_shows_bars_and_a_live_table_and_its_ctrl_c_interrupts(cli: Cli, tmp_path: Path) -> None:
    with Terminal(tmp_path, "train", *ENDLESS, "--name", "a") as terminal:
        for heading in (
            "epoch",
            "train MSE",
            "validation MSE",
            "best",
            "patience",
            "learning rate",
            "images/s",
            "time",
        ):
            terminal.wait_for(heading)
        terminal.wait_for("images/s")
        terminal.type("\x03")
        assert terminal.finish() == 130
        said = terminal.text
        assert "\x1b[" in terminal.screen
    assert re.search(r"epoch [━╸╺ ]+ +\d+% \d+ images/s, .+ left", said)
    assert re.search(r"run [━╸╺ ]+ +\d+% .+ left", said)
    row = r"^ *1 +\d\.\d{4} +\d\.\d{4} +\* +5000/5000 +\S+ +[\d,]+ +\d+ s *$"
    assert re.search(row, said, re.MULTILINE), said
    assert re.search(r"error: interrupted after [\d,]+ of 15,000 steps; checkpoint saved as 'a'", said)
    assert said.rstrip().endswith("hint: ddpmctl train --resume a")
    assert cli("models", "-q").stdout == "a\n"


def test_a_terminal_s_results_can_be_piped_away(tmp_path: Path) -> None:
    """The live table is on stderr; stdout holds the result alone."""
    typed = shlex.join(map(str, [sys.executable, "-m", "ddpmctl", "train", *SMALL, "--epochs", 1, "--json"]))
    with Terminal(tmp_path, f"{typed} > result.json", program=("sh", "-c")) as terminal:
        assert terminal.finish() == 0
        assert "train MSE" in terminal.text
    assert json.loads((tmp_path / "result.json").read_text())["result"]["name"] == "strokes-quick-1"


def plan_of(steps: int, steps_per_epoch: int, limit: int | None = None) -> Plan:
    rates = RateSegment(start=0, end=steps, level=1.0, warmup_steps=0, decay_steps=0)
    return Plan(
        steps=steps, steps_per_epoch=steps_per_epoch, batch_size=64, peak_lr=1e-3, limit=limit, segments=(rates,)
    )


def display_of(console: Console, max_time: float | None = None, preset: str = "standard") -> Display:
    """The display of a run that is about to start on a CPU."""
    watcher = Display(Output("train", stderr=console))
    watcher.on_setup(
        RunInfo(
            name="a",
            resumed=False,
            spec=RunSpec(preset=preset),
            config=tiny_config(training={"patience": 15}),
            execution=Execution(device=torch.device("cpu"), precision="fp32"),
            precision_reason="as given",
            seconds_left=max_time,
            clock=time.perf_counter,
        )
    )
    return watcher


def shown(
    rate: float,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    suggest_quick: bool,
    max_time: float | None = None,
    limit: int | None = None,
) -> str:
    """What a display says after the first step of a run, some seconds into it."""
    monkeypatch.setattr(display, "ESTIMATE_AFTER", -1.0)
    console = Console(record=True, width=200, force_terminal=False)
    watcher = display_of(console, max_time, "standard" if suggest_quick else "quick")
    plan = plan_of(steps, 100, limit)
    with watcher.showing():
        watcher.on_start(plan, 0)
        watcher.on_step(1, rate)
        watcher.on_step(2, rate)
    return console.export_text()


def test_after_a_few_seconds_the_whole_run_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(640, 1001, monkeypatch, suggest_quick=True)
    assert said == (
        "training 'a' on cpu in fp32 (as given)\n1,001 steps, batch size 64, 10.01 epochs\n"
        "about 2 min left at 640 images/s, unless it stops early\n"
    )


def test_no_more_is_left_of_a_time_limit_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(64, 1000, monkeypatch, suggest_quick=True, max_time=45.0, limit=1000)
    assert "about 45 s left at 64 images/s" in said


def test_a_time_in_which_nothing_can_be_learnt_is_called_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(64, 1, monkeypatch, suggest_quick=True, max_time=45.0, limit=1)
    assert "\n1 step, batch size 64, 0.01 epochs\n" in said
    assert "warning: only 1 step fit in this time: recognisable digits need several hundred" in said
    assert "warning" not in shown(64, 1, monkeypatch, suggest_quick=True)


def followed(monkeypatch: pytest.MonkeyPatch, totals: list[int], *, limit: int | None = None) -> list[str]:
    """What a display off a terminal says of a run of two minutes whose number of steps changes so."""
    console = Console(record=True, width=200, force_terminal=False)
    watcher = display_of(console, 120.0)
    with watcher.showing():
        watcher.on_start(plan_of(9000, 100, limit), 0)
        for step, total in enumerate(totals, 1):
            monkeypatch.setattr(display, "ESTIMATE_AFTER", 1e9 if step == 1 else -1.0)
            watcher.on_step(step, 640.0)
            watcher.on_replan(plan_of(total, 100, limit), step)
        watcher.on_step(step + 1, 640.0)
    return console.export_text().splitlines()[1:]


def test_with_a_time_limit_the_steps_are_named_once_the_speed_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    said = followed(monkeypatch, [70, 1200])
    assert said[:2] == ["as many steps of batch size 64 as fit in 2 min", "70 steps, batch size 64, 0.70 epochs"]
    assert said[3:] == ["replanned for the time limit: 1,200 steps, batch size 64, 12 epochs"]


def test_a_guess_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(64, 9000, monkeypatch, suggest_quick=False, max_time=120.0).splitlines()[1:] == [
        "as many steps of batch size 64 as fit in 2 min"
    ]


def test_only_a_plan_that_is_another_by_far_is_worth_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = followed(monkeypatch, [1000, 1100, 1190, 900, 850, 700, 720])
    assert [line for line in said if "batch size 64" in line] == [
        "as many steps of batch size 64 as fit in 2 min",
        "1,000 steps, batch size 64, 10 epochs",
        "replanned for the time limit: 700 steps, batch size 64, 7 epochs",
    ]


def test_steps_that_are_a_limit_themselves_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert followed(monkeypatch, [9000], limit=9000)[0] == "9,000 steps, batch size 64, 90 epochs"


def test_the_bar_of_the_run_follows_the_plan() -> None:
    console = Console(record=True, width=100, force_terminal=True, color_system=None)
    watcher = display_of(console, 120.0)
    with watcher.showing():
        watcher.on_start(plan_of(9000, 100), 0)
        watcher.on_step(100, 640.0)
        watcher.on_replan(plan_of(400, 100), 100)
    assert re.search(r"run [━╸╺ ]+ +25%", console.export_text())


def test_where_it_will_take_hours_the_quick_preset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = "about 2 h 47 min left at 64 images/s, unless it stops early\n"
    way_out = "for a faster result: ddpmctl train --preset quick\n"
    assert shown(64, 10_000, monkeypatch, suggest_quick=True).endswith(estimate + way_out)
    assert shown(64, 10_000, monkeypatch, suggest_quick=False).endswith(estimate)


def test_the_live_table_shows_the_last_epochs_the_best_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, width=100, force_terminal=True, color_system=None)
    watcher = display_of(console)
    with watcher.showing():
        watcher.on_start(plan_of(30, 1), 0)
        for epoch in range(1, 21):
            row = EpochRow(
                epoch=epoch, step=epoch, train_mse=0.5, validation_mse=0.25, lr=1e-3,
                images_per_second=1234.5, seconds=100 * epoch, best=epoch == 19,
            )  # fmt: skip
            watcher.on_epoch_end(row, 14 if epoch == 20 else 15, np.ones((1, 2), np.float32))
    table = [line.split() for line in console.export_text().splitlines() if re.match(r" +\d+ +0\.5000", line)]
    assert table[-2:] == [
        ["19", "0.5000", "0.2500", "*", "15/15", "0.001", "1,234", "32", "min"],
        ["20", "0.5000", "0.2500", "14/15", "0.001", "1,234", "33", "min"],
    ]
    # A long run does not outgrow the screen.
    assert len(table[-12:]) == 12


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data dir whose four files, 60 noisy images each, are taken for the real ones."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = torch.randint(256, (60, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60, dtype=torch.uint8) % 10
    for name in SOURCES["mnist"].files:
        values = images if "images" in name else labels
        header = [8 * 256 + values.ndim, *values.shape]
        data = b"".join(number.to_bytes(4, "big") for number in header) + values.numpy().tobytes()
        (raw / name).write_bytes(data)
    digests = {name: tree(raw)[name] for name in SOURCES["mnist"].files}
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], files=digests))
    return tmp_path / "data"


@pytest.mark.parametrize("way", ["option", "environment", "cache"])
def test_mnist_is_taken_from_where_it_lies_and_nothing_is_written_there(
    here: Cli, tmp_path: Path, small_mnist: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    option = ("--data-dir", small_mnist) if way == "option" else ()
    if way == "environment":
        monkeypatch.setenv("DDPMCTL_DATA_DIR", str(small_mnist))
    if way == "cache":
        monkeypatch.setattr(downloads, "cached_root", lambda: small_mnist)
    before = tree(small_mnist)
    assert here("train", *QUICK, *option, "--epochs", 1).stdout == "mnist-quick-1\n"
    manifest = tiny_checkpoint(tmp_path, "mnist-quick-1").manifest
    assert (manifest.dataset.name, manifest.dataset.count) == ("mnist", 60)
    assert tree(small_mnist) == before


def test_a_given_data_dir_never_falls_through_to_the_cache(
    here: Cli, tmp_path: Path, small_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "cached_root", lambda: small_mnist)
    (tmp_path / "empty").mkdir()
    error, hint = complaint(here("train", *QUICK, "--data-dir", "empty", "--epochs", 1), 1)
    assert error == "the folder empty is incomplete: MNIST/raw/train-images-idx3-ubyte is missing"
    assert "--data-dir" in hint
    assert "--dataset strokes" in hint
    assert Registry(tmp_path).names() == []


def test_the_classic_preset_trains_the_network_of_6593729_parameters(here: Cli, tmp_path: Path) -> None:
    classic = ("--preset", "classic", "--dataset", "strokes:20", "--epochs", 1, "--device", "cpu")
    assert here("train", *classic, "--name", "a").stdout == "a\n"
    manifest = tiny_checkpoint(tmp_path, "a").manifest
    assert manifest.parameters == 6_593_729
    # The training MSE judges it: nothing is held out.
    assert (manifest.best.name, manifest.best.parameterization) == ("train_mse", "epsilon")
    assert (manifest.config.sampling.sampler, manifest.config.sampling.steps) == ("ddpm", 1000)
    assert here("generate", "8", "--steps", 2).stdout == "eight.png\n"


def test_a_signal_is_noted_after_the_step_and_not_where_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is written from within the writing of another one is an error in Python."""
    said: list[str] = []
    monkeypatch.setattr(Output, "note", lambda self, message: said.append(message))
    with graceful_end(Output("train"), lambda: True) as ended_by:
        assert ended_by() is None
        os.kill(os.getpid(), signal.SIGHUP)
        assert said == []
        assert ended_by() == ended_by() == signal.SIGHUP
    assert said == ["stopping after this step; Ctrl-C again stops immediately"]


def test_a_training_that_has_diverged_is_not_recommended(here: Cli) -> None:
    """Its figures are finite, and it ran to its end."""
    run = (*SMALL, "--batch-size", 54, "--epochs", 3, "--name", "a", "--lr", 1, "--clip", 0)
    done = here("train", *run)
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert re.search(
        r"^warning: 'a' did not learn: its MSE is not below that of a constant prediction \(0\.\d{4}\)$",
        done.stderr,
        re.M,
    )
    assert done.stderr.endswith("train again, for longer or with a lower learning rate: ddpmctl train --lr 0.1\n")
    assert "see it" not in done.stderr
