"""Runs of a tiny network, and what they leave."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ddpmctl.plan import Plan
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.registry.pointers import open_pointer
from ddpmctl.training.history import EpochRow
from ddpmctl.training.trainer import Trainer

Train = Callable[..., "Trained"]


@dataclass
class Watcher:
    """Writes down what it is told; calls ``on_step`` with each step's number."""

    on_step: Callable[[int], None] = lambda step: None
    plan: Plan | None = None
    steps: list[int] = field(default_factory=list)
    epochs: list[tuple[EpochRow, int]] = field(default_factory=list)
    strips: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)
    rollbacks: list[tuple[str, float, int]] = field(default_factory=list)
    replans: list[tuple[Plan, int]] = field(default_factory=list)

    def started(self, plan: Plan, step: int) -> None:
        self.plan = plan

    def strip_drawn(self, step: int, images: NDArray[np.uint8]) -> None:
        self.strips.append((step, images))

    def replanned(self, plan: Plan, step: int) -> None:
        self.replans.append((plan, step))

    def rolled_back(self, why: str, plan: Plan, step: int) -> None:
        self.rollbacks.append((why, plan.peak_lr, step))

    def stepped(self, step: int, images_per_second: float) -> None:
        assert images_per_second > 0
        self.steps.append(step)
        self.on_step(step)

    def epoch_done(self, row: EpochRow, patience_left: int, figures: NDArray[np.float32]) -> None:
        assert figures.shape[1] == 2
        self.epochs.append((row, patience_left))


@dataclass
class Trained:
    """What a run left."""

    name: str
    stopped: str
    watcher: Watcher
    trainer: Trainer
    registry: Registry

    @property
    def best(self) -> Checkpoint:
        return self.registry.open(self.name)

    @property
    def last(self) -> Checkpoint:
        return open_pointer(self.name, self.registry.models / self.name, "last")

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Of the last commit; without the strips, which hang on the clock and change nothing."""
        return {name: array for name, array in self.last.state().items() if not name.startswith("previews.")}

    def weights(self) -> dict[str, np.ndarray]:
        return self.last.weights()
