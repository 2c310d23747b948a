"""Records of a run for its manifest."""

import uuid
from datetime import UTC, datetime

import torch

from ddpmctl.plan import Plan
from ddpmctl.registry import RunRecord, SegmentRecord
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.versions import versions

MAX_SEGMENTS = 400
"""Segments that the manifest of a run lists."""

EXACTNESS_PACKAGES = ("ddpmctl", "torch")
"""Packages whose version affects bit-exactness."""


def new_id() -> str:
    """A unique name for a run."""
    return uuid.uuid4().hex


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_segment(why: str, execution: Execution, plan: Plan, step: int, *, exact: bool) -> SegmentRecord:
    """A new segment of a run, created now."""
    return SegmentRecord(
        why=why,
        step=step,
        planned_steps=plan.steps,
        peak_lr=plan.peak_lr,
        created=now(),
        device=execution.describe(),
        precision=execution.precision,
        threads=torch.get_num_threads(),
        versions=versions(),
        exact=exact,
    )


def append_segment(segments: tuple[SegmentRecord, ...], new: SegmentRecord) -> tuple[SegmentRecord, ...]:
    """The segments with one more; of very many the first and the last are kept."""
    kept = segments if len(segments) < MAX_SEGMENTS else (segments[0], *segments[2 - MAX_SEGMENTS :])
    return (*kept, new)


def exactness_problems(before: RunRecord, spec: RunSpec, execution: Execution) -> list[str]:
    """Why the continued run may differ in the last bits from an uninterrupted one; empty if it cannot."""
    last = before.segments[-1]
    compared = {
        "device": (last.device, execution.describe()),
        "precision": (last.precision, execution.precision),
        "accumulate": (str(before.accumulate), str(spec.accumulate)),
        "compile": (str(before.compiled), str(spec.compile)),
        **{name: (last.versions.get(name, "none"), versions()[name]) for name in EXACTNESS_PACKAGES},
    }
    changed = [f"{what} was {then}, now {here}" for what, (then, here) in compared.items() if then != here]
    # A GPU does not always take sums over its threads in the same order.
    kind = execution.device.type
    return changed if kind == "cpu" else [*changed, f"{kind} is not deterministic"]
