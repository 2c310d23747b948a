"""Training and resuming as one call each: from a spec to a registered model."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ddpmctl.config import Config, for_device
from ddpmctl.data import default_sample_size, find_loader, load_dataset
from ddpmctl.distributed.process_group import ProcessGroup, join_process_group
from ddpmctl.distributed.store import store_current_run
from ddpmctl.errors import CheckpointError, DataError, DdpmctlError, Interrupted, Setting, UsageError
from ddpmctl.model_images import same_images
from ddpmctl.registry import Checkpoint, Metric, ModelWriter, Registry
from ddpmctl.registry.manifest import FINISHED
from ddpmctl.training.restarts import EarlierRun
from ddpmctl.training.run_spec import RunSpec, resume_command

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset
    from ddpmctl.training.callbacks import Callback
    from ddpmctl.training.clock import RunningClock
    from ddpmctl.training.execution import Execution
    from ddpmctl.training.state import StopReason
    from ddpmctl.training.trainer import Trainer

log = logging.getLogger("ddpmctl")

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The result of a training.

    Attributes:
        stopped: ``done``, ``early`` (patience was used up) or ``interrupted``; a run that had nothing left is ``done``.
        steps: done so far, of ``planned_steps``.
        seconds: spent training; 0 where nothing was trained.
        best: the metric of the best checkpoint; None where no epoch was validated.
        constant_mse: what the best constant prediction would reach; None where nothing was trained.
        lr: peak learning rate at the end; None where nothing was trained.
        ends_early: whether the run ended before the learning rate had decayed to zero.
    """

    name: str
    registry: Registry
    stopped: "StopReason"
    steps: int
    planned_steps: int
    seconds: float = 0.0
    best: Metric | None = None
    constant_mse: float | None = None
    lr: float | None = None
    ends_early: bool = False

    @property
    def has_learned(self) -> bool:
        """Whether the best MSE is below that of a constant prediction."""
        return self.constant_mse is None or (self.best is not None and self.best.value < self.constant_mse)

    @property
    def checkpoint(self) -> Checkpoint:
        """The best checkpoint, as `Engine.load` takes it by name."""
        return self.registry.open(self.name)


