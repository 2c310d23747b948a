"""The checkpoints of a run: the last and the best."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpmctl.config import Config
from ddpmctl.registry import Checkpoint, DatasetRecord, FileRecord, Manifest, Metric, ModelWriter, ResumeRecord
from ddpmctl.training import records
from ddpmctl.training.execution import Execution
from ddpmctl.training.history import to_csv
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.state import RunState, StopReason
from ddpmctl.versions import versions

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Constant facts of a run for its manifest."""

    spec: RunSpec
    config: Config
    execution: Execution
    dataset: DatasetRecord
    classes: tuple[str, ...]
    parameters: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Weights that were the best when they were validated, to be saved with the next checkpoint."""

    step: int
    weights: Arrays
    history: str
    describe: Callable[[dict[str, FileRecord]], Manifest]


class CheckpointManager:
    """Saves a run periodically: rank 0 writes; the other ranks raise if it fails.

    Args:
        writer: takes the checkpoints; None in all processes but rank 0.

    Attributes:
        saved: the last checkpoint; None before the first.
        cost: seconds that it took.
        provisional: whether there are no validated weights yet.
    """

    def __init__(self, writer: ModelWriter | None, facts: RunFacts, clock: Callable[[], float]) -> None:
        self.writer = writer
        self.facts = facts
        self.group = facts.execution.group
        self.interval = facts.spec.interval()
        self.clock = clock
        self.saved: Checkpoint | None = None
        self.cost = 0.0
        self.provisional = not self.has_best
        self._staged: Snapshot | None = None
        self._saved_at = (0.0, 0)

    @property
    def has_best(self) -> bool:
        """Whether there is something to sample from."""
        return self.writer is not None and self.writer.has_best

    def restore(self, checkpoint: Checkpoint, state: RunState) -> None:
        """Continue from a checkpoint, and discard what was staged after it."""
        self.provisional = (state.best is None and checkpoint.manifest.best is not None) or not self.has_best
        self.saved = checkpoint
        self._staged = None
        self._saved_at = (self.clock(), state.step)

    def is_due(self, state: RunState, now: float) -> bool:
        """Whether it is time for a checkpoint, by the clock that reads ``now``."""
        at, step = self._saved_at
        return self.interval.is_over(
            seconds=now - at,
            steps=state.step - step,
            steps_per_epoch=state.plan.steps_per_epoch,
            cost=self.cost,
        )

    def stage_best(self, state: RunState, metric: Metric, weights: Callable[[], Arrays]) -> None:
        """Keep the best weights so far in memory, to be saved with the next checkpoint."""
        if self.group.is_main_process:
            describe = self._describing(state, metric, "running")
            self._staged = Snapshot(state.step, weights(), to_csv(state.rows), describe)

    def save(
        self,
        state: RunState,
        tensors: Callable[[], tuple[Arrays, Arrays]],
        stopped: StopReason,
        metric: Metric | None,
        *,
        best: bool,
    ) -> None:
        """Save the run at its current step, after the staged best.

        Args:
            tensors: returns the EMA weights, and the state that resuming needs in addition.
            metric: of these weights, if they were validated.
            best: whether they are the best.
        """
        started = self.clock()
        self.saved = self.group.broadcast(lambda: self._write(state, tensors, stopped, metric, best=best))
        self._saved_at = (self.clock(), state.step)
        self.cost = self.clock() - started

    def save_staged(self) -> None:
        """Save the staged best, if there is one."""
        self.group.on_rank0(self._write_staged)

    def _write(
        self,
        state: RunState,
        tensors: Callable[[], tuple[Arrays, Arrays]],
        stopped: StopReason,
        metric: Metric | None,
        *,
        best: bool,
    ) -> Checkpoint:
        assert self.writer is not None, "rank 0 has a writer"
        self._write_staged(except_step=state.step)
        weights, arrays = tensors()
        resume = state.resume_record(self.facts.spec, self.facts.execution)
        describe = self._describing(state, metric, stopped, resume)
        path = self.writer.save(weights, to_csv(state.rows), describe, best=best, state=arrays)
        return Checkpoint.open(self.writer.name, path)

    def _write_staged(self, except_step: int | None = None) -> None:
        staged, self._staged = self._staged, None
        if staged and staged.step != except_step:
            assert self.writer is not None, "rank 0 has a writer"
            self.writer.save(staged.weights, staged.history, staged.describe, best=True, last=False)

    def _describing(
        self, state: RunState, metric: Metric | None, stopped: StopReason, resume: ResumeRecord | None = None
    ) -> Callable[[dict[str, FileRecord]], Manifest]:
        """A function that creates the manifest of the run as it is now, given its files."""
        facts = self.facts
        known: dict[str, Any] = {
            "preset": facts.spec.preset,
            "config": facts.config,
            "classes": facts.classes,
            "dataset": facts.dataset,
            "parameters": facts.parameters,
            "versions": versions(),
            "created": records.now(),
            "run": state.run_record(facts.spec, facts.execution, stopped),
            "metric": metric,
            "best": state.best or metric,
            "resume": resume,
        }
        return lambda files: Manifest(**known, files=files)
