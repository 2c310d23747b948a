"""One run, from random weights or a checkpoint to a registered model."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from ddpmctl.config import Config
from ddpmctl.data.dataset import Dataset
from ddpmctl.devices import is_out_of_memory
from ddpmctl.distributed.process_group import check_divisible
from ddpmctl.errors import CheckpointError, DdpmctlError, Setting
from ddpmctl.plan import extend_plan, make_plan
from ddpmctl.registry import Checkpoint, DatasetRecord, Metric, ModelWriter
from ddpmctl.training import records
from ddpmctl.training.callbacks import Callback
from ddpmctl.training.checkpointing import Arrays, CheckpointManager, RunFacts
from ddpmctl.training.execution import Execution
from ddpmctl.training.history import EpochRow
from ddpmctl.training.loop import train_loop
from ddpmctl.training.pacing import Pacer, first_plan, next_reading
from ddpmctl.training.previews import Previews, draw_preview, preview_noise
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.state import RunState, StopReason
from ddpmctl.training.train_step import TrainStep
from ddpmctl.training.validation import Validator

CHECK_EVERY = 50
"""Steps after which the host waits for a GPU at the latest, to check the losses."""

MAX_ROLLBACKS = 3


class NotFinite(DdpmctlError):
    """A loss, gradient or weight became infinite or not a number."""


class Trainer:
    """Trains one model and saves it, in one process or in each of several.

    Args:
        config: all settings, with the classes and channels of the data.
        data: the images; split here into training and validation images.
        writer: takes the checkpoints; None in all processes but rank 0.
        clock: seconds.
        identity: distinguishes this run from others under its name; generated when empty.

    Attributes:
        state: the progress of the run; only once it is planned or restored.
        step_metrics: loss and gradient norm of the current epoch's steps, float32[steps_per_epoch,2] on the device.
        synchronize_at: the step after which the host waits for the device next, the same in all processes.
    """

    state: RunState

    # The caller may have switched gradients off.
    @torch.inference_mode(False)
    def __init__(
        self,
        config: Config,
        data: Dataset,
        spec: RunSpec,
        execution: Execution,
        writer: ModelWriter | None,
        *,
        callbacks: Callback | None = None,
        clock: Callable[[], float] = time.perf_counter,
        identity: str = "",
    ) -> None:
        self.config = config
        self.spec = spec
        self.execution = execution
        self.group = execution.group
        self.callbacks = callbacks or Callback()
        self.clock = clock
        self.identity = identity or records.new_id()
        self.should_stop: Callable[[], bool] = lambda: False
        self.best_is_damaged = False
        self.train_set, self.validation_set = data.to(execution.device).split(config.training.validation_images)
        self.train_step = TrainStep(config, self.train_set, spec, execution)
        # Without validation images, the validator only serves `constant_mse`.
        self.validator = Validator(self.train_step, self.validation_set if len(self.validation_set) else self.train_set)
        self.previews = Previews(
            lambda: draw_preview(self.train_step), execution.synchronize, clock, self.callbacks.on_preview
        )
        facts = RunFacts(
            spec=spec,
            config=config,
            execution=execution,
            dataset=DatasetRecord(name=spec.dataset, digest=data.digest(), count=len(data), fit=spec.fit or ""),
            classes=data.classes,
            parameters=sum(tensor.numel() for tensor in self.train_step.model.state_dict().values()),
        )
        self.checkpoints = CheckpointManager(writer, facts, clock)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def train(
        self, resumed: Checkpoint | None = None, more_epochs: int | None = None, *, best_is_damaged: bool = False
    ) -> StopReason:
        """Run to the end of the plan, until patience is exhausted, or until a stop is requested.

        Args:
            resumed: the checkpoint to continue from.
            more_epochs: number of epochs to add; None continues under the stored plan.
            best_is_damaged: whether the best checkpoint is damaged, so that a new one has to be found.
        """
        check_divisible(min(self.config.training.batch_size, len(self.train_set)), self.config.model.norm, self.group)
        if self.spec.compile:
            self.train_step.warm_up_compiler()
        if resumed:
            self.best_is_damaged = best_is_damaged
            self._resume(resumed, more_epochs)
        else:
            self.state = self._plan()
            self.state.begin_segment("begun", self.execution, exact=True)
        self.previews.begin(lambda: preview_noise(self.config, self.train_step.diffusion.pixel_range))
        if not resumed or more_epochs:
            self.save("running")
        self.callbacks.on_start(self.state.plan, self.state.step)
        self.previews.report_last()
        self.train_step.warm_up_ddp()
        self._begin_pacing()
        while True:
            try:
                return train_loop(self)
            except NotFinite as error:
                self._roll_back(error)

    def _resume(self, checkpoint: Checkpoint, more_epochs: int | None) -> None:
        self._restore(checkpoint)
        state = self.state
        exact = not records.exactness_problems(checkpoint.manifest.run, self.spec, self.execution)
        if more_epochs:
            state.plan = extend_plan(state.plan, self.config.training, state.step, more_epochs)
            state.epochs_without_better = state.rollbacks = 0
            state.max_time = None  # it is over, or does not concern the added epochs
        state.begin_segment("extended" if more_epochs else "resumed", self.execution, exact=exact)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint; raises a `CheckpointError` if it does not match this run."""
        # Only rank 0 may be able to read the files.
        weights, tensors, history = self.group.broadcast(
            lambda: (checkpoint.weights(), checkpoint.state(), checkpoint.history)
        )
        try:
            state = RunState.of(checkpoint.manifest, history)
            if state.plan.steps_per_epoch != len(self.train_set) // state.plan.batch_size:
                raise ValueError("its number of steps per epoch differs")
            self.step_metrics = self._new_metrics(state.plan.steps_per_epoch)
            metrics = torch.from_numpy(tensors.pop("progress"))
            self.step_metrics[: len(metrics)] = metrics.to(self.execution.device)
            self.previews.restore(tensors, state.seconds)
            self.train_step.load_state(weights, tensors, state.step)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise DdpmctlError("there is not enough memory to resume this run", Setting("device", "cpu")) from error
            raise CheckpointError(
                f"damaged checkpoint: {checkpoint.path} does not match this run's training state: {error}",
                "train it again: ddpmctl train",
            ) from error
        if self.best_is_damaged:
            state.best = None
        self.state = state
        self.checkpoints.restore(checkpoint, state)

    def _new_metrics(self, steps: int) -> torch.Tensor:
        return torch.zeros(steps, 2, dtype=torch.float32, device=self.execution.device)

    def _plan(self) -> RunState:
        """Plan the run; with a time limit from a guess of the speed, which the first steps correct."""
        images, settings, spec = len(self.train_set), self.config.training, self.spec
        full = make_plan(settings, images)
        limits = [] if spec.max_steps is None else [spec.max_steps]
        if spec.epochs is not None or (spec.max_steps is None and spec.max_time is None):
            limits.append(full.steps)
        self.step_metrics = self._new_metrics(full.steps_per_epoch)
        if spec.max_time is None:
            plan = make_plan(settings, images, min(limits))
        else:
            plan = first_plan(settings, images, spec.max_time, min(limits, default=None))
        return RunState(plan=plan, id=self.identity, max_time=spec.max_time)

    def _begin_pacing(self) -> None:
        """Adapt the plan to the speed that this process has from here on, if there is a time limit."""
        state, self.pacer = self.state, None
        self.start_step = state.step
        if state.max_time is not None and self.group.is_main_process:
            self.pacer = Pacer(self.config.training, state.max_time, state.plan, state.step, state.seconds)
        self.synchronize_at = self._next_reading()

    def _next_reading(self) -> int:
        state = self.state
        if self.execution.device.type == "cpu":
            return state.step + 1
        if state.max_time is None:
            return (state.step // CHECK_EVERY + 1) * CHECK_EVERY
        return next_reading(state.plan, state.step, self.start_step, CHECK_EVERY)

    def synchronize_decisions(self, now: float, *, synchronized: bool) -> tuple[bool, bool]:
        """Whether a stop is requested in any process and whether a checkpoint is due; adopts a new plan in all."""
        state, first, pacer, new, overdue = self.state, self.group.is_main_process, self.pacer, None, False
        if pacer and synchronized:
            new = pacer.update(state.step, state.seconds)
        elif pacer:
            overdue = pacer.is_overdue(state.step, state.seconds)
        stop, due, changed, overdue = self.group.any_rank(
            self.should_stop(), first and self.checkpoints.is_due(state, now), new is not None, overdue
        )
        if changed:
            state.change_plan(self.group.broadcast(lambda: new or state.plan))
            self.callbacks.on_replan(state.plan, state.step)
        if synchronized:
            self.synchronize_at = self._next_reading()
        elif overdue:
            self.synchronize_at = state.step + 1
        return stop, due

    def maybe_draw_preview(self, rate: float, steps_left: int) -> float:
        """Draw a preview in rank 0 if there is time for it; returns the seconds that it took."""
        if not self.group.is_main_process:
            return 0.0
        return self.previews.maybe_draw(
            self.state.step, self.state.seconds, rate, steps_left * self.state.plan.batch_size
        )

    def validate(self, rate: float) -> StopReason:
        """End an epoch: validate, compare with the best, and decide whether to stop."""
        state, validation_mse = self.state, None
        if len(self.validation_set):
            validation_mse = self._validation_mse()
            if validation_mse is None:
                self.save("interrupted")
                return "interrupted"
        train_mse = self._epoch_metrics()[:, 0].mean().item()
        name, value = ("train_mse", train_mse) if validation_mse is None else ("validation_mse", validation_mse)
        if not math.isfinite(value):
            raise self._not_finite("the validation loss", state.step)
        better, first = state.best is None or value < state.best.value, state.best is None
        state.epochs_without_better = 0 if better else state.epochs_without_better + 1
        patience_left = self.config.training.patience - state.epochs_without_better
        row = EpochRow(
            epoch=state.epoch,
            step=state.step,
            train_mse=train_mse,
            validation_mse=validation_mse,
            lr=state.plan.lr(state.step - 1),
            images_per_second=rate,
            seconds=state.seconds,
            best=better,
        )
        state.rows.append(row)
        metric = self._metric(name, value)
        if better:
            state.best = metric
            self.checkpoints.stage_best(state, metric, self.train_step.weights)
        stopped: StopReason = "running"
        if state.step >= state.plan.steps:
            stopped = "done"
        elif patience_left <= 0:
            stopped = "early"
        if stopped != "running":
            self.maybe_draw_preview(rate, steps_left=0)
        if stopped != "running" or first or self._checkpoint_is_due():
            self.save(stopped, metric)
        self.callbacks.on_epoch_end(row, patience_left, self._epoch_metrics().cpu().numpy().copy())
        return stopped

    def _checkpoint_is_due(self) -> bool:
        due, *_ = self.group.any_rank(self.group.is_main_process and self.checkpoints.is_due(self.state, self.clock()))
        return due

    def _validation_mse(self) -> float | None:
        return self.validator.mse(self.should_stop)

    def _epoch_metrics(self) -> torch.Tensor:
        """Losses and gradient norms of the current epoch's steps so far: float32[N,2]."""
        return self.step_metrics[: self.state.steps_in_epoch]

    def _metric(self, name: str, value: float) -> Metric:
        parameterization, state = self.config.diffusion.parameterization, self.state
        return Metric(name=name, parameterization=parameterization, value=value, epoch=state.epoch, step=state.step)

    def save(self, stopped: StopReason, metric: Metric | None = None) -> None:
        """Save the run at its current step, after checking that all values are finite.

        Args:
            metric: of these weights, if they were validated.
        """
        state = self.state
        self.check_finite()
        if self.group.any_rank(not self.train_step.is_finite())[0]:
            raise self._not_finite("a weight", max(1, state.step))
        best = metric is not None and metric == state.best
        if stopped == "interrupted" and state.best is None and self.checkpoints.provisional and state.step:
            # Weights that were never validated are better than no model at all.
            metric, best = self._metric("train_mse", self._epoch_metrics()[:, 0].mean().item()), True
        self.checkpoints.save(state, self._tensors, stopped, metric, best=best)

    def _tensors(self) -> tuple[Arrays, Arrays]:
        """The EMA weights, and the state that resuming needs in addition."""
        metrics = self.step_metrics.cpu().numpy()
        return self.train_step.weights(), {
            **self.train_step.state(), **self.previews.arrays(), "progress": metrics
        }  # fmt: skip

    def _roll_back(self, error: NotFinite) -> None:
        """Continue from the last checkpoint with half the learning rate, at most `MAX_ROLLBACKS` times."""
        rollbacks, plan, seconds = self.state.rollbacks + 1, self.state.plan, self.state.seconds
        if rollbacks > MAX_ROLLBACKS:
            self.checkpoints.save_staged()
            raise DdpmctlError(
                f"{error.message}; still not finite after {MAX_ROLLBACKS} roll-backs with halved learning rate",
                *error.hint_parts,
            ) from error
        assert self.checkpoints.saved is not None, "a run is saved before its first step"
        self._restore(self.checkpoints.saved)
        self.state.rollbacks = rollbacks
        self.state.seconds = seconds  # the time of the steps that are undone counts
        self.state.plan = replace(plan, peak_lr=plan.peak_lr / 2)
        self.state.begin_segment("rolled back", self.execution, exact=True)
        self._begin_pacing()
        self.save("running")
        self.callbacks.on_rollback(error.message, self.state.plan, self.state.step)

    def check_finite(self) -> None:
        """Raise `NotFinite` for the first step of this epoch whose loss or gradient is not."""
        bad = (~self._epoch_metrics().isfinite()).nonzero()
        if len(bad):
            place, what = bad[0].tolist()
            begin = self.state.step - self.state.steps_in_epoch
            raise self._not_finite(("the loss", "the gradient")[what], begin + place + 1)

    def _not_finite(self, what: str, step: int) -> NotFinite:
        plan = self.state.plan
        return NotFinite(
            f"{what} is not finite at step {step}, with a learning rate of {plan.lr(step - 1):.3g}",
            "train again with a lower learning rate, such as ",
            Setting("lr", float(f"{plan.peak_lr / 4:.1g}")),
        )
