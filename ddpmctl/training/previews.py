"""Previews: samples drawn from fixed noise during training."""

from collections.abc import Callable

import numpy as np

from ddpmctl.config import Config
from ddpmctl.core.noise import normal
from ddpmctl.devices import is_out_of_memory
from ddpmctl.registry.checkpoint import PREVIEW_STEP_NUMBERS, PREVIEWS, previews_of
from ddpmctl.sampling.loop import Images, SamplingStep, sample_trajectory, to_pixels
from ddpmctl.sampling.settings import PREVIEW_STEPS, preview_sampling
from ddpmctl.training.train_step import TrainStep

COUNT = 10
"""Images in a preview: one of each class if there are at least ten."""

SHARE = 0.03
"""Largest share of the planned training time that goes into previews."""

FIRST, SPREAD = 8, 1.4
"""The step of the first preview, and the minimum ratio between the steps of early previews."""

ADVANCE = 0.1
"""Share of the remaining time added to the early budget."""

MAX_PREVIEWS = 120
"""Previews that are kept; of more, every second is dropped."""

MAX_BYTES = 4_000_000


class Previews:
    """Draws previews within a share of the training time, and keeps them.

    Args:
        draw: samples a preview, uint8[K,S,S] or [K,S,S,3].
        synchronize: returns once the device has finished everything launched before.
        on_preview: called with the step and the images of each.
    """

    def __init__(
        self,
        draw: Callable[[], Images],
        synchronize: Callable[[], None],
        clock: Callable[[], float],
        on_preview: Callable[[int, Images], None],
    ) -> None:
        self.draw = draw
        self.synchronize = synchronize
        self.clock = clock
        self.on_preview = on_preview
        self.steps: list[int] = []
        self.images: list[Images] = []
        self._spent = 0.0
        self._cost: float | None = None
        self._since = 0.0

    def begin(self, noise: Callable[[], Images]) -> None:
        """Record the initial noise as the first preview, unless previews were restored."""
        if not self.steps:
            self.steps, self.images = [0], [noise()]

    def report_last(self) -> None:
        """Report the last preview that there is."""
        if self.steps:
            self.on_preview(self.steps[-1], self.images[-1])

    def add(self, step: int, images: Images) -> None:
        """Keep a preview, and report it."""
        self.steps.append(step)
        self.images.append(images)
        if len(self.steps) > max(2, min(MAX_PREVIEWS, MAX_BYTES // images.nbytes)):
            self.steps, self.images = ([*kept[:-1:2], kept[-1]] for kept in (self.steps, self.images))
        self.on_preview(step, images)

    def maybe_draw(self, step: int, seconds: float, rate: float, images_left: int) -> float:
        """Draw a preview if there is time for it; returns the seconds that it took.

        Early on, when most changes, a part of the remaining time is spent in advance, at increasing intervals.

        Args:
            seconds: spent training so far.
            rate: training images per second, from which the cost of the first preview is estimated.
            images_left: training images to come; 0 at the end, for which the budget of one preview is reserved.
        """
        # A training step costs about three forward passes an image; a few images at a time cost more each.
        guess = PREVIEW_STEPS * COUNT / rate if rate else 0.0
        cost = guess if self._cost is None else self._cost
        before = self.steps[-1] if self.steps else 0
        early = step >= max(FIRST, before * SPREAD)
        time = seconds - self._since + (ADVANCE * images_left / rate if early and rate else 0.0)
        if step == before or self._spent + cost * (2 if images_left else 1) > SHARE * time:
            return 0.0
        self.synchronize()
        started = self.clock()
        try:
            self.add(step, self.draw())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._since = float("inf")  # there is no memory for previews: training continues without
        taken = self.clock() - started
        self._spent += taken
        # The first includes initialization and is slower, as is any while the machine is busy with something else.
        self._cost = taken if self._cost is None else min(self._cost, taken)
        return taken

    def arrays(self) -> dict[str, np.ndarray]:
        """All previews, for the training state; empty if none was drawn."""
        if not self.steps:
            return {}
        return {PREVIEWS: np.stack(self.images), PREVIEW_STEP_NUMBERS: np.array(self.steps, np.int64)}

    def restore(self, state: dict[str, np.ndarray], seconds: float) -> None:
        """Take the previews out of a saved state; raises a `ValueError` if they are inconsistent."""
        images, self.steps = previews_of(
            {name: state.pop(name) for name in (PREVIEWS, PREVIEW_STEP_NUMBERS) if name in state}
        )
        self.images = list(images)
        if self._cost is None:  # what this process spent before a roll-back stays spent
            self._since = seconds


def draw_preview(step: TrainStep) -> Images:
    """Sample with the EMA weights from fixed noise: uint8[K,S,S] or [K,S,S,3]."""
    model, execution = step.config.model, step.execution
    labels = [k % model.num_classes for k in range(COUNT)]
    denoise = SamplingStep(step.ema.module, model.num_classes, execution.device, execution.precision)
    *_, last = sample_trajectory(
        denoise, step.diffusion, step.config, preview_sampling(step.config), labels, range(COUNT)
    )
    return to_pixels(last.x0, step.diffusion.pixel_range, model.image_size)


def preview_noise(config: Config, pixel_range: tuple[float, float]) -> Images:
    """The noise that previews start from, as images."""
    model = config.model
    noise = normal(range(COUNT), 0, (model.channels, model.sample_size, model.sample_size))
    return to_pixels(noise, pixel_range, model.image_size)
