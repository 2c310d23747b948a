"""Rank and world size from the environment of torchrun. Does not import torch."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """A process among those of one job, numbered from 0 as torch.distributed does.

    Attributes:
        launched: whether torchrun started it.
        size: the world size, on all machines.
        local: its rank on this machine.
        local_size: processes on this machine.
        restarts: how often torchrun has restarted all of them.
    """

    launched: bool = False
    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1
    restarts: int = 0

    @property
    def is_main_process(self) -> bool:
        """Whether it prints and writes for all."""
        return self.rank == 0


def ranks() -> Ranks:
    """What torchrun wrote into the environment; a single process if torchrun did not start this one."""
    # Other programs set RANK, too, with another meaning.
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
