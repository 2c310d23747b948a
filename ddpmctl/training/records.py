"""What a run writes down about itself."""

import uuid
from datetime import UTC, datetime

import torch

from ddpmctl.devices import describe_device
from ddpmctl.plan import Plan
from ddpmctl.registry import RunRecord, SegmentRecord
from ddpmctl.training.run import Run
from ddpmctl.versions import versions

MOST_SEGMENTS = 400
"""Parts of a run that its manifest tells of."""

SAME_FOR_EXACTNESS = ("ddpmctl", "torch")
"""Packages of which another version may compute other bits."""


def new_id() -> str:
    """A name for a run that no other has."""
    return uuid.uuid4().hex


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def where(run: Run) -> str:
    """What a run computes on, in words."""
    together = f" x {run.processes} processes" if run.processes > 1 else ""
    return describe_device(run.device) + together


def threads() -> int:
    """Of torch on the CPU."""
    return torch.get_num_threads()


def segment(why: str, run: Run, plan: Plan, step: int, *, exact: bool) -> SegmentRecord:
    """The part of a run that begins here and now."""
    return SegmentRecord(
        why=why,
        step=step,
        planned_steps=plan.steps,
        peak_lr=plan.peak_lr,
        created=now(),
        device=where(run),
        precision=run.precision,
        threads=threads(),
        versions=versions(),
        exact=exact,
    )


def joined(segments: tuple[SegmentRecord, ...], new: SegmentRecord) -> tuple[SegmentRecord, ...]:
    """One part more; of very many the first and the last are kept."""
    kept = segments if len(segments) < MOST_SEGMENTS else (segments[0], *segments[2 - MOST_SEGMENTS :])
    return (*kept, new)


def differences(before: RunRecord, run: Run) -> list[str]:
    """In words, why what follows may differ in the last bits from a run that was never cut; empty where it cannot."""
    last = before.segments[-1]
    found = {
        "device": (last.device, where(run)),
        "precision": (last.precision, run.precision),
        "accumulate": (str(before.accumulate), str(run.accumulate)),
        "compile": (str(before.compiled), str(run.compiled)),
        **{name: (last.versions.get(name, "none"), versions()[name]) for name in SAME_FOR_EXACTNESS},
    }
    changed = [f"{what} {then} then, {here} now" for what, (then, here) in found.items() if then != here]
    # Sums over many threads of a GPU are not always taken in one order.
    return changed if run.device.type == "cpu" else [*changed, f"computed on {run.device.type}"]
