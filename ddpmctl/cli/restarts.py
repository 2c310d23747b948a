"""What the processes of a job had begun before torchrun started it again."""

from dataclasses import dataclass
from typing import Self

from ddpmctl.cli.orders import Order, Resumption
from ddpmctl.distributed.store import stored_run
from ddpmctl.registry import Registry
from ddpmctl.registry.manifest import SegmentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A run of processes that are gone; empty in a job that was never restarted.

    Attributes:
        name: of the run.
        identity: tells it from others that had the name before.
        since: when its last part had begun that this job took up; empty where the job began it.
        is_begun: whether anything of it was kept.
    """

    name: str = ""
    identity: str = ""
    since: str = ""
    is_begun: bool = False

    @classmethod
    def find(cls) -> Self:
        """What torchrun tells of it, and what the registry holds."""
        facts = stored_run()
        if not facts:
            return cls()
        return cls(**facts, is_begun=Registry().last_is(facts["name"], facts["identity"]))

    def resumption(self, order: Order) -> Resumption:
        """How a training goes on that was asked for."""
        return Resumption(
            reference=self.name,
            data_dir=order.data_dir,
            device=None if order.device == "auto" else order.device,
            every=order.every,
            watch=order.watch,
        )

    def has_extended(self, segments: tuple[SegmentRecord, ...]) -> bool:
        """Whether the epochs that the job was to add are planned already, in these parts of the run."""
        return any(part.why == "extended" and part.created > self.since for part in segments if self.since)
