"""The loop: one run from random weights, or from where it was left, to a registered model."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ddpmctl.config import Config
from ddpmctl.data.dataset import Dataset
from ddpmctl.devices import is_out_of_memory
from ddpmctl.errors import CheckpointError, DdpmctlError
from ddpmctl.plan import Plan, extended, lay_out, steps_that_fit
from ddpmctl.registry import (
    Checkpoint,
    DatasetRecord,
    FileRecord,
    Manifest,
    Metric,
    ModelWriter,
    ResumeRecord,
    SegmentRecord,
)
from ddpmctl.versions import versions

from . import records
from .history import EpochRow, from_csv, to_csv
from .learner import Learner
from .run import Observer, Run, Stopped
from .saving import HALF_A_MINUTE, Every
from .strips import SHARE, Strips

OVERTIME = 1.1
"""The clock ends a run that takes this much longer than the time it was fitted into."""

CHECK_EVERY = 50
"""Steps between looks at the loss on a GPU, each of which makes the host wait for it."""

MOST_ROLLBACKS = 3


class NotFinite(DdpmctlError):
    """A figure of the training became infinite or no number."""


class Trainer:
    """Trains one model and commits it.

    Args:
        config: all settings.
        data: the images; divided here into training and held-out ones.
        run: the circumstances.
        writer: takes the commits.
        observer: is told what happens.
        should_stop: asked after each step whether to save and end.
        clock: seconds, for measuring.
        every: how often the run is made safe, beside the beginning, the first epoch and the end.
        resumed: the commit to go on from; None to begin.
        more_epochs: plan so many from there anew; None keeps to the plan.
        best_is_lost: whether the best commit cannot be read any more, and another is to be found.

    Attributes:
        saved: the last commit; None before the first.
        cost: seconds that it took.
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        run: Run,
        writer: ModelWriter,
        observer: Observer,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
        every: Every = HALF_A_MINUTE,
        resumed: Checkpoint | None = None,
        more_epochs: int | None = None,
        best_is_lost: bool = False,
    ) -> None:
        self.config = config
        self.run = run
        self.writer = writer
        self.observer = observer
        self.should_stop = should_stop
        self.clock = clock
        self.every = every
        self.resumed = resumed
        self.more_epochs = more_epochs
        self.best_is_lost = best_is_lost
        self.dataset_record = DatasetRecord(name=run.dataset, digest=data.digest(), count=len(data), fit=run.fit)
        self.classes = data.classes
        self.train_set, self.heldout_set = data.to(run.device).split(config.training.heldout)
        self.learner = Learner(config, self.train_set, run)
        self.strips = Strips(self.learner.strip, self.learner.wait, clock, observer.strip_drawn)
        self.id = records.new_id()
        self.step = 0
        self.seconds = 0.0
        self.rows: list[EpochRow] = []
        self.best: Metric | None = None
        self.epochs_without_better = 0
        self.rollbacks = 0
        self.segments: tuple[SegmentRecord, ...] = ()
        self.saved: Checkpoint | None = None
        self._pending: records.Snapshot | None = None
        self._provisional = not writer.has_best
        self._saved_at = (0.0, 0)
        self.cost = 0.0

    def train(self) -> Stopped:
        """Run to the end of the plan, to a lack of patience, or until told to stop.

        Returns:
            Why it ended.

        Raises:
            DdpmctlError: for figures that are not finite again and again, or for want of memory; what was committed
                stays.
        """
        if self.run.compiled:
            self.learner.compile()
        if self.resumed:
            self._take_up(self.resumed)
        else:
            self.plan = self._lay_out()
            self._begin_segment("begun", exact=True)
        self.strips.begin(self.learner.noise)
        if not self.resumed or self.more_epochs:
            self._save("running")
        self.observer.started(self.plan, self.step)
        self.strips.tell()
        stopped: Stopped = "running"
        while stopped == "running":
            try:
                stopped = self._run_epoch()
            except NotFinite as error:
                self._roll_back(error)
        return stopped

    def _take_up(self, resumed: Checkpoint) -> None:
        """Go on from a commit."""
        self._restore(resumed)
        exact = not records.differences(resumed.manifest.run, self.run)
        if self.more_epochs:
            self.plan = extended(self.plan, self.config.training, self.step, self.more_epochs)
            self.epochs_without_better = self.rollbacks = 0
            # The time that the run was fitted into is over, or beside the point.
            self.run = replace(self.run, max_time=None)
        self._begin_segment("extended" if self.more_epochs else "resumed", exact=exact)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Become what a commit holds.

        Raises:
            CheckpointError: when it does not hold what this training needs.
        """
        manifest = checkpoint.manifest
        state = checkpoint.state()
        assert manifest.resume is not None, "a commit with a state says how to go on"
        self.plan = manifest.resume.plan
        try:
            if self.plan.steps_per_epoch != len(self.train_set) // self.plan.batch_size:
                raise ValueError("its epochs are of another length")
            self.progress = torch.zeros(self.plan.steps_per_epoch, 2, device=self.run.device)
            self.rows = from_csv(checkpoint.history)
            progress = torch.from_numpy(state.pop("progress"))
            self.progress[: len(progress)] = progress.to(self.run.device)
            self.strips.restore(state, manifest.run.seconds)
            self.learner.restore(checkpoint.weights(), state, manifest.run.step)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise DdpmctlError("there is not enough memory to go on with this training", "--device cpu") from error
            raise CheckpointError(
                f"damaged checkpoint: {checkpoint.path} does not hold the state of this training: {error}",
                "train it again: ddpmctl train",
            ) from error
        self.id, self.step = manifest.run.id, manifest.run.step
        self.seconds = max(self.seconds, manifest.run.seconds)
        self.segments = manifest.run.segments
        # What was kept of an epoch that nobody judged is the best for others, not for the run.
        judged = manifest.best is not None and manifest.best.step in {row.step for row in self.rows}
        judged = judged and not self.best_is_lost
        self.best = manifest.best if judged else None
        self._provisional = (not judged and manifest.best is not None) or not self.writer.has_best
        self.epochs_without_better = manifest.resume.epochs_without_better
        self.rollbacks = manifest.resume.rollbacks
        self.saved = checkpoint
        self._pending = None
        self._saved_at = (self.clock(), self.step)

    def _lay_out(self) -> Plan:
        """Plan the run; into a time limit go as many steps as fit at the speed of the first seconds."""
        images, settings = len(self.train_set), self.config.training
        full = lay_out(settings, images)
        limits = [] if self.run.max_steps is None else [self.run.max_steps]
        if self.run.max_time is not None:
            started = self.clock()
            probe = Learner(self.config, self.train_set, self.run)
            seconds_per_step = probe.seconds_per_step(full, min(5.0, 0.03 * self.run.max_time), self.clock)
            self.seconds = self.clock() - started
            limits.append(steps_that_fit((self.run.max_time - self.seconds) * (1 - SHARE), seconds_per_step))
        if self.run.within_epochs or not limits:
            limits.append(full.steps)
        self.progress = torch.zeros(full.steps_per_epoch, 2, device=self.run.device)
        return lay_out(settings, images, min(limits))

    def _run_epoch(self) -> Stopped:
        """Train to the end of the epoch that the run is in, and judge it."""
        plan = self.plan
        number, done = divmod(self.step, plan.steps_per_epoch)
        at_an_end = self.step > 0 and (done == 0 or self.step == plan.steps)
        if at_an_end and not (self.rows and self.rows[-1].step == self.step):
            return self._judge(rate=0.0)  # stopped between the last step and the judgement
        end = min((number + 1) * plan.steps_per_epoch, plan.steps)
        batches = torch.split(self.learner.order(number + 1), plan.batch_size)
        first, before, started, rate = self.step, self.seconds, self.clock(), 0.0
        while self.step < end:
            place = self.step % plan.steps_per_epoch
            self.progress[place] = self.learner.step(batches[place], self.step, plan.lr(self.step))
            self.step += 1
            if self.run.device.type == "cpu" or self.step % CHECK_EVERY == 0 or self.step == end:
                self._check_finite()
            now = self.clock()
            self.seconds = before + now - started
            rate = (self.step - first) * plan.batch_size / (self.seconds - before)
            self.observer.stepped(self.step, rate)
            if self.should_stop():
                self._save("interrupted")
                return "interrupted"
            if self.run.max_time and self.seconds > OVERTIME * self.run.max_time:
                return self._judge(rate, by_the_clock=self.step < plan.steps)
            if self.step < end and self._is_due(now):
                self._save("running")
                started += self.cost
            started += self.strips.offer(self.step, self.seconds, rate, (plan.steps - self.step) * plan.batch_size)
        return self._judge(rate)

    def _judge(self, rate: float, *, by_the_clock: bool = False) -> Stopped:
        """Measure and compare with the best; says whether the run ends here."""
        heldout_mse = None
        if len(self.heldout_set):
            heldout_mse = self._heldout_mse()
            if heldout_mse is None:
                self._save("interrupted")
                return "interrupted"
        train_mse = self._figures()[:, 0].mean().item()
        name, value = ("train_mse", train_mse) if heldout_mse is None else ("heldout_mse", heldout_mse)
        if not math.isfinite(value):
            raise self._not_finite("the held-out loss", self.step)
        better = self.best is None or value < self.best.value
        first = self.best is None
        self.epochs_without_better = 0 if better else self.epochs_without_better + 1
        patience_left = self.config.training.patience - self.epochs_without_better
        row = self._remember(train_mse, heldout_mse, rate, best=better)
        metric = self._metric(name, value)
        if better:
            self.best = metric
            self._pending = self._snapshot(metric)
        stopped: Stopped = "running"
        if self.step >= self.plan.steps:
            stopped = "done"
        elif by_the_clock:
            stopped = "time"
        elif patience_left <= 0:
            stopped = "early"
        if stopped != "running":
            self.strips.offer(self.step, self.seconds, rate, images_left=0)
        if stopped != "running" or first or self._is_due(self.clock()):
            self._save(stopped, metric)
        self.observer.epoch_done(row, patience_left, self._figures().cpu().numpy().copy())
        return stopped

    def _heldout_mse(self) -> float | None:
        return self.learner.judge(self.heldout_set, self.should_stop)

    def _figures(self) -> torch.Tensor:
        """Losses and norms of the gradients, of the steps of this epoch so far: float32[N,2]."""
        return self.progress[: (self.step - 1) % self.plan.steps_per_epoch + 1]

    def _metric(self, name: str, value: float) -> Metric:
        epoch = -(-self.step // self.plan.steps_per_epoch)
        return Metric(name=name, target=self.config.diffusion.target, value=value, epoch=epoch, step=self.step)

    def _remember(self, train_mse: float, heldout: float | None, rate: float, *, best: bool) -> EpochRow:
        row = EpochRow(
            epoch=-(-self.step // self.plan.steps_per_epoch),
            step=self.step,
            train_mse=train_mse,
            heldout_mse=heldout,
            lr=self.plan.lr(self.step - 1),
            images_per_second=rate,
            seconds=self.seconds,
            best=best,
        )
        self.rows.append(row)
        return row

    def _is_due(self, now: float) -> bool:
        at, step = self._saved_at
        return self.every.is_over(
            seconds=now - at,
            steps=self.step - step,
            steps_per_epoch=self.plan.steps_per_epoch,
            cost=self.cost,
        )

    def _save(self, stopped: Stopped, metric: Metric | None = None) -> None:
        """Commit where the run is, and the best before it that is not committed yet."""
        started = self.clock()
        self._check_finite()
        if not self.learner.is_finite():
            raise self._not_finite("a weight", max(1, self.step))
        self._commit_pending()
        best = metric is not None and metric == self.best
        if stopped == "interrupted" and self.best is None and self._provisional and self.step:
            # Better to have something to look at than nothing.
            metric, best = self._metric("train_mse", self._figures()[:, 0].mean().item()), True
        resume = records.resume_record(self.plan, self.run, self.epochs_without_better, self.rollbacks)
        path = self.writer.commit(
            self.learner.weights(),
            to_csv(self.rows),
            self._describing(metric, stopped, resume),
            best=best,
            state={**self.learner.state(), **self.strips.arrays(), "progress": self.progress.cpu().numpy()},
        )
        self.saved = Checkpoint.open(self.writer.name, path)
        self._saved_at = (self.clock(), self.step)
        self.cost = self.clock() - started

    def _commit_pending(self) -> None:
        """Commit the best so far where it is not what is committed next."""
        pending, self._pending = self._pending, None
        if pending and pending.step != self.step:
            self.writer.commit(pending.weights, pending.history, pending.describe, best=True, last=False)

    def _snapshot(self, metric: Metric) -> records.Snapshot:
        describe = self._describing(metric, "running", None)
        return records.Snapshot(self.step, self.learner.weights(), to_csv(self.rows), describe)

    def _describing(
        self, metric: Metric | None, stopped: Stopped, resume: ResumeRecord | None
    ) -> Callable[[dict[str, FileRecord]], Manifest]:
        """What makes the manifest of the run as it is now, once its files are known."""
        known: dict[str, Any] = {
            "created": records.now(),
            "preset": self.run.preset,
            "config": self.config,
            "classes": self.classes,
            "dataset": self.dataset_record,
            "run": records.run_record(self.id, self.run, self.plan, self.step, self.seconds, stopped, self.segments),
            "metric": metric,
            "best": self.best or metric,
            "resume": resume,
            "parameters": sum(tensor.numel() for tensor in self.learner.model.state_dict().values()),
            "versions": versions(),
        }
        return lambda files: Manifest(**known, files=files)

    def _begin_segment(self, why: str, *, exact: bool) -> None:
        self.segments = records.joined(self.segments, records.segment(why, self.run, self.plan, self.step, exact=exact))

    def _roll_back(self, error: NotFinite) -> None:
        """Go on from the last commit with half the learning rate.

        Raises:
            DdpmctlError: when that was tried often enough.
        """
        rollbacks, plan = self.rollbacks + 1, self.plan
        if rollbacks > MOST_ROLLBACKS:
            self._commit_pending()
            raise DdpmctlError(
                f"{error.message}; going back and halving the rate {MOST_ROLLBACKS} times did not help", error.hint
            ) from error
        assert self.saved is not None, "a run is committed before its first step"
        self._restore(self.saved)
        self.rollbacks = rollbacks
        self.plan = replace(plan, peak_lr=plan.peak_lr / 2)
        self._begin_segment("rolled back", exact=True)
        self._save("running")
        self.observer.rolled_back(error.message, self.plan, self.step)

    def _check_finite(self) -> None:
        """See that losses and gradients of this epoch are numbers.

        Raises:
            NotFinite: naming the first step that was not.
        """
        begin = max(0, self.step - 1) // self.plan.steps_per_epoch * self.plan.steps_per_epoch
        bad = (~self.progress[: self.step - begin].isfinite()).nonzero()
        if len(bad):
            place, what = bad[0].tolist()
            raise self._not_finite(("the loss", "the gradient")[what], begin + place + 1)

    def _not_finite(self, what: str, step: int) -> NotFinite:
        return NotFinite(
            f"{what} is not finite at step {step}, with a learning rate of {self.plan.lr(step - 1):.3g}",
            f"train again with a lower one, such as --lr {self.plan.peak_lr / 4:.1g}",
        )
