"""Trains the arms of experiments, each once, by the trainer that `ddpmctl.train` runs."""

import logging
import shlex
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import DdpmctlError
from ddpmctl.evaluation.api import Progress
from ddpmctl.lessons.experiment import Arm, Pair, TrainedArm
from ddpmctl.lessons.figures import Curve
from ddpmctl.lessons.result import Network
from ddpmctl.plan import Plan, make_plan, steps_within
from ddpmctl.registry import Registry, last_of
from ddpmctl.sampling.engine import Engine
from ddpmctl.training.callbacks import Callback
from ddpmctl.training.execution import Execution
from ddpmctl.training.history import EpochRow
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.runs import fit_to_dataset
from ddpmctl.training.train_step import TrainStep
from ddpmctl.training.trainer import Trainer

log = logging.getLogger("ddpmctl")

POINTS = 60
"""Points of a thinned curve."""

PROBE_SECONDS, PROBE_SHARE = 3.0, 0.03
"""Maximum duration of the speed measurement, and its share of the training time."""


@dataclass(slots=True)
class ArmTrainer:
    """Trains arms into a registry.

    Attributes:
        spec: the settings that all arms share.
        budget: seconds of training per network.
        trained: trained arms by name.
    """

    registry: Registry
    spec: RunSpec
    data: Dataset
    execution: Execution
    budget: float
    progress: Progress
    trained: dict[str, TrainedArm] = field(default_factory=dict)

    def train_pair(self, pair: Pair) -> tuple[TrainedArm, TrainedArm]:
        """Train mistake and fix for the same number of steps."""
        if pair.fix.name not in self.trained:
            self.trained[pair.fix.name] = self._train(pair.fix, self._steps(pair))
        fix = self.trained[pair.fix.name]
        if pair.trap.name not in self.trained:
            self.trained[pair.trap.name] = self._train(pair.trap, fix.network.steps)
        return self.trained[pair.trap.name], fix

    def _steps(self, pair: Pair) -> int:
        """The number of steps of the fix that take its share of the budget, as measured."""
        spec, seconds = replace(self.spec, **pair.fix.settings), pair.share * self.budget
        config = fit_to_dataset(spec.resolve_config(), self.data)
        train_set, _ = self.data.to(self.execution.device).split(config.training.validation_images)
        step = TrainStep(config, train_set, spec, self.execution)
        batch_size = make_plan(config.training, len(train_set)).batch_size
        return steps_within(seconds, seconds_per_step(step, batch_size, min(PROBE_SECONDS, PROBE_SHARE * seconds)))

    def _train(self, arm: Arm, steps: int) -> TrainedArm:
        spec = replace(self.spec, **arm.settings, max_steps=steps, name=arm.name)
        config = fit_to_dataset(spec.resolve_config(), self.data)
        task, problem = f"training '{arm.name}'", ""
        self.progress(task, 0, steps)
        recorder = _Recorder(lambda done: self.progress(task, done, steps))
        with self.registry.writer(arm.name, arm.name, replace=True) as writer:
            trainer = Trainer(config, self.data, spec, self.execution, writer, callbacks=recorder)
            try:
                trainer.train()
            except DdpmctlError as error:
                if trainer.checkpoints.saved is None:
                    raise
                problem = error.message
        problem = problem or "; ".join(recorder.problems)
        if problem:
            log.info("'%s': %s", arm.name, problem)
        checkpoint = trainer.checkpoints.saved
        assert checkpoint is not None, "a run is saved before its first step"
        # Without a finite metric there is no best checkpoint, or only that of an earlier run.
        if arm.name in self.registry.names():
            best = self.registry.open(arm.name)
            checkpoint = best if best.manifest.run.id == trainer.state.id else checkpoint
        run, metric = last_of(checkpoint).manifest.run, checkpoint.manifest.metric
        losses, norms = recorder.curves()
        command = replace(spec, device="auto", precision="auto", data_dir=None)
        network = Network(
            name=arm.name,
            role=arm.role,
            command=shlex.join(command.to_argv()),
            steps=run.step,
            seconds=run.seconds,
            validation_mse=metric.value if metric else None,
            losses=_thinned(losses),
            gradients=_thinned(norms),
            problem=problem,
        )
        engine = Engine(checkpoint, str(self.execution.device), self.execution.precision)
        return TrainedArm(network, engine, losses, norms)


class _Recorder(Callback):
    """Records loss and gradient norm of each step."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.progress = progress
        self.problems: list[str] = []
        self.epochs: dict[int, Curve] = {}

    def on_step(self, step: int, images_per_second: float) -> None:
        self.progress(step)

    def on_epoch_end(self, row: EpochRow, patience_left: int, step_metrics: Curve) -> None:
        self.epochs[row.epoch] = step_metrics

    def on_rollback(self, reason: str, plan: Plan, step: int) -> None:
        self.problems.append(f"{reason}; continued from step {step:,} with half the learning rate")

    def curves(self) -> tuple[Curve, Curve]:
        """Losses and norms of all steps."""
        rows = [self.epochs[epoch] for epoch in sorted(self.epochs)]
        both = np.concatenate(rows) if rows else np.zeros((0, 2), np.float32)
        return both[:, 0], both[:, 1]


def seconds_per_step(train_step: TrainStep, batch_size: int, seconds: float) -> float:
    """The median time of real steps, measured for ``seconds``; the step must not be used afterwards."""
    ids = torch.arange(batch_size, device=train_step.execution.device)
    durations: list[float] = []
    # The first step is a warm-up.
    while len(durations) < 4 or sum(durations) < seconds:
        started = time.perf_counter()
        train_step(ids, 0, train_step.config.training.lr).sum().item()
        durations.append(time.perf_counter() - started)
    return statistics.median_high(durations[1:])


def _thinned(values: Curve) -> tuple[float, ...]:
    """Medians of the finite values of at most `POINTS` equal parts."""
    parts = np.array_split(values, min(POINTS, len(values))) if len(values) else []
    finite = [part[np.isfinite(part)] for part in parts]
    return tuple(float(np.median(part)) for part in finite if len(part))
