"""Runs that are fitted into a time."""

import numpy as np

from ddpmctl.training.trainer import OVERTIME

from .support import Train, Watcher


class Clock:
    """Time as the trainer sees it: each look takes a while, which may change."""

    def __init__(self, tick: float) -> None:
        self.tick = tick
        self.now = 100.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def test_a_time_limit_is_turned_into_steps(train: Train) -> None:
    clock = Clock(0.05)
    trained = train(clock=clock, max_time=4.0, epochs=1, warmup=0.1, decay=0.4)
    plan = trained.watcher.plan
    assert plan is not None
    # A step takes one look at the clock or two, so at most 80 fit; the epochs that were set do not matter.
    assert 40 <= plan.steps <= 80
    assert (plan.warmup_steps, plan.decay_steps) == (round(0.1 * plan.steps), round(0.4 * plan.steps))
    run = trained.last.manifest.run
    assert trained.stopped == "done"
    assert (run.step, run.planned_steps, run.max_time) == (plan.steps, plan.steps, 4.0)
    assert run.seconds < 4.4


def test_a_time_limit_may_be_bounded_by_epochs(train: Train) -> None:
    trained = train(clock=Clock(0.1), max_time=100.0, within_epochs=True, epochs=2)
    assert (trained.stopped, trained.last.manifest.run.step) == ("done", 16)


def test_measuring_the_speed_changes_nothing_in_the_run(train: Train) -> None:
    timed = train(clock=Clock(0.1), max_time=100.0, within_epochs=True, epochs=2).weights()
    untimed = train(epochs=2).weights()
    assert [name for name in timed if not np.array_equal(timed[name], untimed[name])] == []


def test_the_clock_ends_a_run_on_a_machine_that_becomes_slow(train: Train) -> None:
    clock = Clock(0.05)

    def slow_down(step: int) -> None:
        if step == 20:
            clock.tick = 1.0

    trained = train(clock=clock, max_time=10.0, watcher=Watcher(on_step=slow_down))
    run = trained.last.manifest.run
    assert trained.stopped == run.stopped == "time"
    assert run.step < run.planned_steps
    assert OVERTIME * 10 < run.seconds < OVERTIME * 10 + 5


def test_even_the_shortest_time_limit_makes_a_model(train: Train) -> None:
    trained = train(max_time=0.01)
    assert trained.last.manifest.run.step >= 1
