"""What the commands that train have in common: one run, from checked settings to a registered model."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ddpmctl.cli.formatting import words
from ddpmctl.cli.orders import Order, Resumption, Watch, see_that_it_keeps
from ddpmctl.cli.output import Output
from ddpmctl.cli.restarts import Earlier
from ddpmctl.cli.training_display import Display
from ddpmctl.config import Config, for_device
from ddpmctl.data import default_sample_size, find_loader, load_dataset
from ddpmctl.distributed.process_group import ProcessGroup, join_process_group
from ddpmctl.distributed.store import store_current_run
from ddpmctl.errors import (
    CheckpointError,
    DataError,
    DdpmctlError,
    HungUp,
    Interrupted,
    Terminated,
    UsageError,
    ending_signals,
)
from ddpmctl.model_images import same_images
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.registry.manifest import FINISHED
from ddpmctl.training.saving import HALF_A_MINUTE

if TYPE_CHECKING:
    import torch

    from ddpmctl.data.dataset import Dataset
    from ddpmctl.training.clock import RunningClock
    from ddpmctl.training.run import Observer
    from ddpmctl.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a training.

    Attributes:
        name: of the model.
        has_learned: whether its MSE is below that of a constant prediction.
        lr: peak learning rate at the end; None where nothing was trained.
    """

    name: str
    has_learned: bool = True
    lr: float | None = None


def carry_out(out: Output, order: Order) -> Trained:
    """Train a new model.

    Raises:
        DdpmctlError: whatever stood in the way; `Interrupted` after Ctrl-C.
    """
    find_loader(order.dataset)
    with join_process_group() as group:
        earlier = group.broadcast(Earlier.find)
        if earlier.is_begun:
            out.note(f"started again by torchrun: going on with '{earlier.name}'")
            return _go_on(out, group, earlier.resumption(order), earlier)
        return _begin(out, group, order, earlier)


def _begin(out: Output, group: ProcessGroup, order: Order, earlier: Earlier) -> Trained:
    """Train from random weights."""
    stem = f"{order.dataset.partition(':')[0]}-{order.preset}"
    wanted = earlier.name or None if order.name is None else order.name
    with ExitStack() as stack:
        writer = group.on_rank0(lambda: stack.enter_context(Registry().writer(wanted, stem, replace=order.force)))
        name = group.broadcast(lambda: writer.name if writer else "")
        # From here on torch is needed.
        from ddpmctl.devices import choose_device, choose_precision
        from ddpmctl.training.records import new_id
        from ddpmctl.training.run import Run
        from ddpmctl.training.trainer import Trainer

        device = choose_device(order.device)
        precision, why = choose_precision(order.precision, device)
        if order.any_sample_size:
            order = _at_sample_size(order, device.type, precision)
        data = load_dataset(
            order.dataset, order.config.model.sample_size, order.data_dir, fit=order.fit, channels=order.channels,
            notice=out.warn,
        )  # fmt: skip
        _see_that_all_agree(group, device, precision, data)
        config = _settings(out, order, data, device.type)
        run = Run(
            preset=order.preset,
            dataset=order.dataset,
            device=device,
            precision=precision,
            seed=order.seed,
            fit=order.fit,
            max_time=order.max_time,
            max_steps=order.max_steps,
            within_epochs=order.within_epochs,
            accumulate=order.accumulate,
            compiled=order.compiled,
            processes=group.size,
        )
        display = Display(
            out,
            name,
            config.training.patience,
            f"on {device} in {precision} ({why}){_shared_out(group)}",
            order.watch.show,
            order.max_time,
        )
        display.suggest_quick = device.type == "cpu" and order.preset != "quick"
        identity = earlier.identity or new_id()
        if group.is_main_process:
            store_current_run(name=name, identity=identity)
        trainer = Trainer(
            config, data, run, writer, _observer(out, group, display, order.watch),
            clock=_clock(stack, display), every=order.every or HALF_A_MINUTE, group=group, identity=identity,
        )  # fmt: skip
        return _run(out, display, trainer, name)


def _at_sample_size(order: Order, kind: str, precision: str) -> Order:
    """The order with the side at which a network computes on a kind of device."""
    model = order.config.model
    side = default_sample_size(model, order.dataset, kind, precision)
    return replace(order, config=replace(order.config, model=replace(model, sample_size=side)))


def _settings(out: Output, order: Order, data: "Dataset", kind: str) -> Config:
    """The settings for the data set and the kind of device; a note says where the preset has others for it."""
    usual = fit_to(order.config, data)
    config = for_device(usual, order.by_device, kind, len(data))
    if config != usual:
        batch = config.training.batch_size
        out.note(f"batches of {batch:,} images, as '{order.preset}' has on {kind}; --batch-size gives others")
    return config


