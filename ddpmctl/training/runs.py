"""Training and resuming as one call each: from a spec to a registered model."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ddpmctl.config import Config, DistillationConfig, for_device
from ddpmctl.data import default_sample_size, find_loader, load_dataset
from ddpmctl.distributed.process_group import ProcessGroup, join_process_group
from ddpmctl.distributed.store import store_current_run
from ddpmctl.errors import CheckpointError, DataError, DdpmctlError, Interrupted, Setting, UsageError
from ddpmctl.model_images import load_training_data
from ddpmctl.registry import Checkpoint, Metric, ModelWriter, Registry
from ddpmctl.registry.manifest import FINISHED
from ddpmctl.threads import configure_threads
from ddpmctl.training.callbacks import Callback, CallbackList, RunInfo
from ddpmctl.training.restarts import EarlierRun
from ddpmctl.training.run_spec import RunSpec, resume_command
from ddpmctl.training.teachers import ADJUSTABLE, open_teacher, student_spec

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset
    from ddpmctl.training.execution import Execution
    from ddpmctl.training.state import StopReason

log = logging.getLogger("ddpmctl")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The result of a training run.

    Attributes:
        stopped: ``done``, ``early`` (patience exhausted) or ``interrupted``; a run that had nothing left is ``done``.
        steps: done so far, of ``planned_steps``.
        seconds: spent training; 0 if there was nothing left to train.
        best: the metric of the best checkpoint; None if no epoch was validated.
        constant_mse: what the best constant prediction would reach; None if there was nothing left to train.
        lr: peak learning rate at the end; None if there was nothing left to train.
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
    callbacks: Iterable[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    registry: Registry | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train a new model and register it.

    Args:
        spec: what to train; ``settings`` are fields of `RunSpec` that replace its own.
        callbacks: called in the main process.
        should_stop: called after each step; True saves and returns.
        registry: where models are stored; the user's own by default.
    """
    if unknown := settings.keys() - RunSpec.__dataclass_fields__.keys():
        raise UsageError(f"unknown setting '{min(unknown)}'", "the settings are the fields of RunSpec")
    spec = replace(spec or RunSpec(), **settings).checked()
    spec.resolve_config()
    find_loader(spec.dataset)
    with join_process_group() as group:
        session = _Session(registry or Registry(), group, callbacks, should_stop)
        if not session.earlier.is_saved:
            return session.begin(spec)
        log.info("restarted by torchrun: resuming '%s'", session.earlier.name)
        overrides = {"data_dir": spec.data_dir, "device": spec.device, "checkpoint_every": spec.checkpoint_every}
        given = {name: value for name, value in overrides.items() if value not in (None, "auto")}
        return session.resume(session.earlier.name, given)


