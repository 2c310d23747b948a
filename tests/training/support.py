"""Runs of a tiny network, and what they leave."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ddpmctl.plan import Plan
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.registry.pointers import open_pointer
from ddpmctl.training.callbacks import Callback
from ddpmctl.training.history import EpochRow
from ddpmctl.training.trainer import Trainer

Train = Callable[..., "Trained"]


@dataclass
class Watcher(Callback):
    """Records what is reported; calls ``after_step`` with each step's number."""

    after_step: Callable[[int], None] = lambda step: None
    plan: Plan | None = None
    steps: list[int] = field(default_factory=list)
    epochs: list[tuple[EpochRow, int]] = field(default_factory=list)
    previews: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)
    rollbacks: list[tuple[str, float, int]] = field(default_factory=list)
    replans: list[tuple[Plan, int]] = field(default_factory=list)

    def on_start(self, plan: Plan, step: int) -> None:
        self.plan = plan

    def on_preview(self, step: int, images: NDArray[np.uint8]) -> None:
        self.previews.append((step, images))

    def on_replan(self, plan: Plan, step: int) -> None:
        self.replans.append((plan, step))

    def on_rollback(self, reason: str, plan: Plan, step: int) -> None:
        self.rollbacks.append((reason, plan.peak_lr, step))

    def on_step(self, step: int, images_per_second: float) -> None:
        assert images_per_second > 0
        self.steps.append(step)
        self.after_step(step)

    def on_epoch_end(self, row: EpochRow, patience_left: int, step_metrics: NDArray[np.float32]) -> None:
        assert step_metrics.shape[1] == 2
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
        """Of the last commit; without the previews, which depend on the clock and change nothing."""
        return {name: array for name, array in self.last.state().items() if not name.startswith("previews.")}

    def weights(self) -> dict[str, np.ndarray]:
        return self.last.weights()
