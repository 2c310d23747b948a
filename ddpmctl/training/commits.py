"""The commits of a run: where it is, and the best before it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpmctl.config import Config
from ddpmctl.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from ddpmctl.registry import Checkpoint, DatasetRecord, FileRecord, Manifest, Metric, ModelWriter, ResumeRecord
from ddpmctl.training import records
from ddpmctl.training.history import to_csv
from ddpmctl.training.run import Run, Stopped
from ddpmctl.training.saving import Every
from ddpmctl.training.state import RunState
from ddpmctl.versions import versions

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Weights that were the best when they were judged, to be committed when the time has come."""

    step: int
    weights: Arrays
    history: str
    describe: Callable[[dict[str, FileRecord]], Manifest]


class Commits:
    """Commits a run from time to time: the first process writes, and the others hear how it went.

    Args:
        writer: takes the commits; None in all processes but the first.
        config: all settings.
        run: the circumstances.
        dataset: what is learnt from.
        classes: names of the labels.
        parameters: numbers that make the network.
        every: how often, beside the beginning, the first epoch and the end.
        clock: seconds.
        group: the processes of the training.

    Attributes:
        saved: the last commit; None before the first.
        cost: seconds that it took.
        provisional: whether there is nothing yet to make images with but what an unjudged epoch left.
    """

    def __init__(
        self,
        writer: ModelWriter | None,
        config: Config,
        run: Run,
        dataset: DatasetRecord,
        classes: tuple[str, ...],
        parameters: int,
        every: Every,
        clock: Callable[[], float],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.writer = writer
        self.group = group
        self.run = run
        self.every = every
        self.clock = clock
        self.saved: Checkpoint | None = None
        self.cost = 0.0
        self.provisional = not self.has_best
        self._known: dict[str, Any] = {
            "preset": run.preset,
            "config": config,
            "classes": classes,
            "dataset": dataset,
            "parameters": parameters,
            "versions": versions(),
        }
        self._pending: Snapshot | None = None
        self._saved_at = (0.0, 0)

    @property
    def has_best(self) -> bool:
        """Whether there is something to make images with."""
        return self.writer is not None and self.writer.has_best

    def go_on_from(self, checkpoint: Checkpoint, state: RunState) -> None:
        """Take a commit for the last, and forget what came after it."""
        self.provisional = (state.best is None and checkpoint.manifest.best is not None) or not self.has_best
        self.saved = checkpoint
        self._pending = None
        self._saved_at = (self.clock(), state.step)

    def is_due(self, state: RunState, now: float) -> bool:
        """Whether it is time for a commit, by the clock that says ``now``."""
        at, step = self._saved_at
        return self.every.is_over(
            seconds=now - at,
            steps=state.step - step,
            steps_per_epoch=state.plan.steps_per_epoch,
            cost=self.cost,
        )

    def keep_in_mind(self, state: RunState, metric: Metric, weights: Callable[[], Arrays]) -> None:
        """Have the best so far ready, to be committed with the next commit."""
        if not self.group.is_main_process:
            return
        self._pending = Snapshot(state.step, weights(), to_csv(state.rows), self._describing(state, metric, "running"))

    def save(
        self,
        state: RunState,
        tensors: Callable[[], tuple[Arrays, Arrays]],
        stopped: Stopped,
        metric: Metric | None,
        *,
        best: bool,
    ) -> None:
        """Commit where the run is, and the best before it that is not committed yet.

        Args:
            state: where that is.
            tensors: gives the averaged weights, and what the training needs to go on.
            stopped: why it ends here; ``running`` where it goes on.
            metric: of these weights, where they were judged.
            best: whether they are the best.
        """
        started = self.clock()
        self.saved = self.group.broadcast(lambda: self._commit(state, tensors, stopped, metric, best=best))
        self._saved_at = (self.clock(), state.step)
        self.cost = self.clock() - started

    def save_pending(self) -> None:
        """Commit the best so far, where that is not done yet."""
        self.group.on_rank0(self._commit_pending)

    def _commit(
        self,
        state: RunState,
        tensors: Callable[[], tuple[Arrays, Arrays]],
        stopped: Stopped,
        metric: Metric | None,
        *,
        best: bool,
    ) -> Checkpoint:
        writer = self._first_writer()
        self._commit_pending(besides=state.step)
        weights, arrays = tensors()
        path = writer.save(
            weights,
            to_csv(state.rows),
            self._describing(state, metric, stopped, state.resume_record(self.run)),
            best=best,
            state=arrays,
        )
        return Checkpoint.open(writer.name, path)

    def _commit_pending(self, besides: int | None = None) -> None:
        """Commit the best so far where it is not what is committed next, at that step."""
        pending, self._pending = self._pending, None
        if pending and pending.step != besides:
            self._first_writer().save(pending.weights, pending.history, pending.describe, best=True, last=False)

    def _first_writer(self) -> ModelWriter:
        assert self.writer is not None, "the first process has one"
        return self.writer

    def _describing(
        self, state: RunState, metric: Metric | None, stopped: Stopped, resume: ResumeRecord | None = None
    ) -> Callable[[dict[str, FileRecord]], Manifest]:
        """What makes the manifest of the run as it is now, once its files are known."""
        known: dict[str, Any] = {
            **self._known,
            "created": records.now(),
            "run": state.run_record(self.run, stopped),
            "metric": metric,
            "best": state.best or metric,
            "resume": resume,
        }
        return lambda files: Manifest(**known, files=files)
