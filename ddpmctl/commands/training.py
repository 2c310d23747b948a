"""What the commands that train have in common: one run, from checked settings to a registered model."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ddpmctl.config import Config
from ddpmctl.console import Output
from ddpmctl.data import OWN, find_loader, load_dataset
from ddpmctl.errors import CheckpointError, DataError, DdpmctlError, Interrupted, Terminated, UsageError
from ddpmctl.registry import Checkpoint, Manifest, Registry
from ddpmctl.registry.manifest import FINISHED
from ddpmctl.training.saving import HALF_A_MINUTE, Every

from .display import Display
from .duration import words

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset
    from ddpmctl.training.run import Observer
    from ddpmctl.training.trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a training is watched.

    Attributes:
        show: whether a curve and images are drawn; None for the usual.
        log: whether it is written down for TensorBoard.
    """

    show: bool | None = None
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked of a training.

    Attributes:
        config: settings; classes and channels follow from the data.
        preset: where they came from.
        dataset: by name.
        data_dir: where it lies, if given.
        device: as in ``--device``.
        precision: as in ``--precision``.
        seed: of everything random.
        name: of the model; None for a generated one.
        force: replace a model of that name.
        max_time: seconds to fit the run into, if any.
        max_steps: to lay it out in, if any.
        fit: how pictures are made squares; empty where all are.
        channels: of the images; None for what they have.
        within_epochs: whether the number of epochs bounds it as well.
        accumulate: parts of a batch.
        compiled: whether to compile the network.
        every: how often to commit; None for the usual.
        watch: what is seen and logged of it.
    """

    config: Config
    preset: str
    dataset: str
    data_dir: Path | None
    device: str
    precision: str
    seed: int
    name: str | None
    force: bool
    max_time: float | None
    within_epochs: bool
    max_steps: int | None = None
    fit: str = ""
    channels: int | None = None
    accumulate: int = 1
    compiled: bool = False
    every: Every | None = None
    watch: Watch = Watch()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """What was asked of a training that is to go on.

    Attributes:
        reference: the name of the run, or ``latest``.
        more_epochs: beyond where it is; None for what is left of the plan.
        data_dir: where its data lies, if given.
        device: as in ``--device``; None for the one it had.
        precision: as in ``--precision``; None for the one it had.
        accumulate: parts of a batch; None for as many as it had.
        compiled: whether to compile the network; None for as it was.
        every: how often to commit; None for the usual.
        watch: what is seen and logged of it.
        keeps: settings that were given again, by option: they must be those of the run.
    """

    reference: str
    more_epochs: int | None = None
    data_dir: Path | None = None
    device: str | None = None
    precision: str | None = None
    accumulate: int | None = None
    compiled: bool | None = None
    every: Every | None = None
    watch: Watch = Watch()
    keeps: Mapping[str, Any] = field(default_factory=dict)


PLANNED: dict[str, Callable[[Checkpoint], Any]] = {
    "preset": lambda last: last.manifest.preset,
    "dataset": lambda last: last.manifest.dataset.name,
    "seed": lambda last: last.manifest.run.seed,
    "max-time": lambda last: last.manifest.run.max_time or "none",
    "max-steps": lambda last: last.manifest.run.planned_steps,
    "batch-size": lambda last: last.manifest.config.training.batch_size,
    "lr": lambda last: last.manifest.config.training.lr,
    "clip": lambda last: last.manifest.config.training.clip_norm,
    "patience": lambda last: last.manifest.config.training.patience,
    "timesteps": lambda last: last.manifest.config.diffusion.timesteps,
    "schedule": lambda last: last.manifest.config.diffusion.schedule,
    "target": lambda last: last.manifest.config.diffusion.target,
    "pixel-range": lambda last: "{:g}..{:g}".format(*last.manifest.config.diffusion.pixel_range),
    "norm": lambda last: last.manifest.config.model.norm,
    "flip": lambda last: last.manifest.config.training.flip,
    "fit": lambda last: last.manifest.dataset.fit or "none",
    "channels": lambda last: last.manifest.config.model.channels,
    "image-size": lambda last: str(last.manifest.config.model.image_size),
    "one-timestep": lambda last: last.manifest.config.training.one_timestep,
    "name": lambda last: last.name,
}
"""What a run goes by, by option: a resumed one cannot change it."""


def carry_out(out: Output, order: Order) -> str:
    """Train, and return the name of the model.

    Raises:
        DdpmctlError: whatever stood in the way; `Interrupted` after Ctrl-C.
    """
    find_loader(order.dataset)
    stem = f"{order.dataset.partition(':')[0]}-{order.preset}"
    with Registry().writer(order.name, stem, replace=order.force) as writer:
        # From here on torch is needed.
        from ddpmctl.devices import choose_device, choose_precision
        from ddpmctl.training.run import Run
        from ddpmctl.training.trainer import Trainer

        device = choose_device(order.device)
        precision, why = choose_precision(order.precision, device)
        data = load_dataset(
            order.dataset, order.config.model.image_size, order.data_dir, fit=order.fit, channels=order.channels,
            notice=out.warn,
        )  # fmt: skip
        config = fit_to(order.config, data)
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
        )
        display = Display(
            out,
            writer.name,
            config.training.patience,
            f"on {device} in {precision} ({why})",
            order.watch.show,
            order.max_time,
        )
        display.suggest_quick = device.type == "cpu" and order.preset != "quick"
        trainer = Trainer(
            config, data, run, writer, _observer(out, display, order.watch), every=order.every or HALF_A_MINUTE
        )
        _run(out, display, trainer)
        return writer.name


def go_on(out: Output, asked: Resumption) -> str:
    """Take a run up where it was left, and return its name; says so where there is nothing left to do.

    Raises:
        DdpmctlError: whatever stood in the way; `Interrupted` after Ctrl-C.
    """
    writer, last = Registry().resume(asked.reference)
    with writer:
        manifest, name = last.manifest, writer.name
        _see_that_it_keeps(last, asked.keeps)
        if manifest.run.stopped in FINISHED and not asked.more_epochs:
            out.note(f"'{name}' is trained to its end, {manifest.run.step:,} steps; --epochs N gives it N more")
            return name
        if manifest.resume is None:
            raise CheckpointError(
                f"'{name}' cannot be resumed: the state of its training was not kept", "ddpmctl train"
            )
        from ddpmctl.devices import choose_device, choose_precision
        from ddpmctl.training.records import differences
        from ddpmctl.training.run import Run
        from ddpmctl.training.trainer import Trainer

        device = choose_device(asked.device or manifest.resume.device)
        precision, _ = choose_precision(asked.precision or manifest.run.precision, device)
        data = same_images(manifest, asked.data_dir)
        if data.digest() != manifest.dataset.digest:
            raise DataError(
                f"'{name}' was trained on other images than {manifest.dataset.name} has now",
                "--data-dir with the folder that it was begun with, or begin another: ddpmctl train",
            )
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
        )
        for difference in differences(manifest.run, run):
            out.warn(f"from here on not bit for bit what an uncut run gives: {difference}")
        display = Display(out, name, manifest.config.training.patience, f"on {device} in {precision}", asked.watch.show)
        trainer = Trainer(
            manifest.config, data, run, writer, _observer(out, display, asked.watch),
            every=asked.every or HALF_A_MINUTE, resumed=last, more_epochs=asked.more_epochs,
            best_is_lost=_best_is_lost(out, name),
        )  # fmt: skip
        _run(out, display, trainer)
        return name


def _observer(out: Output, display: Display, watch: Watch) -> "Observer":
    """The display, and whoever else is to be told of the run."""
    if not watch.log:
        return display
    from ddpmctl.training.run import Together
    from ddpmctl.training.tensorboard import TensorBoard

    folder = Registry().home / "tensorboard"
    out.note(f"watch it: tensorboard --logdir '{folder}'")
    return Together(display, TensorBoard(folder / display.name))


def same_images(manifest: Manifest, data_dir: Path | None, *, train: bool = True) -> "Dataset":
    """The images that a model was trained on, or those beside them that it never saw."""
    model = manifest.config.model
    own = manifest.dataset.name.startswith(f"{OWN}:")
    return load_dataset(
        manifest.dataset.name, model.image_size, data_dir, train=train, fit=manifest.dataset.fit,
        channels=model.channels if own else None,
    )  # fmt: skip


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


def _run(out: Output, display: Display, trainer: "Trainer") -> None:
    """Train to one end or another, and say which.

    Raises:
        DdpmctlError: `Interrupted` or `Terminated` where a signal ended it.
    """
    name = trainer.commits.writer.name
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
            if trainer.commits.writer.has_best:
                out.note(f"the best so far is kept as '{name}'")
            raise
    state, best = trainer.state, trainer.state.best
    figure = f"{best.title} {best.value:.4f} of epoch {best.epoch}" if best else "no epoch judged yet"
    if stopped == "interrupted":
        kind = Terminated if ended_by() == signal.SIGTERM else Interrupted
        word = "terminated" if kind is Terminated else "interrupted"
        raise kind(
            f"{word} after {state.step:,} of {state.plan.steps:,} steps; all is kept as '{name}' ({figure})",
            f"ddpmctl train --resume {name}",
        )
    if stopped == "early":
        out.note(f"stopped early: {trainer.config.training.patience} epochs without a better MSE")
    if stopped == "time":
        done = f"{state.step:,} of {state.plan.steps:,} steps"
        out.note(f"stopped by the clock after {done}: the machine was slower than when its speed was measured")
    out.note(f"done in {words(state.seconds)} of training; best {figure}")


def _see_that_it_keeps(last: Checkpoint, given: Mapping[str, Any]) -> None:
    """Refuse settings that are not those of the run.

    Raises:
        UsageError: naming the first.
    """
    for option, value in given.items():
        planned = PLANNED[option](last)
        if value != planned:
            raise UsageError(
                f"'{last.name}' goes on as it was planned, with --{option} {planned} and not {value}",
                "leave the option out, or begin another training without --resume",
            )


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
    """Turn the first Ctrl-C or SIGTERM into a wish to save and end, which the yielded function tells.

    A second Ctrl-C stops at once; so does the first signal while there is nothing to save yet.

    Args:
        out: says that the signal was heard.
        can_save: whether there is.
    """
    wish: int | None = None

    def on_signal(signum: int, frame: FrameType | None) -> None:
        nonlocal wish
        if not can_save() or (wish is not None and signum == signal.SIGINT):
            earlier = previous[signal.Signals(signum)]
            if callable(earlier):
                earlier(signum, frame)
            raise KeyboardInterrupt
        if wish is None:
            wish = signum
            out.note("stopping after this step; Ctrl-C again stops at once")

    previous = {which: signal.signal(which, on_signal) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: wish
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
