"""Runs that are fitted into a time."""

import threading
from threading import Event

import numpy as np
import pytest

from ddpmctl.training.clock import INTERVAL, RunningClock
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


class Machine:
    """Time as a machine sees it, and a thread that waits by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = RunningClock(lambda: self.now, self.wait)
        self.ticks = Event()
        self.over = False

    def wait(self, seconds: float) -> bool:
        """The thread of the clock ticks only where a test lets it."""
        while not self.over and not self.ticks.wait(0.01):
            pass
        self.ticks.clear()
        return self.over

    def __enter__(self) -> "Machine":
        self.clock.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.clock.__exit__(None, None, None)


def test_time_in_which_the_process_runs_counts() -> None:
    with Machine() as machine:
        for now in (0.5, 1.0, 3.5, 6.4):
            machine.now = now
            assert machine.clock() == now


@pytest.mark.parametrize("seconds", [3.5, 60.0, 86_400.0])
def test_time_in_which_the_process_is_suspended_does_not_count(seconds: float) -> None:
    with Machine() as machine:
        machine.now = 1.0
        before = machine.clock()
        machine.now += seconds
        # Just resumed: the thread may not have ticked yet.
        assert before < machine.clock() <= before + INTERVAL
        machine.now += 1.0
        assert machine.clock() <= before + INTERVAL + 1.0


def test_a_long_step_counts_while_the_thread_ticks() -> None:
    """Torch computes for minutes without asking the clock, and other threads run meanwhile."""
    with Machine() as machine:
        before = machine.clock()
        for _ in range(60):
            machine.now += INTERVAL
            machine.clock()  # as the thread does
        assert machine.clock() - before == 60 * INTERVAL


def test_the_thread_ticks_and_ends() -> None:
    before = threading.active_count()
    with Machine() as machine:
        assert threading.active_count() == before + 1
        machine.now += 1.0
        machine.ticks.set()
        while machine.ticks.is_set():
            pass
        machine.now += 2.5  # three and a half seconds since the start, but not since the tick
        assert machine.clock() == 3.5
    assert threading.active_count() == before


def test_without_its_thread_the_clock_counts_every_second() -> None:
    machine = Machine()
    machine.now = 100.0
    assert machine.clock() == 100.0
