"""What a run writes down about itself."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch

from ddpmctl.devices import describe_device
from ddpmctl.plan import Plan
from ddpmctl.registry import FileRecord, Manifest, ResumeRecord, RunRecord, SegmentRecord
from ddpmctl.versions import versions

from .run import Run

MOST_SEGMENTS = 400
"""Parts of a run that its manifest tells of."""

SAME_FOR_EXACTNESS = ("ddpmctl", "torch")
"""Packages of which another version may compute other bits."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Weights that were the best when they were judged, to be committed when the time has come."""

    step: int
    weights: dict[str, np.ndarray]
    history: str
    describe: Callable[[dict[str, FileRecord]], Manifest]


def new_id() -> str:
    """A name for a run that no other has."""
    return uuid.uuid4().hex


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def segment(why: str, run: Run, plan: Plan, step: int, *, exact: bool) -> SegmentRecord:
    """The part of a run that begins here and now."""
    return SegmentRecord(
        why=why,
        step=step,
        planned_steps=plan.steps,
        peak_lr=plan.peak_lr,
        created=now(),
        device=describe_device(run.device),
        precision=run.precision,
        threads=torch.get_num_threads(),
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
        "device": (last.device, describe_device(run.device)),
        "precision": (last.precision, run.precision),
        "accumulate": (str(before.accumulate), str(run.accumulate)),
        "compile": (str(before.compiled), str(run.compiled)),
        **{name: (last.versions.get(name, "none"), versions()[name]) for name in SAME_FOR_EXACTNESS},
    }
    changed = [f"{what} {then} then, {here} now" for what, (then, here) in found.items() if then != here]
    # Sums over many threads of a GPU are not always taken in one order.
    return changed if run.device.type == "cpu" else [*changed, f"computed on {run.device.type}"]


def resume_record(plan: Plan, run: Run, epochs_without_better: int, rollbacks: int) -> ResumeRecord:
    """What the manifest holds for going on."""
    return ResumeRecord(
        plan=plan,
        device=str(run.device),
        within_epochs=run.within_epochs,
        epochs_without_better=epochs_without_better,
        rollbacks=rollbacks,
    )


def run_record(
    identity: str, run: Run, plan: Plan, step: int, seconds: float, stopped: str, segments: tuple[SegmentRecord, ...]
) -> RunRecord:
    """How the training went so far."""
    return RunRecord(
        id=identity,
        step=step,
        planned_steps=plan.steps,
        epochs=-(-step // plan.steps_per_epoch),
        images=step * plan.batch_size,
        seconds=round(seconds, 3),
        seed=run.seed,
        device=describe_device(run.device),
        precision=run.precision,
        threads=torch.get_num_threads(),
        stopped=stopped,
        max_time=run.max_time or 0.0,
        accumulate=run.accumulate,
        compiled=run.compiled,
        segments=segments,
    )
