"""A clock that pauses while the process is suspended."""

import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

INTERVAL = 0.25
"""Seconds between two ticks of the thread."""

SUSPENDED = 3.0
"""Seconds without a tick after which the process must have been suspended: a busy machine delays a thread by less."""


class RunningClock:
    """Seconds in which the process could run, excluding suspension.

    A thread ticks while the clock is used as a context manager; before and after, every second counts.

    Args:
        time: the clock to read, seconds.
        wait: sleeps for at most the given seconds; returns True to stop the thread.
    """

    def __init__(
        self, time: Callable[[], float] = time.perf_counter, wait: Callable[[float], bool] | None = None
    ) -> None:
        self._over = Event()
        self._time = time
        self._wait = wait or self._over.wait
        self._lock = Lock()
        self._last = time()
        self._lost = 0.0
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self()
        self._over.clear()
        self._thread = Thread(target=self._tick, name="running clock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self()
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __call__(self) -> float:
        """Seconds; only differences mean anything."""
        # The first caller after a suspension subtracts it, this thread or the one that ticks.
        with self._lock:
            now = self._time()
            gap = now - self._last
            if self._thread is not None and gap > SUSPENDED:
                self._lost += gap - INTERVAL
            self._last = now
            return now - self._lost

    def _tick(self) -> None:
        while not self._wait(INTERVAL):
            self()
