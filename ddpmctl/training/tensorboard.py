"""A callback that logs for TensorBoard, through the extra ``tensorboard``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpmctl.plan import Plan
from ddpmctl.sampling.loop import Images
from ddpmctl.training.callbacks import Callback, RunInfo
from ddpmctl.training.history import EpochRow

POINTS = 100
"""Points per epoch of the curves over steps; each is a mean over the steps since the one before."""


class TensorBoard(Callback):
    """Logs losses, learning rates and previews.

    Args:
        folder: for ``tensorboard --logdir``; each run has its own below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_setup(self, run: RunInfo) -> None:
        self.name = run.name

    def on_start(self, plan: Plan, step: int) -> None:
        """Start logging; what an earlier process logged beyond this step is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder / self.name), purge_step=step + 1)
        self.plan = plan

    def on_epoch_end(self, row: EpochRow, patience_left: int, step_metrics: NDArray[np.float32]) -> None:
        """Log the epoch and its steps, whose losses cannot be read earlier without making a GPU wait."""
        add = self.writer.add_scalar
        first = row.step - len(step_metrics)
        for part in np.array_split(np.arange(len(step_metrics)), min(POINTS, len(step_metrics))):
            step = first + int(part[-1]) + 1
            add("step/loss", float(step_metrics[part, 0].mean()), step)
            add("step/gradient_norm", float(step_metrics[part, 1].mean()), step)
            add("step/learning_rate", self.plan.lr(step - 1), step)
        add("mse/train", row.train_mse, row.step)
        if row.validation_mse is not None:
            add("mse/validation", row.validation_mse, row.step)
        add("speed/images_per_second", row.images_per_second, row.step)
        add("patience_left", patience_left, row.step)
        self.writer.flush()

    def on_preview(self, step: int, images: Images) -> None:
        """Log the preview as one wide image."""
        wide = np.concatenate(list(images), axis=1)
        self.writer.add_image("samples", wide, step, dataformats="HW" if wide.ndim == 2 else "HWC")
        self.writer.flush()

    def on_replan(self, plan: Plan, step: int) -> None:
        self.plan = plan

    def on_rollback(self, reason: str, plan: Plan, step: int) -> None:
        self.writer.add_text("rolled_back", reason, step)
        self.writer.close()
        self.on_start(plan, step)