def train(
    spec: RunSpec | None = None,
    *,
    callbacks: "Iterable[Callback]" = (),
    should_stop: Stop = lambda: False,
    registry: Registry | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train a new model and register it.

    Args:
        spec: what to train; ``settings`` are fields of `RunSpec` that replace its own.
        callbacks: called in the main process.
        should_stop: asked after each step whether to save and return.
        registry: where models live; the user's own by default.
    """
    given = {field for field in settings if field not in RunSpec.__dataclass_fields__}
    if given:
        raise UsageError(f"there is no setting '{min(given)}'", "the settings are the fields of RunSpec")
    spec = replace(spec or RunSpec(), **settings).checked()
    spec.resolve_config()
    find_loader(spec.dataset)
    registry = registry or Registry()
    with join_process_group() as group:
        earlier = group.broadcast(lambda: EarlierRun.find(registry))
        if earlier.is_begun:
            log.info("restarted by torchrun: resuming '%s'", earlier.name)
            overrides = {"data_dir": spec.data_dir, "device": spec.device, "checkpoint_every": spec.checkpoint_every}
            given_overrides = {name: value for name, value in overrides.items() if value not in (None, "auto")}
            return _Session(group, registry, callbacks, should_stop, earlier).resume(earlier.name, given_overrides)
        return _Session(group, registry, callbacks, should_stop, earlier).begin(spec)


def resume(
    run: str = "latest",
    /,
    *,
    callbacks: "Iterable[Callback]" = (),
    should_stop: Stop = lambda: False,
    registry: Registry | None = None,
    **overrides: Any,
) -> TrainedModel:
    """Continue a training that was interrupted, or give it more epochs.

    Args:
        run: its name; ``latest`` for the one that was last worked on.
        overrides: fields of `RunSpec`: ``epochs`` so many more, ``device``, ``precision``, ``accumulate``, ``compile``,
            ``data_dir`` and ``checkpoint_every``; others must be those of the run.
    """
    registry = registry or Registry()
    given = {setting: value for setting, value in overrides.items() if value is not None}
    with join_process_group() as group:
        earlier = group.broadcast(lambda: EarlierRun.find(registry))
        return _Session(group, registry, callbacks, should_stop, earlier).resume(run, given)


class _Session:
    """One process's part in a training, from the spec to the result."""

    def __init__(
        self,
        group: ProcessGroup,
        registry: Registry,
        callbacks: "Iterable[Callback]",
        should_stop: Stop,
        earlier: EarlierRun,
    ) -> None:
        from ddpmctl.threads import configure_threads

        configure_threads()
        self.group = group
        self.registry = registry
        self.callbacks = [each for each in callbacks if group.is_main_process or each.every_process]
        self.should_stop = should_stop
        self.earlier = earlier

    def begin(self, spec: RunSpec) -> TrainedModel:
        """Train from random weights."""
        stem = f"{spec.dataset.partition(':')[0]}-{spec.preset}"
        wanted = self.earlier.name or None if spec.name is None else spec.name
        with ExitStack() as stack:
            writer = self.group.on_rank0(
                lambda: stack.enter_context(self.registry.writer(wanted, stem, replace=spec.force))
            )
            name = self.group.broadcast(lambda: writer.name if writer else "")
            from ddpmctl.training.records import new_id

            execution, reason = self._execution(spec)
            config = spec.resolve_config()
            if spec.sample_size is None and spec.config is None:
                side = default_sample_size(config.model, spec.dataset, execution.device.type, execution.precision)
                config = replace(config, model=replace(config.model, sample_size=side))
            data = load_dataset(
                spec.dataset, config.model.sample_size, spec.data_dir, fit=spec.fit or "", channels=spec.channels,
                notice=log.warning,
            )  # fmt: skip
            self._check_agreement(execution, data)
            config = self._config_for(config, spec, data, execution.device.type)
            identity = self.earlier.identity or new_id()
            if self.group.is_main_process:
                store_current_run(name=name, identity=identity)
            clock = self._clock(stack)
            self._set_up(
                name=name, resumed=False, spec=spec, config=config, execution=execution,
                precision_reason=reason, seconds_left=spec.max_time, clock=clock,
            )  # fmt: skip
            trainer = self._trainer(config, data, spec, execution, writer, clock, identity)
            return self._run(name, trainer, trainer.train)

    def resume(self, reference: str, overrides: Mapping[str, Any]) -> TrainedModel:
        """Continue from the last checkpoint of a run."""
        reference = self.earlier.name or reference
        opened = self.group.on_rank0(lambda: self.registry.resume(reference))
        with ExitStack() as stack:
            if opened:
                stack.enter_context(opened[0])
            writer = opened[0] if opened else None
            last = self.group.broadcast(lambda: opened[1] if opened else None)
            assert last is not None, "rank 0 opened it"
            manifest, name = last.manifest, last.name
            # After a restart the overrides were checked when this job first resumed the run.
            stored = RunSpec.of(last)
            spec = replace(stored, **overrides) if self.earlier.name else stored.overridden(overrides)
            spec = replace(spec, max_steps=None, epochs=stored.epochs)
            more_epochs = None if self.earlier.has_extended(manifest.run.segments) else overrides.get("epochs")
            # A checkpoint of the original scripts was not trained here: there is nothing to finish or to extend.
            if manifest.run.planned_steps and manifest.run.stopped in FINISHED and not more_epochs:
                log.info(
                    "'%s' is trained to its end, %s steps; it can be given more epochs", name, f"{manifest.run.step:,}"
                )
                return TrainedModel(
                    name=name, registry=self.registry, stopped="done", steps=manifest.run.step,
                    planned_steps=manifest.run.planned_steps, best=manifest.best,
                )  # fmt: skip
            if manifest.resume is None:
                raise CheckpointError(
                    f"'{name}' cannot be resumed: the state of its training was not kept", "ddpmctl train"
                )
            from ddpmctl.training.records import inexactness

            # The index of rank 0's own GPU does not apply to the others.
            stored_device = stored.device if self.group.size == 1 else stored.device.partition(":")[0]
            spec = replace(spec, device=overrides.get("device") or stored_device)
            execution, reason = self._execution(spec)
            data = self._same_images(last, spec)
            self._check_agreement(execution, data)
            for difference in inexactness(manifest.run, spec, execution):
                log.warning("from here on not bit for bit what an uninterrupted run gives: %s", difference)
            if self.group.is_main_process:
                since = self.earlier.since or manifest.run.segments[-1].created
                store_current_run(name=name, identity=manifest.run.id, since=since)
            limit = None if more_epochs else spec.max_time
            left = None if limit is None else max(1.0, limit - manifest.run.seconds)
            clock = self._clock(stack)
            self._set_up(
                name=name, resumed=True, spec=spec, config=manifest.config, execution=execution,
                precision_reason=reason, seconds_left=left, clock=clock,
            )  # fmt: skip
            trainer = self._trainer(manifest.config, data, spec, execution, writer, clock, manifest.run.id)
            best_is_lost = self.group.broadcast(lambda: self._best_is_lost(name))
            return self._run(name, trainer, lambda: trainer.train(last, more_epochs, best_is_lost=best_is_lost))

    def _execution(self, spec: RunSpec) -> "tuple[Execution, str]":
        """What the run computes on, and why in that precision."""
        from ddpmctl.devices import choose_device, choose_precision
        from ddpmctl.training.execution import Execution

        device = choose_device(spec.device)
        precision, reason = choose_precision(spec.precision, device)
        return Execution(device=device, precision=precision, group=self.group), reason

    def _config_for(self, config: Config, spec: RunSpec, data: "Dataset", kind: str) -> Config:
        """The settings for the dataset and the kind of device."""
        usual = fit_to_dataset(config, data)
        # A learning rate belongs to a batch: who gives one of them gets the other of the preset, on every device.
        if spec.config is not None or spec.batch_size or spec.lr:
            return usual
        config = for_device(usual, spec.resolve_preset().by_device, kind, len(data))
        if config != usual:
            batch = f"{config.training.batch_size:,}"
            log.info("batches of %s images, as '%s' has on %s unless a batch size is given", batch, spec.preset, kind)
        return config

    def _same_images(self, last: Checkpoint, spec: RunSpec) -> "Dataset":
        data = same_images(last.manifest, spec.data_dir, notice=log.warning)
        if data.digest() != last.manifest.dataset.digest:
            raise DataError(
                f"'{last.name}' was trained on other images than {last.manifest.dataset.name} has now",
                Setting("data_dir"),
                " with the folder that it was begun with, or train another: ddpmctl train",
            )
        return data

    def _check_agreement(self, execution: "Execution", data: "Dataset") -> None:
        """Check that all processes train on the same images by the same arithmetic."""
        if self.group.size > 1:
            from ddpmctl.devices import describe_device
            from ddpmctl.versions import versions

            # Each takes the optimizer steps by itself: other chips or threads would round otherwise.
            device = execution.device
            kind = describe_device(device).replace(str(device), device.type)
            self.group.check_equal(
                images=data.digest(), device=kind, precision=execution.precision, versions=versions()
            )

    def _clock(self, stack: ExitStack) -> "RunningClock":
        """A clock for the run: a laptop that sleeps must not use up a time limit."""
        from ddpmctl.training.clock import RunningClock

        return stack.enter_context(RunningClock())

    def _set_up(self, **info: Any) -> None:
        from ddpmctl.training.callbacks import CallbackList, RunInfo

        CallbackList(self.callbacks).on_setup(RunInfo(**info))

    def _trainer(
        self,
        config: Config,
        data: "Dataset",
        spec: RunSpec,
        execution: "Execution",
        writer: ModelWriter | None,
        clock: "RunningClock",
        identity: str,
    ) -> "Trainer":
        from ddpmctl.training.callbacks import CallbackList
        from ddpmctl.training.trainer import Trainer

        callbacks = CallbackList(self.callbacks)
        trainer = Trainer(config, data, spec, execution, writer, callbacks=callbacks, clock=clock, identity=identity)
        trainer.should_stop = self.should_stop
        return trainer

    def _best_is_lost(self, name: str) -> bool:
        """Whether the best checkpoint is damaged; there may also be none yet."""
        if name not in self.registry.names():
            return False
        try:
            self.registry.open(name).verify()
        except CheckpointError as error:
            log.warning("%s: the best is searched for again from here", error.message)
            return True
        return False

    def _run(self, name: str, trainer: "Trainer", run: Callable[[], "StopReason"]) -> TrainedModel:
        """Train, with errors that say how to resume."""
        checkpoints = trainer.checkpoints
        try:
            stopped = run()
        except KeyboardInterrupt:
            if checkpoints.saved is None:
                raise
            raise Interrupted("stopped at once; the last checkpoint is kept", resume_command(name)) from None
        except OSError as error:
            hint = ("once that is solved: ", resume_command(name)) if checkpoints.saved else ()
            raise DdpmctlError(f"'{name}' cannot be saved: {error.strerror or error}", *hint) from error
        except DdpmctlError:
            if checkpoints.has_best:
                log.info("the best so far is kept as '%s'", name)
            raise
        state = trainer.state
        return TrainedModel(
            name=name,
            registry=self.registry,
            stopped=stopped,
            steps=state.step,
            planned_steps=state.plan.steps,
            seconds=state.seconds,
            best=state.best,
            constant_mse=trainer.validator.constant_mse(),
            lr=state.plan.peak_lr,
            ends_early=stopped == "done" and state.plan.ends_early,
        )


def fit_to_dataset(config: Config, data: "Dataset") -> Config:
    """The settings with as many classes and channels as the dataset has."""
    try:
        model = replace(config.model, num_classes=len(data.classes), channels=int(data.images.shape[1]))
    except ValueError as error:
        raise UsageError(
            f"the network does not fit the dataset {data.name}: {error}", Setting("preset", "standard")
        ) from error
    return replace(config, model=model)
