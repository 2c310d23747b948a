"""A run that is cut anywhere and resumed is, bit for bit, the run that never was."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ddpmctl.config import load_preset
from ddpmctl.data import load_dataset
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.plan import RateSegment, extend_plan, make_plan
from ddpmctl.registry import Registry, SegmentRecord
from ddpmctl.training.intervals import DEFAULT_INTERVAL, CheckpointInterval
from ddpmctl.training.records import MAX_SEGMENTS, append_segment
from ddpmctl.training.trainer import Trainer
from tests.builders import tiny_config

from .support import Train, Trained, Watcher


def apart(one: Trained, other: Trained) -> list[str]:
    """Names of what two runs do not have bit for bit alike, the optimizers' memories among it."""
    first, second = ({**run.state, **run.last.weights()} for run in (one, other))
    assert first.keys() == second.keys()
    return [name for name in first if first[name].tobytes() != second[name].tobytes()]


def cut_after(train: Train, step: int, **settings: Any) -> Trained:
    """A run of which only so many steps are done in this process."""
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done = number

    return train(watcher=Watcher(after_step=count), stop=lambda: done >= step, **settings)


def told(run: Trained) -> list[tuple[Any, ...]]:
    """The history without what depends on the clock."""
    rows = run.last.history
    return [tuple(value for name, value in row.items() if name not in ("images_per_second", "seconds")) for row in rows]


# An epoch has eight steps; the warm-up three.
CUTS = {"in warm-up": 2, "mid-epoch": 5, "at an epoch's end": 8, "later": 19, "at the very end": 24}


