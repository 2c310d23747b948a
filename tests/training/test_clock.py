"""Runs with a time limit."""

from typing import Any

import numpy as np
import pytest
import torch

from ddpmctl.plan import Plan
from ddpmctl.training.pacing import next_reading
from ddpmctl.training.state import RunState
from ddpmctl.training.trainer import Trainer

from .support import Train, Trained, Watcher

pytestmark = pytest.mark.slow


class Clock:
    """Time as the trainer sees it: each reading takes a while, which may change, and a stall may come on top."""

    def __init__(self, tick: float) -> None:
        self.tick = tick
        self.now = 100.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def uses_its_time(trained: Trained, limit: float, longest: float) -> bool:
    """Between 90 and 105 % of it, give or take one step, and to the end of its decay."""
    run, plan = trained.last.manifest.run, trained.trainer.state.plan
    assert trained.stopped == run.stopped == "done"
    assert run.step == run.planned_steps == plan.steps
    assert run.max_time == limit
    assert plan.lr(plan.steps - 1) <= 1.001 * plan.peak_lr / max(1, plan.segments[-1].decay_steps)
    return 0.9 * limit - longest <= run.seconds <= 1.05 * limit + longest


def test_a_time_limit_is_turned_into_steps(train: Train) -> None:
    trained = train(clock=Clock(0.05), max_time=4.0, epochs=1, warmup=0.1, decay=0.4)
    assert uses_its_time(trained, 4.0, 0.1)
    # A step takes one reading of the clock or two, so at most 80 fit; the epochs that were set do not matter.
    assert 36 <= trained.trainer.state.plan.steps <= 82
    assert next(step for _, step in trained.watcher.replans) <= 4
    assert trained.watcher.replans[-1][0] == trained.trainer.state.plan


def test_a_busy_moment_at_the_start_costs_no_more_than_it_lasts(train: Train) -> None:
    clock = Clock(0.5)

    def speed_up(step: int) -> None:
        if step == 5:
            clock.tick = 0.05

    trained = train(clock=clock, max_time=12.0, watcher=Watcher(after_step=speed_up))
    assert uses_its_time(trained, 12.0, 0.5)
    assert trained.trainer.state.plan.steps > 80


@pytest.mark.parametrize("when", [20, 80])
def test_a_machine_that_becomes_slow_ends_in_time(train: Train, when: int) -> None:
    clock = Clock(0.05)

    def slow_down(step: int) -> None:
        if step == when:
            clock.tick = 0.5

    trained = train(clock=clock, max_time=10.0, watcher=Watcher(after_step=slow_down))
    assert uses_its_time(trained, 10.0, 1.0)


@pytest.mark.parametrize("when", [20, 80])
def test_on_a_device_that_is_seldom_waited_for_the_time_is_used_too(train: Train, when: int) -> None:
    clock, read = Clock(0.05), list[int]()

    def slow_down(step: int) -> None:
        if step == when:
            clock.tick = 0.5

    def wait_seldom(trainer: Trainer) -> None:
        def reading() -> int:
            read.append(trainer.state.step)
            return next_reading(trainer.state.plan, trainer.state.step, trainer.start_step, 50)

        trainer._next_reading = reading  # type: ignore[method-assign]

    watcher = Watcher(after_step=slow_down)
    trained = train(clock=clock, max_time=20.0, watcher=watcher, on_trainer=wait_seldom, batch_size=9)
    assert uses_its_time(trained, 20.0, 1.0)
    assert len(read) < trained.trainer.state.plan.steps


def test_a_clock_that_shows_a_stall_shortens_the_run(train: Train) -> None:
    clock = Clock(0.05)

    def stall(step: int) -> None:
        if step == 40:
            clock.now += 6.0

    trained = train(clock=clock, max_time=10.0, watcher=Watcher(after_step=stall))
    assert uses_its_time(trained, 10.0, 0.1)


def test_a_time_limit_may_be_bounded_by_epochs(train: Train) -> None:
    trained = train(clock=Clock(0.1), max_time=100.0, within_epochs=True, epochs=2)
    assert (trained.stopped, trained.last.manifest.run.step) == ("done", 16)
    assert trained.watcher.replans == []


