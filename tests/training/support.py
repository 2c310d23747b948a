"""Runs of a tiny network, and what they leave."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ddpmctl.registry import Checkpoint, last_of
from ddpmctl.training.history import EpochRow
from ddpmctl.training.plan import Plan
from ddpmctl.training.trainer import Trainer

Train = Callable[..., "Trained"]


@dataclass
class Watcher:
    """Writes down what it is told; calls ``on_step`` with each step's number."""

    on_step: Callable[[int], None] = lambda step: None
    plan: Plan | None = None
    steps: list[int] = field(default_factory=list)
    epochs: list[tuple[EpochRow, int]] = field(default_factory=list)

    def started(self, plan: Plan) -> None:
        self.plan = plan

    def stepped(self, step: int, images_per_second: float) -> None:
        assert images_per_second > 0
        self.steps.append(step)
        self.on_step(step)

    def epoch_done(self, row: EpochRow, patience_left: int) -> None:
        self.epochs.append((row, patience_left))


@dataclass
class Trained:
    """What a run left."""

    stopped: str
    watcher: Watcher
    trainer: Trainer
    best: Checkpoint

    @property
    def last(self) -> Checkpoint:
        return last_of(self.best)

    def weights(self) -> dict[str, np.ndarray]:
        return self.last.weights()
