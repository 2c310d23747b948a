"""What the commands that train have in common: one run, from checked settings to a registered model."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ddpmctl.config import Config
from ddpmctl.console import Output
from ddpmctl.data import find_loader, load_dataset
from ddpmctl.errors import DdpmctlError, Interrupted, UsageError
from ddpmctl.registry import Registry

from .display import Display
from .duration import words

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset
    from ddpmctl.training.trainer import Stopped, Trainer


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
        within_epochs: whether the number of epochs bounds it as well.
        accumulate: parts of a batch.
        compiled: whether to compile the network.
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
    accumulate: int = 1
    compiled: bool = False


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
        from ddpmctl.training.trainer import Run, Trainer

        device = choose_device(order.device)
        precision, why = choose_precision(order.precision, device)
        data = load_dataset(order.dataset, order.config.model.image_size, order.data_dir)
        config = fit_to(order.config, data)
        out.note(f"training '{writer.name}' on {device} in {precision} ({why})")
        run = Run(
            preset=order.preset,
            dataset=order.dataset,
            device=device,
            precision=precision,
            seed=order.seed,
            max_time=order.max_time,
            within_epochs=order.within_epochs,
            accumulate=order.accumulate,
            compiled=order.compiled,
        )
        suggest_quick = device.type == "cpu" and order.preset != "quick"
        display = Display(out, config.training.patience, suggest_quick=suggest_quick)
        with graceful_interrupt(out) as interrupted, display.showing():
            trainer = Trainer(config, data, run, writer, display, interrupted)
            try:
                stopped = trainer.train()
            except DdpmctlError:
                if trainer.best:
                    out.note(f"the best so far is kept as '{writer.name}'")
                raise
        _say_how_it_ended(out, stopped, trainer, writer.name)
        return writer.name


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
def graceful_interrupt(out: Output) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a wish to stop, which the yielded function tells; the second stops at once."""
    wished = False

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal wished
        if wished:
            raise KeyboardInterrupt
        wished = True
        out.note("stopping after this step; Ctrl-C again stops at once")

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: wished
    finally:
        signal.signal(signal.SIGINT, previous)


def _say_how_it_ended(out: Output, stopped: "Stopped", trainer: "Trainer", name: str) -> None:
    best = trainer.best
    assert best is not None
    figure = f"{best.name.replace('_', ' ')} {best.value:.4f} of epoch {best.epoch}"
    if stopped == "interrupted":
        raise Interrupted(
            f"interrupted after {trainer.step:,} steps; the best so far is kept as '{name}' ({figure})",
            f"ddpmctl grid --model {name}",
        )
    if stopped == "early":
        out.note(f"stopped early: {trainer.config.training.patience} epochs without a better MSE")
    if stopped == "time":
        out.note("stopped by the clock before the planned end: the machine became slower than it was at the start")
    out.note(f"done in {words(trainer.seconds)} of training; best {figure}")
