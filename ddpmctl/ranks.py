"""Which of the processes that torchrun started this one is. No torch: every command asks."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """A process among those of one job, numbered as torch.distributed does.

    Attributes:
        launched: whether torchrun started it.
        rank: its number, from 0.
        size: how many there are, on all machines.
        local: its number on this machine, from 0.
        local_size: how many there are on this machine.
        restarts: how often torchrun has started all of them anew.
    """

    launched: bool = False
    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1
    restarts: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it speaks and writes for all."""
        return self.rank == 0


def ranks() -> Ranks:
    """What torchrun wrote into the environment; one process alone where it did not start this one."""
    # Other programs set RANK, too, and mean something else by it.
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Ranks()
    return Ranks(
        launched=True,
        rank=int(os.environ["RANK"]),
        size=int(os.environ["WORLD_SIZE"]),
        local=int(os.environ["LOCAL_RANK"]),
        local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
        restarts=int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
    )
