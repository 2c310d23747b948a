"""How often a run is made safe."""

import re
from dataclasses import dataclass
from typing import Self

SHARE = 0.02
"""Of the time that may go into saving unless a user says how often."""


@dataclass(frozen=True, slots=True)
class Every:
    """An interval between two commits: in seconds, steps or epochs.

    Attributes:
        number: how many.
        unit: ``s``, ``steps`` or ``epochs``.
        share: the most of the time that commits may take; the interval grows where they would take more.
    """

    number: float
    unit: str
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """``30s``, ``5m``, ``200steps``, ``1epoch``.

        Raises:
            ValueError: for anything else.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|h|steps?|epochs?)", text.strip().lower())
        number = float(match[1]) if match else 0.0
        if not match or number <= 0 or (match[2][:2] == "st" and number != int(number)):
            raise ValueError(f"'{text}' is no interval")
        if match[2] in ("s", "m", "h"):
            return cls(number * {"s": 1, "m": 60, "h": 3600}[match[2]], "s")
        return cls(number, match[2].rstrip("s") + "s")

    def is_over(self, *, seconds: float, steps: int, steps_per_epoch: int, cost: float) -> bool:
        """Whether it is time for a commit.

        Args:
            seconds: since the last one.
            steps: since the last one.
            steps_per_epoch: to count epochs in.
            cost: seconds that the last one took.
        """
        if self.unit == "s":
            return seconds >= max(self.number, cost / self.share)
        return steps >= (self.number if self.unit == "steps" else self.number * steps_per_epoch)


HALF_A_MINUTE = Every(30, "s", SHARE)
