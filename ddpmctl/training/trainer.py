"""The loop: one run from random weights, or from where it was left, to a registered model."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from ddpmctl.config import Config
from ddpmctl.data.dataset import Dataset
from ddpmctl.devices import is_out_of_memory
from ddpmctl.distributed.process_group import SINGLE_PROCESS, ProcessGroup, check_divisible
from ddpmctl.errors import CheckpointError, DdpmctlError
from ddpmctl.plan import extend_plan, make_plan
from ddpmctl.registry import Checkpoint, DatasetRecord, Metric, ModelWriter
from ddpmctl.training import records
from ddpmctl.training.commits import Arrays, Commits
from ddpmctl.training.history import EpochRow
from ddpmctl.training.learner import Learner
from ddpmctl.training.pacing import Pacer, first_plan, next_reading
from ddpmctl.training.run import Observer, Run, Stopped
from ddpmctl.training.saving import HALF_A_MINUTE, Every
from ddpmctl.training.state import RunState
from ddpmctl.training.strips import Strips

CHECK_EVERY = 50
"""Steps between looks at the loss on a GPU, each of which makes the host wait for it."""

MOST_ROLLBACKS = 3


class NotFinite(DdpmctlError):
    """A figure of the training became infinite or no number."""


class Trainer:
    """Trains one model and commits it, in one process or in each of several.

    All take the same steps and come to the same figures. What depends on a clock, the first decides for all.

    Args:
        config: all settings.
        data: the images; divided here into training and validation images.
        run: the circumstances.
        writer: takes the commits; None in all processes but the first.
        observer: is told what happens.
        should_stop: asked after each step whether to save and end.
        clock: seconds, for measuring.
        every: how often the run is made safe, beside the beginning, the first epoch and the end.
        resumed: the commit to go on from; None to begin.
        more_epochs: plan so many from there anew; None keeps to the plan.
        best_is_lost: whether the best commit cannot be read any more, and another is to be found.
        group: the processes that train together.
        identity: tells this run from others; made up when empty.

    Attributes:
        state: how far it has come; only once it is planned or resumed.
        commits: what was saved of it.
    """

    state: RunState

    # Whoever calls may have switched gradients off.
    @torch.inference_mode(False)
    def __init__(
        self,
        config: Config,
        data: Dataset,
        run: Run,
        writer: ModelWriter | None,
        observer: Observer,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
        every: Every = HALF_A_MINUTE,
        resumed: Checkpoint | None = None,
        more_epochs: int | None = None,
        best_is_lost: bool = False,
        group: ProcessGroup = SINGLE_PROCESS,
        identity: str = "",
    ) -> None:
        self.config = config
        self.run = run
        self.observer = observer
        self.should_stop = should_stop
        self.clock = clock
        self.resumed = resumed
        self.more_epochs = more_epochs
        self.best_is_lost = best_is_lost
        self.group = group
        self.identity = identity or records.new_id()
        self.train_set, self.validation_set = data.to(run.device).split(config.training.validation_images)
        self.learner = Learner(config, self.train_set, run, group)
        self.strips = Strips(self.learner.strip, self.learner.wait, clock, observer.strip_drawn)
        dataset = DatasetRecord(name=run.dataset, digest=data.digest(), count=len(data), fit=run.fit)
        parameters = sum(tensor.numel() for tensor in self.learner.train_step.model.state_dict().values())
        self.commits = Commits(writer, config, run, dataset, data.classes, parameters, every, clock, group)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def train(self) -> Stopped:
        """Run to the end of the plan, to a lack of patience, or until told to stop.

        Returns:
            Why it ended.

        Raises:
            DdpmctlError: for figures that are not finite again and again, or for want of memory; what was committed
                stays.
        """
        config = self.config
        check_divisible(min(config.training.batch_size, len(self.train_set)), config.model.norm, self.group)
        if self.run.compiled:
            self.learner.compile()
        if self.resumed:
            self._take_up(self.resumed)
        else:
            self.state = self._plan()
            self.state.begin_segment("begun", self.run, exact=True)
        self.strips.begin(self.learner.noise)
        if not self.resumed or self.more_epochs:
            self._save("running")
        self.observer.started(self.state.plan, self.state.step)
        self.strips.tell()
        self.learner.settle()
        self._begin_pacing()
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
        state, exact = self.state, not records.differences(resumed.manifest.run, self.run)
        if self.more_epochs:
            state.plan = extend_plan(state.plan, self.config.training, state.step, self.more_epochs)
            state.epochs_without_better = state.rollbacks = 0
            # The time limit is over, or beside the point.
            state.max_time = None
        state.begin_segment("extended" if self.more_epochs else "resumed", self.run, exact=exact)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Become what a commit holds.

        Raises:
            CheckpointError: when it does not hold what this training needs.
        """
        # The files may lie where the first process alone can read them.
        weights, tensors, history = self.group.broadcast(
            lambda: (checkpoint.weights(), checkpoint.state(), checkpoint.history)
        )
        try:
            state = RunState.of(checkpoint.manifest, history)
            if state.plan.steps_per_epoch != len(self.train_set) // state.plan.batch_size:
                raise ValueError("its epochs are of another length")
            self.progress = torch.zeros(state.plan.steps_per_epoch, 2, dtype=torch.float32, device=self.run.device)
            progress = torch.from_numpy(tensors.pop("progress"))
            self.progress[: len(progress)] = progress.to(self.run.device)
            self.strips.restore(tensors, state.seconds)
            self.learner.train_step.load_state(weights, tensors, state.step)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise DdpmctlError("there is not enough memory to go on with this training", "--device cpu") from error
            raise CheckpointError(
                f"damaged checkpoint: {checkpoint.path} does not hold the state of this training: {error}",
                "train it again: ddpmctl train",
            ) from error
        if self.best_is_lost:
            state.best = None
        self.state = state
        self.commits.go_on_from(checkpoint, state)

    def _plan(self) -> RunState:
        """Plan the run; with a time limit from a guess of the speed, which the first steps correct."""
        images, settings, run = len(self.train_set), self.config.training, self.run
        full = make_plan(settings, images)
        limits = [] if run.max_steps is None else [run.max_steps]
        if run.within_epochs or (run.max_steps is None and run.max_time is None):
            limits.append(full.steps)
        self.progress = torch.zeros(full.steps_per_epoch, 2, dtype=torch.float32, device=run.device)
        if run.max_time is None:
            plan = make_plan(settings, images, min(limits))
        else:
            plan = first_plan(settings, images, run.max_time, min(limits, default=None))
        return RunState(plan=plan, id=self.identity, max_time=run.max_time)

    def _begin_pacing(self) -> None:
        """Adapt the plan to the speed that this process has from here on, if there is a time limit."""
        state, self.pacer = self.state, None
        self.begun = state.step
        if state.max_time is not None and self.group.is_main_process:
            self.pacer = Pacer(self.config.training, state.max_time, state.plan, state.step, state.seconds)
        self._reading_at = self._next_reading()

    def _next_reading(self) -> int:
        """The step after which the host waits for the device next, the same in all processes."""
        state = self.state
        if self.run.device.type == "cpu":
            return state.step + 1
        if state.max_time is None:
            return (state.step // CHECK_EVERY + 1) * CHECK_EVERY
        return next_reading(state.plan, state.step, self.begun, CHECK_EVERY)

    def _run_epoch(self) -> Stopped:
        """Train to the end of the epoch that the run is in, and judge it."""
        state = self.state
        number, done = divmod(state.step, state.plan.steps_per_epoch)
        at_an_end = state.step > 0 and (done == 0 or state.step == state.plan.steps)
        if at_an_end and not (state.rows and state.rows[-1].step == state.step):
            return self._judge(rate=0.0)  # stopped between the last step and the judgement
        batches = torch.split(self.learner.order(number + 1), state.plan.batch_size)
        first, before, started, rate = state.step, state.seconds, self.clock(), 0.0
        while state.step < state.end_of(number):
            place = state.step % state.plan.steps_per_epoch
            self.progress[place] = self.learner.step(batches[place], state.step, state.plan.lr(state.step))
            state.step += 1
            waited = state.step in (self._reading_at, state.end_of(number))
            if waited:
                self._check_finite()
            now = self.clock()
            state.seconds = before + now - started
            rate = (state.step - first) * state.plan.batch_size / (state.seconds - before)
            self.observer.stepped(state.step, rate)
            stop, due = self._wishes(now, waited=waited)
            if stop:
                self._save("interrupted")
                return "interrupted"
            if due and state.step < state.end_of(number):
                self._save("running")
                started += self.commits.cost
            started += self._offer_strip(rate, state.plan.steps - state.step)
        return self._judge(rate)

    def _wishes(self, now: float, *, waited: bool) -> tuple[bool, bool]:
        """Whether anybody was told to stop and whether a commit is due, in all processes; takes over a new plan.

        Args:
            now: what the clock says.
            waited: whether the host waited for the device before.
        """
        state, first, pacer, new, overdue = self.state, self.group.is_main_process, self.pacer, None, False
        if pacer and waited:
            new = pacer.after(state.step, state.seconds)
        elif pacer:
            overdue = pacer.is_overdue(state.step, state.seconds)
        stop, due, changed, overdue = self.group.any_rank(
            self.should_stop(), first and self.commits.is_due(state, now), new is not None, overdue
        )
        if changed:
            state.change_plan(self.group.broadcast(lambda: new or state.plan))
            self.observer.replanned(state.plan, state.step)
        if waited:
            self._reading_at = self._next_reading()
        elif overdue:
            self._reading_at = state.step + 1
        return stop, due

    def _is_due(self) -> bool:
        """Whether a commit is due between two epochs."""
        due, *_ = self.group.any_rank(self.group.is_main_process and self.commits.is_due(self.state, self.clock()))
        return due

    def _offer_strip(self, rate: float, steps_left: int) -> float:
        """Have the first process draw a strip where there is time for it; returns the seconds that it took."""
        if not self.group.is_main_process:
            return 0.0
        return self.strips.offer(self.state.step, self.state.seconds, rate, steps_left * self.state.plan.batch_size)

    def _judge(self, rate: float) -> Stopped:
        """Measure and compare with the best; says whether the run ends here."""
        state, validation_mse = self.state, None
        if len(self.validation_set):
            validation_mse = self._validation_mse()
            if validation_mse is None:
                self._save("interrupted")
                return "interrupted"
        train_mse = self._figures()[:, 0].mean().item()
        name, value = ("train_mse", train_mse) if validation_mse is None else ("validation_mse", validation_mse)
        if not math.isfinite(value):
            raise self._not_finite("the validation loss", state.step)
        better, first = state.best is None or value < state.best.value, state.best is None
        state.epochs_without_better = 0 if better else state.epochs_without_better + 1
        patience_left = self.config.training.patience - state.epochs_without_better
        row = self._add_row(train_mse, validation_mse, rate, best=better)
        metric = self._metric(name, value)
        if better:
            state.best = metric
            self.commits.keep_in_mind(state, metric, self.learner.train_step.weights)
        stopped: Stopped = "running"
        if state.step >= state.plan.steps:
            stopped = "done"
        elif patience_left <= 0:
            stopped = "early"
        if stopped != "running":
            self._offer_strip(rate, steps_left=0)
        if stopped != "running" or first or self._is_due():
            self._save(stopped, metric)
        self.observer.epoch_done(row, patience_left, self._figures().cpu().numpy().copy())
        return stopped

    def _validation_mse(self) -> float | None:
        return self.learner.validate(self.validation_set, self.should_stop)

    def constant_mse(self) -> float:
        """What the best constant prediction would reach where this training is validated."""
        return self.learner.constant_mse(self.validation_set if len(self.validation_set) else self.train_set)

    def _figures(self) -> torch.Tensor:
        """Losses and norms of the gradients, of the steps of this epoch so far: float32[N,2]."""
        return self.progress[: self.state.steps_in_epoch]

    def _metric(self, name: str, value: float) -> Metric:
        parameterization, state = self.config.diffusion.parameterization, self.state
        return Metric(name=name, parameterization=parameterization, value=value, epoch=state.epoch, step=state.step)

    def _add_row(self, train_mse: float, validation_mse: float | None, rate: float, *, best: bool) -> EpochRow:
        state = self.state
        row = EpochRow(
            epoch=state.epoch,
            step=state.step,
            train_mse=train_mse,
            validation_mse=validation_mse,
            lr=state.plan.lr(state.step - 1),
            images_per_second=rate,
            seconds=state.seconds,
            best=best,
        )
        state.rows.append(row)
        return row

    def _save(self, stopped: Stopped, metric: Metric | None = None) -> None:
        """Commit where the run is, once it is seen that all of it is numbers."""
        state = self.state
        self._check_finite()
        if self.group.any_rank(not self.learner.train_step.is_finite())[0]:
            raise self._not_finite("a weight", max(1, state.step))
        best = metric is not None and metric == state.best
        if stopped == "interrupted" and state.best is None and self.commits.provisional and state.step:
            # Better to have something to look at than nothing.
            metric, best = self._metric("train_mse", self._figures()[:, 0].mean().item()), True
        self.commits.save(state, self._tensors, stopped, metric, best=best)

    def _tensors(self) -> tuple[Arrays, Arrays]:
        """The averaged weights, and what the training needs to go on."""
        arrays = {**self.learner.train_step.state(), **self.strips.arrays(), "progress": self.progress.cpu().numpy()}
        return self.learner.train_step.weights(), arrays

    def _roll_back(self, error: NotFinite) -> None:
        """Go on from the last commit with half the learning rate.

        Raises:
            DdpmctlError: when that was tried often enough.
        """
        rollbacks, plan, seconds = self.state.rollbacks + 1, self.state.plan, self.state.seconds
        if rollbacks > MOST_ROLLBACKS:
            self.commits.save_pending()
            raise DdpmctlError(
                f"{error.message}; going back and halving the rate {MOST_ROLLBACKS} times did not help", error.hint
            ) from error
        assert self.commits.saved is not None, "a run is committed before its first step"
        self._restore(self.commits.saved)
        self.state.rollbacks = rollbacks
        self.state.seconds = seconds  # what was spent on the way that led nowhere counts
        self.state.plan = replace(plan, peak_lr=plan.peak_lr / 2)
        self.state.begin_segment("rolled back", self.run, exact=True)
        self._begin_pacing()
        self._save("running")
        self.observer.rolled_back(error.message, self.state.plan, self.state.step)

    def _check_finite(self) -> None:
        """See that losses and gradients of this epoch are numbers.

        Raises:
            NotFinite: naming the first step that was not.
        """
        bad = (~self._figures().isfinite()).nonzero()
        if len(bad):
            place, what = bad[0].tolist()
            begin = self.state.step - self.state.steps_in_epoch
            raise self._not_finite(("the loss", "the gradient")[what], begin + place + 1)

    def _not_finite(self, what: str, step: int) -> NotFinite:
        plan = self.state.plan
        return NotFinite(
            f"{what} is not finite at step {step}, with a learning rate of {plan.lr(step - 1):.3g}",
            f"train again with a lower one, such as --lr {plan.peak_lr / 4:.1g}",
        )
