"""The run of a job before an elastic restart."""

from dataclasses import dataclass
from typing import Self

from ddpmctl.distributed.store import stored_run
from ddpmctl.registry import Registry
from ddpmctl.registry.manifest import SegmentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """The run trained before the restart; empty if there was none.

    Attributes:
        identity: distinguishes it from others that had the name before.
        since: when its last segment before this job started; empty if the job started the run.
        is_saved: whether anything of it was saved.
    """

    name: str = ""
    identity: str = ""
    since: str = ""
    is_saved: bool = False

    @classmethod
    def find(cls, registry: Registry) -> Self:
        """The run according to torchrun's store and the registry."""
        facts = stored_run()
        return cls(**facts, is_saved=registry.last_is(facts["name"], facts["identity"])) if facts else cls()

    def has_extended(self, segments: tuple[SegmentRecord, ...]) -> bool:
        """Whether the epochs that the job was to add are planned already, in these segments of the run."""
        return any(part.why == "extended" and part.created > self.since for part in segments if self.since)