def test_epochs_that_fit_into_the_time_are_trained_bit_for_bit_as_without_a_limit(train: Train) -> None:
    timed = train(clock=Clock(0.1), max_time=100.0, within_epochs=True, epochs=2).weights()
    untimed = train(epochs=2).weights()
    assert [name for name in timed if not np.array_equal(timed[name], untimed[name])] == []


def test_even_the_shortest_time_limit_makes_a_model(train: Train) -> None:
    trained = train(max_time=0.01)
    assert trained.last.manifest.run.step >= 1


def changing(step: int, clock: Clock) -> None:
    """Another speed every so many steps, for a run of several rate segments."""
    clock.tick = {0: 0.02, 15: 0.1, 30: 0.01, 100: 0.06}.get(step, clock.tick)


def timed(train: Train, until: int | None = None, **settings: Any) -> Trained:
    """A run of five seconds on such a clock, or so many steps of it."""
    clock, done = Clock(0.02), 0

    def on_step(step: int) -> None:
        nonlocal done
        done = step
        changing(step, clock)

    return train(
        clock=clock, max_time=5.0, watcher=Watcher(after_step=on_step),
        stop=lambda: until is not None and done >= until, **settings,
    )  # fmt: skip


def replayed(train: Train, plan: Plan) -> Trained:
    """A run under a plan that is known from its first step on, without a clock."""

    def give(trainer: Trainer) -> None:
        inner = trainer._plan

        def planned() -> RunState:
            state = inner()
            state.plan = plan
            return state

        trainer._plan = planned  # type: ignore[method-assign]

    return train(on_trainer=give, epochs=1)


def apart(one: Trained, other: Trained) -> list[str]:
    first, second = ({**run.state, **run.weights()} for run in (one, other))
    return [name for name in first if not np.array_equal(first[name], second[name])]


def test_the_recorded_plan_makes_the_same_weights_again(train: Train) -> None:
    first = timed(train)
    resume = first.last.manifest.resume
    assert resume is not None
    assert len(resume.plan.segments) >= 4
    assert uses_its_time(first, 5.0, 0.2)
    assert apart(first, replayed(train, resume.plan)) == []


@pytest.mark.parametrize("cut", [2, 40, 120])
def test_a_run_of_several_segments_that_is_cut_and_resumed_is_the_uncut_one(train: Train, cut: int) -> None:
    begun = timed(train, until=cut)
    assert (begun.stopped, begun.last.manifest.run.step) == ("interrupted", cut)
    before = begun.trainer.state.plan
    resumed = timed(train, resume=begun.name)
    assert uses_its_time(resumed, 5.0, 0.2)
    plan = resumed.trainer.state.plan
    assert [plan.lr(step) for step in range(cut)] == [before.lr(step) for step in range(cut)]
    assert len(plan.segments) >= 3
    assert apart(resumed, replayed(train, plan)) == []
    parts = resumed.last.manifest.run.segments
    assert [(part.why, part.step, part.planned_steps) for part in parts] == [
        ("begun", 0, before.steps), ("resumed", cut, plan.steps),
    ]  # fmt: skip


def test_a_resumed_run_never_exceeds_the_steps_that_it_was_given(train: Train) -> None:
    settings = {"epochs": 12, "within_epochs": True}
    begun = timed(train, until=20, **settings)
    assert begun.trainer.state.plan.limit == 96
    resumed = timed(train, resume=begun.name, **settings)
    assert (resumed.stopped, resumed.last.manifest.run.step) == ("done", 96)
    assert resumed.last.manifest.run.seconds < 4.5


def test_a_run_that_is_rolled_back_keeps_to_its_time(train: Train) -> None:
    clock, trainers = Clock(0.05), list[Trainer]()

    def spoil(step: int) -> None:
        if step == 60 and not watcher.rollbacks:
            with torch.no_grad():
                next(trainers[0].train_step.model.parameters()).fill_(torch.nan)

    watcher = Watcher(spoil)
    trained = train(clock=clock, max_time=6.0, watcher=watcher, on_trainer=trainers.append)
    assert len(watcher.rollbacks) == 1
    assert uses_its_time(trained, 6.0, 0.1)
    back = watcher.rollbacks[0][2]
    assert back < 60
    assert trained.trainer.state.plan.segments[-1].start > back
    assert trained.trainer.state.plan.peak_lr == watcher.rollbacks[0][1]
