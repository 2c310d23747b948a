"""A run as TensorBoard shows it, through the extra ``tensorboard``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpmctl.plan import Plan
from ddpmctl.sampling.loop import Images
from ddpmctl.training.history import EpochRow

POINTS = 100
"""Of the curves over steps, an epoch: each is a mean over the steps since the one before."""


class TensorBoard:
    """An observer that writes losses, rates and strips of images.

    Args:
        folder: of the run, for ``tensorboard --logdir``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def started(self, plan: Plan, step: int) -> None:
        """Begin, or go on: what an earlier part wrote beyond this step is forgotten."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        self.plan = plan

    def stepped(self, step: int, images_per_second: float) -> None:
        """Steps are written with their epoch: to read their losses would make a GPU wait."""

    def epoch_done(self, row: EpochRow, patience_left: int, figures: NDArray[np.float32]) -> None:
        """Write the epoch's figures, and those of its steps."""
        add = self.writer.add_scalar
        first = row.step - len(figures)
        for part in np.array_split(np.arange(len(figures)), min(POINTS, len(figures))):
            step = first + int(part[-1]) + 1
            add("step/loss", float(figures[part, 0].mean()), step)
            add("step/gradient", float(figures[part, 1].mean()), step)
            add("step/learning_rate", self.plan.lr(step - 1), step)
        add("mse/train", row.train_mse, row.step)
        if row.validation_mse is not None:
            add("mse/validation", row.validation_mse, row.step)
        add("speed/images_a_second", row.images_per_second, row.step)
        add("patience_left", patience_left, row.step)
        self.writer.flush()

    def strip_drawn(self, step: int, images: Images) -> None:
        """Write the strip as one wide picture."""
        wide = np.concatenate(list(images), axis=1)
        form = "HW" if wide.ndim == 2 else "HWC"
        self.writer.add_image("samples", wide, step, dataformats=form)
        self.writer.flush()

    def replanned(self, plan: Plan, step: int) -> None:
        """Take the learning rates of the steps to come from this plan."""
        self.plan = plan

    def rolled_back(self, why: str, plan: Plan, step: int) -> None:
        """Forget what lies beyond the step that the run went back to."""
        self.writer.add_text("rolled_back", why, step)
        self.writer.close()
        self.started(plan, step)