def resume(
    run: str = "latest",
    /,
    *,
    callbacks: Iterable[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    registry: Registry | None = None,
    **overrides: Any,
) -> TrainedModel:
    """Resume an interrupted run, or train a finished one for more epochs.

    Args:
        run: its name; ``latest`` for the most recent run.
        overrides: fields of `RunSpec`: ``epochs`` (additional epochs), ``device``, ``precision``, ``accumulate``,
            ``compile``, ``data_dir`` and ``checkpoint_every``; others must equal the stored values.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    with join_process_group() as group:
        return _Session(registry or Registry(), group, callbacks, should_stop).resume(run, given)


def distill(
    teacher: str | None = None,
    steps: int = 4,
    *,
    callbacks: Iterable[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    registry: Registry | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train a student that samples in ``steps`` DDIM steps what a model samples in many.

    Args:
        teacher: a name; the newest when None.
        steps: 1, 2 or 4.
        settings: fields of `RunSpec` that replace those of `student_spec`, such as ``name`` and ``max_time``; the
            network, the diffusion process and the images are the teacher's.
    """
    checkpoint = (registry or Registry()).open(teacher)
    if fixed := settings.keys() - ADJUSTABLE:
        raise UsageError(
            f"a student cannot change the setting '{min(fixed)}'", f"one of: {', '.join(sorted(ADJUSTABLE))}"
        )
    spec = replace(student_spec(checkpoint, steps), **settings)
    return train(spec, callbacks=callbacks, should_stop=should_stop, registry=registry)


class _Session:
    """A training session in one process, from the spec to the result."""

    def __init__(
        self, registry: Registry, group: ProcessGroup, callbacks: Iterable[Callback], should_stop: Callable[[], bool]
    ) -> None:
        configure_threads()
        self.registry = registry
        self.group = group
        self.callbacks = CallbackList([each for each in callbacks if group.is_main_process or each.every_process])
        self.should_stop = should_stop
        self.earlier = group.broadcast(lambda: EarlierRun.find(registry))

    def begin(self, spec: RunSpec) -> TrainedModel:
        """Train from random weights."""
        student = spec.config and spec.config.distillation
        stem = (
            f"{student.teacher}-{student.steps}step" if student else f"{spec.dataset.partition(':')[0]}-{spec.preset}"
        )
        name_or_none = self.earlier.name or None if spec.name is None else spec.name
        with ExitStack() as stack:
            writer = self.group.on_rank0(
                lambda: stack.enter_context(self.registry.writer(name_or_none, stem, replace=spec.force))
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
            if student:
                check_images(self._teacher(student), data)
            identity = self.earlier.identity or new_id()
            if self.group.is_main_process:
                store_current_run(name=name, identity=identity)
            info = RunInfo(
                name=name, resumed=False, spec=spec, config=_for_device(config, spec, data, execution.device.type),
                execution=execution, precision_reason=reason, seconds_left=spec.max_time, clock=_clock(stack),
            )  # fmt: skip
            return self._train(info, data, writer, identity)

    def resume(self, reference: str, overrides: Mapping[str, Any]) -> TrainedModel:
        """Continue from the last checkpoint of a run."""
        opened = self.group.on_rank0(lambda: self.registry.resume(self.earlier.name or reference))
        with ExitStack() as stack:
            writer = stack.enter_context(opened[0]) if opened else None
            last = self.group.broadcast(lambda: opened[1] if opened else None)
            assert last is not None, "rank 0 opened it"
            manifest, run = last.manifest, last.manifest.run
            # After a restart the overrides were checked when this job first resumed the run.
            stored = RunSpec.of(last)
            spec = replace(stored, **overrides) if self.earlier.name else stored.overridden(overrides)
            more_epochs = None if self.earlier.has_extended(run.segments) else overrides.get("epochs")
            # A checkpoint of the original scripts was not trained here: there is nothing to finish or to extend.
            if run.planned_steps and run.stopped in FINISHED and not more_epochs:
                log.info("'%s' has finished training (%s steps); more epochs can be added", last.name, f"{run.step:,}")
                return TrainedModel(
                    name=last.name, registry=self.registry, stopped="done", steps=run.step,
                    planned_steps=run.planned_steps, best=manifest.best,
                )  # fmt: skip
            if manifest.resume is None:
                raise CheckpointError(
                    f"'{last.name}' cannot be resumed: its training state was not saved", "ddpmctl train"
                )
            # The index of rank 0's own GPU does not apply to the others.
            device = stored.device if self.group.size == 1 else stored.device.partition(":")[0]
            spec = replace(spec, device=overrides.get("device") or device, epochs=stored.epochs)
            execution, reason = self._execution(spec)
            data = _same_images(last, spec)
            self._check_agreement(execution, data)
            if self.group.is_main_process:
                store_current_run(name=last.name, identity=run.id, since=self.earlier.since or run.segments[-1].created)
            left = None if more_epochs or not spec.max_time else max(1.0, spec.max_time - run.seconds)
            info = RunInfo(
                name=last.name, resumed=True, spec=spec, config=manifest.config, execution=execution,
                precision_reason=reason, seconds_left=left, clock=_clock(stack),
            )  # fmt: skip
            return self._train(info, data, writer, run.id, last, more_epochs)

    def _train(
        self,
        info: RunInfo,
        data: "Dataset",
        writer: ModelWriter | None,
        identity: str,
        last: Checkpoint | None = None,
        more_epochs: int | None = None,
    ) -> TrainedModel:
        """Run the trainer, with errors that say how to resume."""
        from ddpmctl.training.records import exactness_problems
        from ddpmctl.training.trainer import Trainer

        for difference in exactness_problems(last.manifest.run, info.spec, info.execution) if last else ():
            log.warning("results will not be bit-exact from here on: %s", difference)
        self.callbacks.on_setup(info)
        trainer = Trainer(
            info.config, data, info.spec, info.execution, writer,
            callbacks=self.callbacks, clock=info.clock, identity=identity,
        )  # fmt: skip
        if student := info.config.distillation:
            trainer.train_step.distill(self.group.broadcast(lambda: self._teacher(student).weights()))
        trainer.should_stop = self.should_stop
        damaged = last is not None and self.group.broadcast(lambda: self._best_is_damaged(info.name))
        checkpoints = trainer.checkpoints
        try:
            stopped = trainer.train(last, more_epochs, best_is_damaged=damaged)
        except KeyboardInterrupt:
            if checkpoints.saved is None:
                raise
            raise Interrupted(
                "stopped immediately; the last checkpoint was saved earlier", resume_command(info.name)
            ) from None
        except OSError as error:
            hint = ("after fixing this, resume: ", resume_command(info.name)) if checkpoints.saved else ()
            raise DdpmctlError(f"'{info.name}' cannot be saved: {error.strerror or error}", *hint) from error
        except DdpmctlError:
            if checkpoints.has_best:
                log.info("the best checkpoint so far is saved as '%s'", info.name)
            raise
        state = trainer.state
        return TrainedModel(
            name=info.name,
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

    def _teacher(self, student: DistillationConfig) -> Checkpoint:
        return open_teacher(self.registry, student)

    def _execution(self, spec: RunSpec) -> "tuple[Execution, str]":
        """What the run computes on, and why in that precision."""
        from ddpmctl.devices import choose_device, choose_precision
        from ddpmctl.training.execution import Execution

        device = choose_device(spec.device)
        precision, reason = choose_precision(spec.precision, device)
        return Execution(device=device, precision=precision, group=self.group), reason

    def _check_agreement(self, execution: "Execution", data: "Dataset") -> None:
        """Check that all processes train on the same images by the same arithmetic."""
        if self.group.size > 1:
            from ddpmctl.devices import describe_device
            from ddpmctl.versions import versions

            # Each takes the optimizer steps by itself: different chips or thread counts would round differently.
            device = execution.device
            kind = describe_device(device).replace(str(device), device.type)
            self.group.check_equal(
                images=data.digest(), device=kind, precision=execution.precision, versions=versions()
            )

    def _best_is_damaged(self, name: str) -> bool:
        """Whether the best checkpoint is damaged; there may also be none yet."""
        if name not in self.registry.names():
            return False
        try:
            self.registry.open(name).verify()
        except CheckpointError as error:
            log.warning("%s: selecting a new best checkpoint from here on", error.message)
            return True
        return False


def _clock(stack: ExitStack) -> Callable[[], float]:
    """A clock for the run: a laptop that sleeps must not use up a time limit."""
    from ddpmctl.training.clock import RunningClock

    return stack.enter_context(RunningClock())


def _for_device(config: Config, spec: RunSpec, data: "Dataset", kind: str) -> Config:
    """The settings for the dataset and the kind of device."""
    usual = fit_to_dataset(config, data)
    # A learning rate belongs to a batch size: if one of them is given, the preset's other one is used, on every device.
    if spec.config is not None or spec.batch_size or spec.lr:
        return usual
    config = for_device(usual, spec.resolve_preset().by_device, kind, len(data))
    if config != usual:
        batch = f"{config.training.batch_size:,}"
        log.info("batch size %s (preset '%s' on %s)", batch, spec.preset, kind)
    return config


def _same_images(last: Checkpoint, spec: RunSpec) -> "Dataset":
    """The images that the run was trained on so far."""
    data = load_training_data(last.manifest, spec.data_dir, notice=log.warning)
    check_images(last, data)
    return data


def check_images(model: Checkpoint, data: "Dataset") -> None:
    """Raise a `DataError` unless these are the images that a model was trained on."""
    dataset = model.manifest.dataset
    if data.digest() != dataset.digest:
        raise DataError(
            f"the images of {dataset.name} have changed since '{model.name}' was trained",
            "pass the original ",
            Setting("data_dir"),
            ", or train a new model: ddpmctl train",
        )


def fit_to_dataset(config: Config, data: "Dataset") -> Config:
    """The settings with as many classes and channels as the dataset has."""
    try:
        model = replace(config.model, num_classes=len(data.classes), channels=int(data.images.shape[1]))
    except ValueError as error:
        raise UsageError(
            f"the network does not support the dataset {data.name}: {error}", Setting("preset", "standard")
        ) from error
    return replace(config, model=model)