def _unchanged_images(out: Output, last: Checkpoint, data_dir: Path | None) -> "Dataset":
    """The images that a run was trained on so far.

    Raises:
        DataError: where the data set has other images now.
    """
    data = same_images(last.manifest, data_dir, notice=out.warn)
    if data.digest() != last.manifest.dataset.digest:
        raise DataError(
            f"'{last.name}' was trained on other images than {last.manifest.dataset.name} has now",
            "--data-dir with the folder that it was begun with, or begin another: ddpmctl train",
        )
    return data


def go_on(out: Output, asked: Resumption) -> Trained:
    """Take a run up where it was left; says so where there is nothing left to do.

    Raises:
        DdpmctlError: whatever stood in the way; `Interrupted` after Ctrl-C.
    """
    with join_process_group() as group:
        return _go_on(out, group, asked, group.broadcast(Earlier.find))


def _go_on(out: Output, group: ProcessGroup, asked: Resumption, earlier: Earlier) -> Trained:
    reference = earlier.name or asked.reference
    opened = group.on_rank0(lambda: Registry().resume(reference))
    with ExitStack() as stack:
        if opened:
            stack.enter_context(opened[0])
        writer = opened[0] if opened else None
        last = group.broadcast(lambda: opened[1] if opened else None)
        assert last is not None, "the first process opened it"
        manifest, name = last.manifest, last.name
        more_epochs = None if earlier.has_extended(manifest.run.segments) else asked.more_epochs
        if not earlier.name:  # else they were those of the run when this job took it up
            see_that_it_keeps(last, asked.keeps)
        # A checkpoint of the original scripts was not trained here: there is nothing to be finished or extended.
        if manifest.run.planned_steps and manifest.run.stopped in FINISHED and not more_epochs:
            out.note(f"'{name}' is trained to its end, {manifest.run.step:,} steps; --epochs N gives it N more")
            return Trained(name)
        if manifest.resume is None:
            raise CheckpointError(
                f"'{name}' cannot be resumed: the state of its training was not kept", "ddpmctl train"
            )
        from ddpmctl.devices import choose_device, choose_precision
        from ddpmctl.training.records import differences
        from ddpmctl.training.run import Run
        from ddpmctl.training.trainer import Trainer

        # The first process's own GPU means nothing to the others.
        before = manifest.resume.device if group.size == 1 else manifest.resume.device.partition(":")[0]
        device = choose_device(asked.device or before)
        precision, _ = choose_precision(asked.precision or manifest.run.precision, device)
        data = _unchanged_images(out, last, asked.data_dir)
        _see_that_all_agree(group, device, precision, data)
        run = Run(
            preset=manifest.preset,
            dataset=manifest.dataset.name,
            device=device,
            precision=precision,
            seed=manifest.run.seed,
            fit=manifest.dataset.fit,
            max_time=manifest.run.max_time or None,
            within_epochs=manifest.resume.within_epochs,
            accumulate=manifest.run.accumulate if asked.accumulate is None else asked.accumulate,
            compiled=manifest.run.compiled if asked.compiled is None else asked.compiled,
            processes=group.size,
        )
        for difference in differences(manifest.run, run):
            out.warn(f"from here on not bit for bit what an uncut run gives: {difference}")
        if group.is_main_process:
            store_current_run(
                name=name, identity=manifest.run.id, since=earlier.since or manifest.run.segments[-1].created
            )
        where = f"on {device} in {precision}{_shared_out(group)}"
        left = None if more_epochs or not run.max_time else max(1.0, run.max_time - manifest.run.seconds)
        display = Display(out, name, manifest.config.training.patience, where, asked.watch.show, left)
        trainer = Trainer(
            manifest.config, data, run, writer, _observer(out, group, display, asked.watch),
            clock=_clock(stack, display), every=asked.every or HALF_A_MINUTE, resumed=last, more_epochs=more_epochs,
            best_is_lost=group.broadcast(lambda: _best_is_lost(out, name)), group=group,
        )  # fmt: skip
        return _run(out, display, trainer, name)


def _clock(stack: ExitStack, display: Display) -> "RunningClock":
    """The clock of a run, which goes until the stack is left: a laptop that sleeps must not use up a time limit."""
    from ddpmctl.training.clock import RunningClock

    display.clock = stack.enter_context(RunningClock())
    return display.clock


def _shared_out(group: ProcessGroup) -> str:
    """By how many processes, in words; nothing for one."""
    return f", by {group.size} processes" if group.size > 1 else ""


def _see_that_all_agree(group: ProcessGroup, device: "torch.device", precision: str, data: "Dataset") -> None:
    """See that the processes learn the same from the same.

    Raises:
        DataError: where they do not.
    """
    if group.size > 1:
        from ddpmctl.devices import describe_device
        from ddpmctl.versions import versions

        # Each takes the steps of the optimizer by itself: other chips or threads would round otherwise.
        kind = describe_device(device).replace(str(device), device.type)
        group.check_equal(images=data.digest(), device=kind, precision=precision, versions=versions())


