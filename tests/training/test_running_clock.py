"""The clock of a training: time in which the process is suspended does not count."""

import threading
from threading import Event

import pytest

from ddpmctl.training.clock import INTERVAL, RunningClock


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
