"""Callbacks that report the progress of a training run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ddpmctl.config import Config
from ddpmctl.plan import Plan
from ddpmctl.training.history import EpochRow
from ddpmctl.training.run_spec import RunSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ddpmctl.sampling.loop import Images
    from ddpmctl.training.execution import Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run whose settings are all resolved.

    Attributes:
        precision_reason: why that precision was chosen.
        seconds_left: of the time limit, if there is one.
        clock: the run's clock in seconds, which pauses while the process is suspended.
    """

    name: str
    resumed: bool
    spec: RunSpec
    config: Config
    execution: "Execution"
    precision_reason: str
    seconds_left: float | None
    clock: Callable[[], float]


class Callback:
    """Base class of callbacks: every method does nothing.

    Attributes:
        every_process: whether it is called on all ranks of a job and not only in the main process.
    """

    every_process = False

    def on_setup(self, run: RunInfo) -> None:
        """All settings are resolved; the network is built next."""

    def on_start(self, plan: Plan, step: int) -> None:
        """Training starts or continues after ``step`` steps; from now on it can be resumed.

        With a time limit the number of steps is a guess before the first step, unless it is the plan's limit.
        """

    def on_step(self, step: int, images_per_second: float) -> None:
        """A step was launched; a GPU may not have finished it."""

    def on_epoch_end(self, row: EpochRow, patience_left: int, step_metrics: "NDArray[np.float32]") -> None:
        """An epoch was validated; ``step_metrics`` has loss and gradient norm of each of its steps, float32[N,2]."""

    def on_preview(self, step: int, images: "Images") -> None:
        """A preview was sampled with the EMA weights from fixed noise: uint8[K,S,S] or [K,S,S,3]."""

    def on_replan(self, plan: Plan, step: int) -> None:
        """The speed changed: to keep the time limit, the run continues from this step under this plan."""

    def on_rollback(self, reason: str, plan: Plan, step: int) -> None:
        """A value was not finite: the run continues from this earlier step under this plan."""


class CallbackList(Callback):
    """Several callbacks, called in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for hook in (name for name in vars(Callback) if name.startswith("on_")):
            setattr(self, hook, partial(self._call, [getattr(callback, hook) for callback in callbacks]))

    @staticmethod
    def _call(methods: "Sequence[Callable[..., None]]", *arguments: object) -> None:
        for method in methods:
            method(*arguments)
