"""Where the networks of the lessons are trained: all by the trainer that `ddpmctl train` runs."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ddpmctl.config import PIXEL_RANGES, Config, load_preset
from ddpmctl.data import default_sample_size
from ddpmctl.data.dataset import Dataset
from ddpmctl.devices import describe_device
from ddpmctl.errors import DdpmctlError
from ddpmctl.imaging.files import write_whole
from ddpmctl.lessons.figures import Judge
from ddpmctl.lessons.findings import Network, Picture, Setting
from ddpmctl.plan import Plan, make_plan, steps_within
from ddpmctl.registry import Checkpoint, Registry, last_of
from ddpmctl.sampling.engine import Engine
from ddpmctl.training.callbacks import Callback
from ddpmctl.training.execution import Execution
from ddpmctl.training.history import EpochRow
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.train_step import TrainStep
from ddpmctl.training.trainer import Trainer

POINTS = 60
"""Of a thinned curve."""

PROBE = 3.0
"""Most seconds to measure a network's speed in."""


class Teller(Protocol):
    """Whoever tells the learner how far it is."""

    def note(self, words: str) -> None:
        """Something is known now."""

    def progress(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A task begins; the function that is given takes how much of it is done."""


@dataclass(frozen=True, slots=True)
class Taught:
    """A network that was trained, and how that went.

    Attributes:
        network: what to tell of it.
        engine: ready to sample.
        losses: of each step, float32[steps].
        norms: of the gradient of each step before it was clipped, float32[steps].
    """

    network: Network
    engine: Engine
    losses: NDArray[np.float32]
    norms: NDArray[np.float32]


class Workshop:
    """Trains networks into a folder, each once, and knows how to look at them.

    Args:
        folder: takes a registry of the networks, and pictures.
        base: the settings that all networks share, but for the one that a lesson is about.
        data: the training images.
        about: what all trainings have in common.
        execution: what all of them are computed on.
        budget: seconds of training a network.
        count: images a figure is taken over.
        judge: takes the figures.
        teller: is told how far it is.
    """

    def __init__(
        self,
        folder: Path,
        base: Config,
        data: Dataset,
        about: RunSpec,
        execution: Execution,
        budget: float,
        count: int,
        judge: Judge,
        teller: Teller,
    ) -> None:
        self.folder = folder
        self.base = base
        self.data = data
        self.about = about
        self.execution = execution
        self.budget = budget
        self.count = count
        self.judge = judge
        self.teller = teller
        self.registry = Registry(folder)
        self._taught: dict[str, Taught] = {}
        self._steps: dict[Config, int] = {}

    def steps(self, config: Config, share: float = 1.0) -> int:
        """How many steps of such a network fit into a share of the budget; measured once."""
        if config not in self._steps:
            train_set, _ = self.data.to(self.execution.device).split(config.training.validation_images)
            step = TrainStep(config, train_set, self.about, self.execution)
            seconds = share * self.budget
            batch_size = make_plan(config.training, len(train_set)).batch_size
            per_step = _seconds_per_step(step, batch_size, min(PROBE, 0.03 * seconds))
            self._steps[config] = steps_within(seconds, per_step)
        return self._steps[config]

    def fix(self) -> Taught:
        """The network without a trap, which all lessons share."""
        return self.teach("fix", "the fix", self.base, self.steps(self.base))

    def teach(self, name: str, role: str, config: Config, steps: int) -> Taught:
        """Train a network, unless this workshop did so before.

        Args:
            name: of its model.
            role: what it is in the lesson.
            config: its settings.
            steps: how many.
        """
        if name not in self._taught:
            self._taught[name] = self._teach(name, role, config, steps)
        return self._taught[name]

    def _teach(self, name: str, role: str, config: Config, steps: int) -> Taught:
        run = replace(self.about, max_steps=steps)
        trouble = ""
        with (
            self.registry.writer(name, name, replace=True) as writer,
            self.teller.progress(f"training '{name}'", steps) as progress,
        ):
            watcher = _Watcher(progress)
            trainer = Trainer(config, self.data, run, self.execution, writer, callbacks=watcher)
            try:
                trainer.train()
            except DdpmctlError as error:
                if trainer.checkpoints.saved is None:
                    raise
                trouble = error.message
            trouble = trouble or "; ".join(watcher.troubles)
        kept = _kept(self.registry, name, trainer)
        manifest = last_of(kept).manifest
        if trouble:
            self.teller.note(f"'{name}': {trouble}")
        losses, norms = watcher.curves()
        network = Network(
            name=name,
            role=role,
            command=command(config, run, self.execution, name),
            steps=manifest.run.step,
            seconds=manifest.run.seconds,
            mse=kept.manifest.metric.value if kept.manifest.metric else None,
            losses=_thinned(losses),
            gradients=_thinned(norms),
            trouble=trouble,
        )
        return Taught(network, Engine(kept, str(self.execution.device), self.execution.precision), losses, norms)

    def setting(self) -> Setting:
        """Under what circumstances all of it is found."""
        return Setting(
            dataset=self.about.dataset,
            budget=self.budget,
            seed=self.about.seed,
            device=describe_device(self.execution.device),
            precision=self.execution.precision,
            count=self.count,
            judged_by=self.judge.name,
            date=datetime.now(UTC).date().isoformat(),
        )

    def put(self, file: str, data: bytes, caption: str) -> Picture:
        """Write a picture into the folder."""
        write_whole(self.folder / file, data)
        return Picture(file=file, caption=caption)


class _Watcher(Callback):
    """Keeps the loss and the gradient's norm of each step."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.progress = progress
        self.troubles: list[str] = []
        self.epochs: dict[int, NDArray[np.float32]] = {}

    def on_step(self, step: int, images_per_second: float) -> None:
        """Tell how far it is."""
        self.progress(step)

    def on_epoch_end(self, row: EpochRow, patience_left: int, step_metrics: NDArray[np.float32]) -> None:
        """Keep the losses and norms of the epoch's steps."""
        self.epochs[row.epoch] = step_metrics

    def on_rollback(self, reason: str, plan: Plan, step: int) -> None:
        """Keep what went wrong."""
        self.troubles.append(f"{reason}; it went on from step {step:,} at half the rate")

    def curves(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Losses and norms of all steps."""
        rows = [self.epochs[epoch] for epoch in sorted(self.epochs)]
        both = np.concatenate(rows) if rows else np.zeros((0, 2), np.float32)
        return both[:, 0], both[:, 1]


def _seconds_per_step(train_step: TrainStep, batch_size: int, seconds: float) -> float:
    """The median time of real steps, measured for so many seconds; the step is of no use afterwards."""
    ids = torch.arange(batch_size, device=train_step.execution.device)
    durations: list[float] = []
    # The first step sets things up and is slower than all that follow.
    while len(durations) < 4 or sum(durations) < seconds:
        started = time.perf_counter()
        train_step(ids, 0, train_step.config.training.lr).sum().item()
        durations.append(time.perf_counter() - started)
    return statistics.median_high(durations[1:])


def _thinned(values: NDArray[np.float32]) -> tuple[float, ...]:
    """Medians of at most `POINTS` equal parts, of what is finite."""
    parts = np.array_split(values, min(POINTS, len(values))) if len(values) else []
    finite = [part[np.isfinite(part)] for part in parts]
    return tuple(float(np.median(part)) for part in finite if len(part))


def command(config: Config, run: RunSpec, execution: Execution, name: str) -> str:
    """The command that trains such a network."""
    preset = load_preset(run.preset).config
    side = default_sample_size(preset.model, run.dataset, execution.device.type, execution.precision)
    settings = {
        "target": (preset.diffusion.parameterization, config.diffusion.parameterization),
        "pixel_range": (_range(preset), _range(config)),
        "norm": (preset.model.norm, config.model.norm),
        "sample_size": (side, config.model.sample_size),
        "batch_size": (preset.training.batch_size, config.training.batch_size),
    }
    changed: dict[str, Any] = {setting: value for setting, (usual, value) in settings.items() if value != usual}
    spec = RunSpec(
        preset=run.preset, dataset=run.dataset, max_steps=run.max_steps, seed=run.seed, name=name,
        one_timestep=config.training.one_timestep, **changed,
    )  # fmt: skip
    return " ".join(spec.to_argv())


def _range(config: Config) -> str:
    return next(word for word, limits in PIXEL_RANGES.items() if limits == config.diffusion.pixel_range)


def _kept(registry: Registry, name: str, trainer: Trainer) -> Checkpoint:
    """The best of a training; where no figure of it was finite, what was saved last."""
    if name in registry.names() and registry.open(name).manifest.run.id == trainer.state.id:
        return registry.open(name)
    assert trainer.checkpoints.saved is not None, "a training is saved before its first step"
    return trainer.checkpoints.saved
