"""Results per kind of fault: trials and failures."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Trials of one fault.

    Attributes:
        fault: in words.
        seed: of what was drawn; None where every case was tried.
        trials: how many.
        failures: what went wrong, a line each.
        skipped: why nothing could be tried; empty where it could.
    """

    fault: str
    seed: int | None = None
    trials: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: str = ""

    def expect(self, true: bool, otherwise: str) -> None:
        """Note a failure unless something holds."""
        if not true:
            self.failures.append(otherwise)


def table(tallies: Iterable[Tally]) -> str:
    """A Markdown table."""
    rows = ["| fault | trials | failures | seed |", "|---|---|---|---|"]
    for tally in tallies:
        trials = f"skipped: {tally.skipped}" if tally.skipped else f"{tally.trials:,}"
        seed = "every case" if tally.seed is None else str(tally.seed)
        rows.append(f"| {tally.fault} | {trials} | {len(tally.failures)} | {seed} |")
    return "\n".join(rows)
