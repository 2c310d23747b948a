"""The progress of a run: what changes while it trains, other than tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch

from ddpmctl.plan import Plan
from ddpmctl.registry import Manifest, Metric, ResumeRecord, RunRecord, SegmentRecord
from ddpmctl.training import records
from ddpmctl.training.execution import Execution
from ddpmctl.training.history import EpochRow, from_csv
from ddpmctl.training.run_spec import RunSpec

StopReason = Literal["running", "done", "early", "interrupted"]
"""Why a run ended: its plan was done, patience was exhausted, or a stop was requested; ``running`` until then."""


@dataclass(slots=True, kw_only=True)
class RunState:
    """The progress of a run.

    Attributes:
        id: distinguishes this run from others under the same name.
        step: optimizer steps done.
        seconds: spent training, without evaluation and saving.
        max_time: the time limit in seconds; None for none.
        best: best metric so far; None before the first.
        epochs_without_better: epochs that count towards the patience.
        rollbacks: number of roll-backs after non-finite values.
    """

    plan: Plan
    id: str = field(default_factory=records.new_id)
    step: int = 0
    seconds: float = 0.0
    max_time: float | None = None
    rows: list[EpochRow] = field(default_factory=list)
    best: Metric | None = None
    epochs_without_better: int = 0
    rollbacks: int = 0
    segments: tuple[SegmentRecord, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, history: Sequence[Mapping[str, str]]) -> Self:
        """The state at a checkpoint; raises a `ValueError` for a history that cannot be parsed."""
        run, resume = manifest.run, manifest.resume
        assert resume is not None, "a checkpoint with a state has a resume record"
        rows = from_csv(history)
        # What was saved of an interrupted first epoch counts as best for sampling, not for early stopping.
        validated = manifest.best is not None and manifest.best.step in {row.step for row in rows}
        return cls(
            plan=resume.plan,
            id=run.id,
            step=run.step,
            seconds=run.seconds,
            max_time=run.max_time or None,
            rows=rows,
            best=manifest.best if validated else None,
            epochs_without_better=resume.epochs_without_better,
            rollbacks=resume.rollbacks,
            segments=run.segments,
        )

    @property
    def epoch(self) -> int:
        """Epochs started, including the current one."""
        return -(-self.step // self.plan.steps_per_epoch)

    @property
    def steps_in_epoch(self) -> int:
        """Steps done in the epoch of the last step; 0 before the first."""
        return (self.step - 1) % self.plan.steps_per_epoch + 1 if self.step else 0

    @property
    def epoch_in_progress(self) -> int:
        """The epoch, counted from 0, that has to be trained or validated next."""
        number, done = divmod(self.step, self.plan.steps_per_epoch)
        validated = bool(self.rows) and self.rows[-1].step == self.step
        return number - 1 if done == 0 and self.step and not validated else number

    def end_of(self, epoch: int) -> int:
        """The step at which an epoch counted from 0 ends, or the run within it."""
        return min((epoch + 1) * self.plan.steps_per_epoch, self.plan.steps)

    def change_plan(self, plan: Plan) -> None:
        """Continue under a different plan, in the same segment of the run."""
        self.plan = plan
        *earlier, last = self.segments
        self.segments = (*earlier, replace(last, planned_steps=plan.steps))

    def begin_segment(self, why: str, execution: Execution, *, exact: bool) -> None:
        """Start a new segment of the run."""
        new = records.new_segment(why, execution, self.plan, self.step, exact=exact)
        self.segments = records.append_segment(self.segments, new)

    def run_record(self, spec: RunSpec, execution: Execution, stopped: StopReason) -> RunRecord:
        """The run so far, for the manifest."""
        return RunRecord(
            id=self.id,
            step=self.step,
            planned_steps=self.plan.steps,
            epochs=self.epoch,
            images=self.step * self.plan.batch_size,
            seconds=round(self.seconds, 3),
            seed=spec.seed,
            device=execution.describe(),
            precision=execution.precision,
            threads=torch.get_num_threads(),
            stopped=stopped,
            max_time=self.max_time or 0.0,
            accumulate=spec.accumulate,
            compiled=spec.compile,
            segments=self.segments,
        )

    def resume_record(self, spec: RunSpec, execution: Execution) -> ResumeRecord:
        """The part of the manifest for resuming."""
        return ResumeRecord(
            plan=self.plan,
            device=str(execution.device),
            within_epochs=spec.epochs is not None,
            epochs_without_better=self.epochs_without_better,
            rollbacks=self.rollbacks,
        )
