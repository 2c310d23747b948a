"""The full run: every fault as often as documented, and a table of the results.

    python -m tests.faults

Some forty minutes on two cores. The short form of each is in the suite. Ends with 1 when anything failed.
"""

import argparse
import random
import sys
from collections.abc import Callable

from . import crowd, damage, disk, kills, syscalls
from .tally import Tally, table

LONG: dict[str, Callable[[int], Tally]] = {
    "killed": lambda seed: syscalls.killed(),
    "refused": lambda seed: syscalls.refused(),
    "full": lambda seed: disk.full(range(0, 60_000, 4096)),
    "limited": lambda seed: disk.limited(range(0, 12_000, 512)),
    "read-only": lambda seed: disk.read_only(),
    "flipped": lambda seed: damage.flipped(1, seed),
    "truncated": lambda seed: damage.truncated(1, seed),
    "manifests": lambda seed: damage.fuzzed_manifests(100_000, seed),
    "weights": lambda seed: damage.fuzzed_weights(100_000, seed),
    "archives": lambda seed: damage.fuzzed_archives(100_000, seed),
    "idx": lambda seed: damage.fuzzed_idx(100_000, seed),
    "crowd": lambda seed: crowd.crowded(16, 1_000, seed),
    "trainings": lambda seed: kills.killed(100, seed),
}


def main() -> None:
    """Run all, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help=", ".join(LONG))
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    tallies = []
    for name in given.only or LONG:
        tally = LONG[name](given.seed)
        tallies.append(tally)
        print(f"{name}: {tally.trials:,} trials, {len(tally.failures)} failures {tally.skipped}", file=sys.stderr)
        for failure in tally.failures[:20]:
            print(f"    {failure}", file=sys.stderr)
    print(table(tallies))
    sys.exit(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    main()