def _observer(out: Output, group: ProcessGroup, display: Display, watch: Watch) -> "Observer":
    """The display, and whoever else is to be told of the run; in the first process alone."""
    from ddpmctl.training.run import Together

    if not group.is_main_process:
        return Together()
    if not watch.log:
        return display
    from ddpmctl.training.tensorboard import TensorBoard

    folder = Registry().home / "tensorboard"
    out.note(f"watch it: tensorboard --logdir '{folder}'")
    return Together(display, TensorBoard(folder / display.name))


def _best_is_lost(out: Output, name: str) -> bool:
    """Whether the best commit of a run is damaged, which is said; there may also be none yet."""
    registry = Registry()
    if name not in registry.names():
        return False
    try:
        registry.open(name).verify()
    except CheckpointError as error:
        out.warn(f"{error.message}: the best is sought anew from here")
        return True
    return False


def _run(out: Output, display: Display, trainer: "Trainer", name: str) -> Trained:
    """Train to one end or another, and say which.

    Raises:
        DdpmctlError: `Interrupted` or `Terminated` where a signal ended it.
    """
    with graceful_end(out, lambda: trainer.commits.saved is not None) as ended_by, display.showing():
        trainer.should_stop = lambda: ended_by() is not None
        try:
            stopped = trainer.train()
        except KeyboardInterrupt:
            if trainer.commits.saved is None:
                raise
            raise Interrupted("stopped at once; the last commit is kept", f"ddpmctl train --resume {name}") from None
        except OSError as error:
            way_on = f"once that is mended: ddpmctl train --resume {name}" if trainer.commits.saved else None
            raise DdpmctlError(f"'{name}' cannot be saved: {error.strerror or error}", way_on) from error
        except DdpmctlError:
            if trainer.commits.has_best:
                out.note(f"the best so far is kept as '{name}'")
            raise
    state, best = trainer.state, trainer.state.best
    figure = f"{best.title} {best.value:.4f} of epoch {best.epoch}" if best else "no epoch judged yet"
    if stopped == "interrupted":
        kind, word = _ending(trainer.group, ended_by())
        raise kind(
            f"{word} after {state.step:,} of {state.plan.steps:,} steps; all is kept as '{name}' ({figure})",
            f"ddpmctl train --resume {name}",
        )
    if stopped == "early":
        out.note(f"stopped early: {trainer.config.training.patience} epochs without a better MSE")
    if stopped == "done" and state.plan.ends_early:
        out.note("the time was over before the learning rate had decayed to zero: the machine stood still or was slow")
    out.note(f"done in {words(state.seconds)} of training; best {figure}")
    constant = trainer.constant_mse()
    has_learned = best is not None and best.value < constant
    if not has_learned:
        out.warn(f"'{name}' has learned nothing: a constant prediction has an MSE of {constant:.4f}")
    return Trained(name, has_learned, state.plan.peak_lr)


def _ending(group: ProcessGroup, signum: int | None) -> tuple[type[DdpmctlError], str]:
    """How a run ends that a signal has stopped, in whichever process: the error and the word for it."""
    by_sigterm, by_sighup = group.any_rank(signum == signal.SIGTERM, signum == getattr(signal, "SIGHUP", -1))
    if by_sigterm:
        return Terminated, "terminated"
    return (HungUp, "terminal closed") if by_sighup else (Interrupted, "interrupted")


def fit_to(config: Config, data: "Dataset") -> Config:
    """The settings with as many classes and channels as the data has.

    Raises:
        UsageError: where the network cannot have them.
    """
    try:
        model = replace(config.model, num_classes=len(data.classes), channels=int(data.images.shape[1]))
    except ValueError as error:
        raise UsageError(f"the network does not fit the dataset {data.name}: {error}", "--preset standard") from error
    return replace(config, model=model)


@contextmanager
def graceful_end(out: Output, can_save: Callable[[], bool]) -> Iterator[Callable[[], int | None]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a wish to save and end, which the yielded function returns.

    A second Ctrl-C stops at once; so does the first signal while there is nothing to save yet. A SIGHUP that was
    ignored at the start, as under nohup, stays ignored.

    Args:
        out: says that the signal has arrived.
        can_save: whether there is something to save.
    """
    wish: int | None = None
    noted = False

    def on_signal(signum: int, frame: FrameType | None) -> None:
        nonlocal wish
        if not can_save() or (wish is not None and signum == signal.SIGINT):
            earlier = previous[signal.Signals(signum)]
            if callable(earlier):
                earlier(signum, frame)
            raise KeyboardInterrupt
        wish = wish or signum

    def ended_by() -> int | None:
        nonlocal noted
        if wish is not None and not noted:
            # Not where the signal arrives: it may have come in the middle of another line.
            noted = True
            out.note("stopping after this step; Ctrl-C again stops at once")
        return wish

    previous = {which: signal.signal(which, on_signal) for which in (signal.SIGINT, *ending_signals())}
    try:
        yield ended_by
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
