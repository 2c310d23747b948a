"""How far a run has come: what changes as it goes on, beside the tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from ddpmctl.plan import Plan
from ddpmctl.registry import Manifest, Metric, ResumeRecord, RunRecord, SegmentRecord
from ddpmctl.training import records
from ddpmctl.training.history import EpochRow, from_csv
from ddpmctl.training.run import Run, Stopped


@dataclass(slots=True, kw_only=True)
class RunState:
    """Where a run is.

    Attributes:
        plan: the steps of the whole run and their learning rates.
        id: tells this run from others under the same name.
        step: optimizer steps done.
        seconds: spent training, without evaluation and saving.
        max_time: the time limit in seconds; None for none.
        rows: its history.
        best: the figure to beat; None before the first.
        epochs_without_better: patience that is used up.
        rollbacks: how often a figure that is not finite sent the run back.
        segments: the parts in which it went on.
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
        """Where a commit was made.

        Raises:
            ValueError: for a history that cannot be read.
        """
        run, resume = manifest.run, manifest.resume
        assert resume is not None, "a commit with a state says how to go on"
        rows = from_csv(history)
        # What was kept of an epoch that nobody judged is the best for others, not for the run.
        judged = manifest.best is not None and manifest.best.step in {row.step for row in rows}
        return cls(
            plan=resume.plan,
            id=run.id,
            step=run.step,
            seconds=run.seconds,
            max_time=run.max_time or None,
            rows=rows,
            best=manifest.best if judged else None,
            epochs_without_better=resume.epochs_without_better,
            rollbacks=resume.rollbacks,
            segments=run.segments,
        )

    @property
    def epoch(self) -> int:
        """Epochs begun."""
        return -(-self.step // self.plan.steps_per_epoch)

    @property
    def steps_in_epoch(self) -> int:
        """Steps done of the epoch that the last step belongs to; 0 before the first."""
        return (self.step - 1) % self.plan.steps_per_epoch + 1 if self.step else 0

    def end_of(self, epoch: int) -> int:
        """The step at which an epoch counted from 0 ends, or the run within it."""
        return min((epoch + 1) * self.plan.steps_per_epoch, self.plan.steps)

    def change_plan(self, plan: Plan) -> None:
        """Go on with another plan, in the same part of the run."""
        self.plan = plan
        *earlier, last = self.segments
        self.segments = (*earlier, replace(last, planned_steps=plan.steps))

    def begin_segment(self, why: str, run: Run, *, exact: bool) -> None:
        """Note that a part of the run begins here and now."""
        new = records.segment(why, run, self.plan, self.step, exact=exact)
        self.segments = records.joined(self.segments, new)

    def run_record(self, run: Run, stopped: Stopped) -> RunRecord:
        """How the training went so far, for the manifest."""
        return RunRecord(
            id=self.id,
            step=self.step,
            planned_steps=self.plan.steps,
            epochs=self.epoch,
            images=self.step * self.plan.batch_size,
            seconds=round(self.seconds, 3),
            seed=run.seed,
            device=records.where(run),
            precision=run.precision,
            threads=records.threads(),
            stopped=stopped,
            max_time=self.max_time or 0.0,
            accumulate=run.accumulate,
            compiled=run.compiled,
            segments=self.segments,
        )

    def resume_record(self, run: Run) -> ResumeRecord:
        """What the manifest holds for going on."""
        return ResumeRecord(
            plan=self.plan,
            device=str(run.device),
            within_epochs=run.within_epochs,
            epochs_without_better=self.epochs_without_better,
            rollbacks=self.rollbacks,
        )
