"""A short version of every fault; the full one is ``python -m tests.faults``."""

import sys
from collections.abc import Callable

import pytest

from . import crowd, damage, disk, kills, syscalls
from .tally import Tally, table

pytestmark = pytest.mark.slow

SEED = 20261123
linux = pytest.mark.skipif(sys.platform != "linux", reason="these faults are thrown by Linux")

SHORT: dict[str, Callable[[], Tally]] = {
    "killed": syscalls.killed,
    "refused": lambda: syscalls.refused(every=4),
    "full": lambda: disk.full(range(0, 16_385, 8192)),
    "limited": lambda: disk.limited(range(0, 4097, 2048)),
    "read-only": disk.read_only,
    "flipped": lambda: damage.flipped(29, SEED),
    "truncated": lambda: damage.truncated(7, SEED),
    "manifests": lambda: damage.fuzzed_manifests(500, SEED),
    "weights": lambda: damage.fuzzed_weights(500, SEED),
    "archives": lambda: damage.fuzzed_archives(500, SEED),
    "idx": lambda: damage.fuzzed_idx(500, SEED),
    "crowd": lambda: crowd.crowded(4, 100, SEED),
    "trainings": lambda: kills.killed(10, SEED),
}


@linux
@pytest.mark.parametrize("fault", SHORT)
def test_nothing_is_lost(fault: str, tallies: list[Tally]) -> None:
    tally = SHORT[fault]()
    tallies.append(tally)
    assert not tally.failures, "\n".join(tally.failures[:20])
    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.trials > 0


def test_a_failure_is_counted_and_shown() -> None:
    tally = Tally("a fault", seed=7, trials=1200)
    tally.expect(True, "never")
    tally.expect(False, "it was lost")
    assert tally.failures == ["it was lost"]
    assert table([tally, Tally("another", skipped="not here")]).splitlines()[2:] == [
        "| a fault | 1,200 | 1 | 7 |",
        "| another | skipped: not here | 0 | every case |",
    ]
