"""ddpmctl with a fault in one process.

torchrun .. faulty.py FAULT RANK ddpmctl's arguments
"""

import itertools
import os
import sys
import time
from typing import Any

from ddpmctl.cli.main import main

FAULTY_STEP = 4


def break_at_a_step() -> None:
    from ddpmctl.training.train_step import TrainStep

    inner = TrainStep.__call__

    def step(self: TrainStep, ids: Any, number: int, lr: float) -> Any:
        if number == FAULTY_STEP:
            raise RuntimeError("a planted fault")
        return inner(self, ids, number, lr)

    TrainStep.__call__ = step  # type: ignore[method-assign, assignment]


def run_out_of_disk() -> None:
    from ddpmctl.registry import ModelWriter

    inner, calls = ModelWriter.save, []

    def save(self: ModelWriter, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return inner(self, *arguments, **options)

    ModelWriter.save = save  # type: ignore[method-assign]


def live_faster() -> None:
    """A clock that runs a thousand times as fast as that of the others."""
    inner = time.perf_counter
    time.perf_counter = lambda: 1000 * inner()


def count_seconds() -> None:
    """A clock by which each reading takes a while, and four times as long from some reading on."""
    readings = itertools.count()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.04 if next(readings) < 100 else 0.16
        return now

    time.perf_counter = clock


FAULTS = {"step": break_at_a_step, "disk": run_out_of_disk, "clock": live_faster, "count": count_seconds}

if __name__ == "__main__":
    fault, rank, *arguments = sys.argv[1:]
    if os.environ["RANK"] == rank:
        FAULTS[fault]()
    sys.argv = ["ddpmctl", *arguments]
    main()
