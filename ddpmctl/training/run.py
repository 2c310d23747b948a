"""What a run is beside its settings, and who watches it."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ddpmctl.plan import Plan
from ddpmctl.sampling.loop import Images
from ddpmctl.training.history import EpochRow

Stopped = Literal["running", "done", "early", "interrupted"]


class Observer(Protocol):
    """Whoever watches a run."""

    def started(self, plan: Plan, step: int) -> None:
        """The run is planned and goes on from this step, 0 where it begins; it can be resumed from now on.

        With a time limit the number of steps is a guess before the first step, unless it is the plan's limit.
        """

    def stepped(self, step: int, images_per_second: float) -> None:
        """A step was issued."""

    def epoch_done(self, row: EpochRow, patience_left: int, figures: NDArray[np.float32]) -> None:
        """An epoch was judged; the figures are loss and norm of the gradient of each of its steps, float32[N,2]."""

    def strip_drawn(self, step: int, images: Images) -> None:
        """After so many steps the network makes these of the noise that it is always given: uint8[K,S,S] or colour."""

    def replanned(self, plan: Plan, step: int) -> None:
        """The speed changed: to keep to the time limit, the run goes on from this step under this plan."""

    def rolled_back(self, why: str, plan: Plan, step: int) -> None:
        """Something was not finite: the run goes on from an earlier step under this plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The circumstances of a run, beside its settings.

    Attributes:
        preset: the name that the settings came from.
        dataset: as given to ``--dataset``.
        fit: as in ``--fit``; empty where the images needed none.
        device: where to compute.
        precision: ``fp32`` or ``bf16``.
        seed: of everything random.
        max_time: the time limit in seconds; None for none.
        max_steps: of the run; None for no such limit.
        within_epochs: whether these limits may not go beyond ``epochs``.
        accumulate: parts that a batch is computed in at most, one after the other, where memory is short.
        compiled: whether ``torch.compile`` makes the network's kernels.
        processes: how many train together.
    """

    preset: str
    dataset: str
    device: torch.device
    precision: str
    seed: int
    fit: str = ""
    max_time: float | None = None
    max_steps: int | None = None
    within_epochs: bool = False
    accumulate: int = 1
    compiled: bool = False
    processes: int = 1


class Together:
    """Several observers as one, told in their order."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def started(self, plan: Plan, step: int) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.started(plan, step)

    def stepped(self, step: int, images_per_second: float) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.stepped(step, images_per_second)

    def epoch_done(self, row: EpochRow, patience_left: int, figures: NDArray[np.float32]) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.epoch_done(row, patience_left, figures)

    def strip_drawn(self, step: int, images: Images) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.strip_drawn(step, images)

    def replanned(self, plan: Plan, step: int) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.replanned(plan, step)

    def rolled_back(self, why: str, plan: Plan, step: int) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.rolled_back(why, plan, step)
