"""How often a run is saved."""

import re
from dataclasses import dataclass
from typing import Self

from ddpmctl.errors import Setting, UsageError

SHARE = 0.02
"""Share of the time that saving may take by default."""


@dataclass(frozen=True, slots=True)
class CheckpointInterval:
    """An interval between two checkpoints in ``s``, ``steps`` or ``epochs``.

    Attributes:
        share: largest share of the time that saving may take; the interval in seconds grows if it would take more.
    """

    number: float
    unit: str
    share: float = 1.0

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """``30s``, ``5m``, ``200steps``, ``1epoch``; None is the default: 30 s, or longer if saving costs over 2 %."""
        if text is None:
            return cls(30, "s", SHARE)
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|h|steps?|epochs?)", text.strip().lower())
        number = float(match[1]) if match else 0.0
        if not match or number <= 0 or (match[2][:2] == "st" and number != int(number)):
            raise UsageError(f"'{text}' is not an interval", Setting("checkpoint_every", "30s"), ", 200steps or 1epoch")
        if match[2] in ("s", "m", "h"):
            return cls(number * {"s": 1, "m": 60, "h": 3600}[match[2]], "s")
        return cls(number, match[2].rstrip("s") + "s")

    def is_over(self, *, seconds: float, steps: int, steps_per_epoch: int, cost: float) -> bool:
        """Whether a checkpoint is due.

        Args:
            seconds: since the last one.
            steps: since the last one.
            cost: seconds that the last one took.
        """
        if self.unit == "s":
            return seconds >= max(self.number, cost / self.share)
        return steps >= (self.number if self.unit == "steps" else self.number * steps_per_epoch)


DEFAULT_INTERVAL = CheckpointInterval.parse(None)