@pytest.mark.parametrize("step", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "muon"},
        pytest.param({"optimizer": "adamw", "precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param(
            {"optimizer": "adam", "accumulate": 3, "ema_lag": 0.0, "clip_norm": 0.0, "stratified": False},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["muon", "bf16", "parts"],
)
def test_a_run_that_is_cut_and_resumed_ends_as_one_that_never_was(
    train: Train, step: int, settings: dict[str, Any]
) -> None:
    uncut = train(epochs=3, **settings)
    cut = cut_after(train, step, epochs=3, **settings)
    assert cut.stopped == "interrupted"
    resumed = train(resume=cut.name, epochs=3, **settings)
    assert resumed.stopped == uncut.stopped == "done"
    assert apart(uncut, resumed) == []
    assert told(resumed) == told(uncut)
    assert resumed.last.manifest.best == uncut.last.manifest.best
    assert np.array_equal(resumed.best.weights()["conv_in.weight"], uncut.best.weights()["conv_in.weight"])
    assert [part.why for part in resumed.last.manifest.run.segments] == ["begun", "resumed"]
    assert all(part.exact for part in resumed.last.manifest.run.segments)
    assert resumed.watcher.steps == list(range(step + 1, 25))


def test_a_run_that_is_cut_at_every_step_ends_as_one_that_never_was(train: Train) -> None:
    uncut = train(epochs=2)
    run = cut_after(train, 1, epochs=2)
    for step in range(2, 17):
        run = cut_after(train, step, epochs=2, resume=run.name)
    run = train(epochs=2, resume=run.name)
    assert apart(uncut, run) == []
    assert told(run) == told(uncut)
    assert len(run.last.manifest.run.segments) == 17


def test_a_run_that_dies_before_its_first_step_can_be_resumed(train: Train, registry: Registry) -> None:
    class Killed(BaseException):
        pass

    def die(step: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(watcher=Watcher(after_step=die), epochs=2)
    assert registry.names() == []
    assert apart(train(resume="run-0", epochs=2), train(epochs=2)) == []


def test_patience_goes_on_where_it_was(train: Train) -> None:
    settings = {"epochs": 50, "patience": 4, "lr": 1e-30, "optimizer": "adamw", "ema_lag": 0.0}
    uncut = train(**settings)
    resumed = train(resume=cut_after(train, 20, **settings).name, **settings)
    assert (resumed.stopped, resumed.last.manifest.run.step) == ("early", uncut.last.manifest.run.step)
    assert [left for _, left in resumed.watcher.epochs] == [2, 1, 0]
    assert told(resumed) == told(uncut)


def test_a_wish_to_stop_is_heard_while_the_epoch_is_judged(train: Train) -> None:
    asked = iter([False] * 8 + [True] * 99)
    cut = train(epochs=2, stop=lambda: next(asked))
    assert (cut.stopped, cut.last.manifest.run.step, cut.last.history) == ("interrupted", 8, [])
    resumed = train(resume=cut.name, epochs=2)
    uncut = train(epochs=2)
    assert apart(uncut, resumed) == []
    assert told(resumed) == told(uncut)


def test_a_cut_first_epoch_that_was_kept_is_not_the_best_of_the_run(train: Train) -> None:
    cut = cut_after(train, 3, epochs=2)
    assert cut.best.manifest.run.step == 3
    resumed = train(resume=cut.name, epochs=2)
    assert [row.best for row, _ in resumed.watcher.epochs] == [row.best for row, _ in train(epochs=2).watcher.epochs]
    assert resumed.best.manifest.metric == resumed.last.manifest.best


def test_a_finished_run_is_given_more_epochs_with_a_warm_up_of_their_own(train: Train) -> None:
    begun = train(epochs=2, warmup=0.25, decay=0.5, lr=1e-3)
    more = train(resume=begun.name, more_epochs=3, epochs=2, warmup=0.25, decay=0.5, lr=1e-3)
    run = more.last.manifest.run
    assert (more.stopped, run.step, run.planned_steps, run.epochs) == ("done", 40, 40, 5)
    assert [(part.why, part.step, part.planned_steps) for part in run.segments] == [
        ("begun", 0, 16), ("extended", 16, 40),
    ]  # fmt: skip
    assert [int(row["epoch"]) for row in more.last.history] == [1, 2, 3, 4, 5]
    plan = more.trainer.state.plan
    rates = [plan.lr(step) for step in range(16, 40)]
    assert rates[:7] == pytest.approx([1e-3 * k / 6 for k in (1, 2, 3, 4, 5, 6, 6)])
    assert rates[-3:] == pytest.approx([1e-3 * k / 12 for k in (3, 2, 1)])


def test_an_extension_is_planned_from_where_the_run_is() -> None:
    settings = tiny_config(training={"epochs": 2, "batch_size": 10, "warmup": 0.1, "decay": 0.5}).training
    plan = extend_plan(make_plan(settings, images=100), settings, step=17, epochs=4)
    assert plan.steps == 57
    assert plan.segments[-1] == RateSegment(start=17, end=57, level=0.0, warmup_steps=4, decay_steps=20)
    assert 0 < plan.lr(17) < plan.lr(20) == plan.lr(30) > plan.lr(56) > 0


def test_another_network_s_state_is_refused_and_the_run_stays(train: Train) -> None:
    cut = cut_after(train, 5, epochs=2)
    with pytest.raises(CheckpointError, match="does not match this run's training state: "):
        train(resume=cut.name, config=tiny_config(model={"widths": [16, 48]}))
    assert apart(train(resume=cut.name, epochs=2), train(epochs=2)) == []


@pytest.mark.parametrize("missing", ["progress", "model.conv_in.weight", "optimizer.0.0.momentum_buffer"])
def test_a_missing_piece_is_an_error_and_never_a_fresh_start(
    train: Train, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = cut_after(train, 5, epochs=2, optimizer="muon")
    whole = cut.last.state()
    del whole[missing]
    monkeypatch.setattr("ddpmctl.registry.Checkpoint.state", lambda self: dict(whole))
    with pytest.raises(CheckpointError, match="does not match this run's training state"):
        train(resume=cut.name, epochs=2, optimizer="muon")


def test_a_time_limit_counts_what_was_spent_before(train: Train) -> None:
    cut = cut_after(train, 3, epochs=1, max_time=1000.0, within_epochs=True)
    spent = cut.last.manifest.run.seconds
    resumed = train(resume=cut.name, epochs=1, max_time=1000.0, within_epochs=True)
    assert resumed.last.manifest.run.seconds > spent > 0
    assert resumed.trainer.state.plan == cut.trainer.state.plan


def test_a_resumed_run_on_other_threads_is_recorded_as_not_exact(train: Train) -> None:
    cut = cut_after(train, 3, epochs=1)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        resumed = train(resume=cut.name, epochs=1)
    finally:
        torch.set_num_threads(before)
    assert [part.exact for part in resumed.last.manifest.run.segments] == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", (30, "s")), ("2m", (120, "s")), ("200steps", (200, "steps")), ("1 step", (1, "steps")),
     ("1epoch", (1, "epochs")), ("0.5epochs", (0.5, "epochs"))],
)  # fmt: skip
def test_an_interval_is_read_as_people_type_it(text: str, expected: tuple[float, str]) -> None:
    every = CheckpointInterval.parse(text)
    assert (every.number, every.unit, every.share) == (*expected, 1.0)


@pytest.mark.parametrize("text", ["", "30", "0s", "-1s", "1.5steps", "one epoch", "5 parsecs"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an interval"):
        CheckpointInterval.parse(text)


def test_commits_come_when_they_are_due_and_cost_little() -> None:
    usual = {"steps": 5, "steps_per_epoch": 10}
    assert not DEFAULT_INTERVAL.is_over(seconds=29, cost=0.1, **usual)
    assert DEFAULT_INTERVAL.is_over(seconds=30, cost=0.1, **usual)
    # Three seconds are two per cent of 150.
    assert not DEFAULT_INTERVAL.is_over(seconds=149, cost=3, **usual)
    assert DEFAULT_INTERVAL.is_over(seconds=150, cost=3, **usual)
    # Who says how often, gets it.
    assert CheckpointInterval.parse("5s").is_over(seconds=5, cost=3, **usual)
    assert CheckpointInterval.parse("5steps").is_over(seconds=0, cost=3, **usual)
    assert not CheckpointInterval.parse("0.6epoch").is_over(seconds=999, cost=3, **usual)


def test_a_run_is_made_safe_as_often_as_was_asked(train: Train) -> None:
    commits: list[int] = []

    def watch(trainer: Trainer) -> None:
        inner = trainer.checkpoints.writer.save

        def commit(*arguments: Any, **settings: Any) -> Any:
            commits.append(trainer.state.step)
            return inner(*arguments, **settings)

        trainer.checkpoints.writer.save = commit  # type: ignore[method-assign]

    train(epochs=2, every="3steps", on_trainer=watch)
    assert commits == [0, 3, 6, 8, 11, 14, 16]
    commits.clear()
    train(load_dataset("strokes:60", 32), epochs=6, on_trainer=watch, batch_size=54)
    # Nothing is due within a second: the beginning, the first epoch, and the end.
    assert (commits[0], commits[1], commits[-1]) == (0, 1, 6)
    assert len(commits) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["quick", "standard", "classic"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_preset_ends_as_if_it_had_never_been_cut(train: Train, preset: str, precision: str) -> None:
    found = load_preset(preset).config
    config = replace(found, training=replace(found.training, epochs=2, batch_size=9))
    settings = {"data": load_dataset("strokes:30", 32), "config": config, "precision": precision}
    uncut = train(**settings)
    cut = cut_after(train, 4, **settings)
    assert (cut.stopped, cut.last.manifest.run.step) == ("interrupted", 4)
    assert apart(uncut, train(resume=cut.name, **settings)) == []


def test_more_epochs_are_not_bound_by_the_time_that_the_run_had(train: Train) -> None:
    begun = train(epochs=1, max_time=1000.0, within_epochs=True)
    settings = {"resume": begun.name, "epochs": 1, "max_time": 1e-6, "within_epochs": True}
    more = train(more_epochs=2, **settings)
    assert (more.stopped, more.last.manifest.run.step, more.last.manifest.run.max_time) == ("done", 24, 0.0)


def test_a_best_commit_that_was_damaged_is_sought_anew(train: Train) -> None:
    cut = cut_after(train, 20, epochs=4)
    weights = cut.best.path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    # Worse than the lost one, but whole.
    resumed = train(
        resume=cut.name, epochs=4, best_is_damaged=True, on_trainer=lambda t: setattr(t, "_validation_mse", lambda: 9.0)
    )
    assert resumed.best.manifest.metric is not None
    assert resumed.best.manifest.metric.value == 9.0
    resumed.best.verify()


def test_more_epochs_after_roll_backs_begin_at_the_rate_that_worked(train: Train) -> None:
    def spoil(step: int) -> None:
        if step == 11 and len(watcher.rollbacks) < 2:
            with torch.no_grad():
                next(trainers[0].train_step.model.parameters()).fill_(torch.nan)

    watcher, trainers = Watcher(spoil), list[Trainer]()
    begun = train(epochs=2, lr=4e-3, watcher=watcher, on_trainer=trainers.append)
    assert (begun.trainer.state.rollbacks, begun.trainer.state.plan.peak_lr) == (2, 1e-3)
    more = train(resume=begun.name, more_epochs=1, epochs=2, lr=4e-3)
    assert (more.trainer.state.rollbacks, more.trainer.state.plan.peak_lr) == (0, 1e-3)


def test_of_very_many_parts_the_first_and_the_last_are_told(train: Train) -> None:
    part = train(epochs=1).last.manifest.run.segments[0]
    parts: tuple[SegmentRecord, ...] = ()
    for step in range(1000):
        parts = append_segment(parts, replace(part, step=step))
    assert len(parts) == MAX_SEGMENTS
    assert [parts[0].step, parts[1].step, parts[-1].step] == [0, 1001 - MAX_SEGMENTS, 999]
