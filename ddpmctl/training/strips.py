"""What a network makes of the same noise while it learns: a strip of small images now and then."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpmctl.config import PREVIEW_STEPS
from ddpmctl.devices import is_out_of_memory
from ddpmctl.registry.checkpoint import PREVIEW_STEP_NUMBERS, PREVIEWS, previews_of
from ddpmctl.sampling.loop import Images

COUNT = 10
"""Images in a strip: one of each class where there are so many."""

SHARE = 0.03
"""Of the time that the training is planned to take, at most, that goes into strips."""

FIRST, SPREAD = 8, 1.4
"""The step of the first strip, and how much later than the one before a strip comes that is drawn in advance."""

ADVANCE = 0.1
"""Of the time to come, whose share may be spent in advance."""

MOST = 120
"""Strips that are kept; of more every second goes."""

MOST_BYTES = 4_000_000


class Strips:
    """Draws them within a share of the time, and keeps them.

    Args:
        draw: makes a strip, uint8[K,S,S] or [K,S,S,3].
        wait: returns once the device has done all that was asked of it before.
        clock: seconds.
        on_drawn: told the step and the images of each.
    """

    def __init__(
        self,
        draw: Callable[[], Images],
        wait: Callable[[], None],
        clock: Callable[[], float],
        on_drawn: Callable[[int, Images], None],
    ) -> None:
        self.draw = draw
        self.wait = wait
        self.clock = clock
        self.on_drawn = on_drawn
        self.steps: list[int] = []
        self.images: list[Images] = []
        self._spent = 0.0
        self._cost: float | None = None
        self._since = 0.0

    def begin(self, noise: Callable[[], Images]) -> None:
        """Have the noise itself as the first, where there is none yet."""
        if not self.steps:
            self.steps, self.images = [0], [noise()]

    def tell(self) -> None:
        """Tell of the last strip that there is."""
        if self.steps:
            self.on_drawn(self.steps[-1], self.images[-1])

    def add(self, step: int, images: Images) -> None:
        """Keep a strip."""
        self.steps.append(step)
        self.images.append(images)
        if len(self.steps) > max(2, min(MOST, MOST_BYTES // images.nbytes)):
            self.steps, self.images = ([*kept[:-1:2], kept[-1]] for kept in (self.steps, self.images))
        self.on_drawn(step, images)

    def offer(self, step: int, seconds: float, rate: float, images_left: int) -> float:
        """Draw one where there is time for it.

        Early on, when most changes, some of the time that is still to come is spent, on strips ever further apart.

        Args:
            step: of the run.
            seconds: that the training took so far.
            rate: images a second in training, from which the cost of the first strip is guessed.
            images_left: to learn from; 0 at the end, for which a strip is held back.

        Returns:
            The seconds that it took.
        """
        # To learn from an image costs about three times what a look at it does; few together cost more.
        guess = PREVIEW_STEPS * COUNT / rate if rate else 0.0
        cost = guess if self._cost is None else self._cost
        before = self.steps[-1] if self.steps else 0
        early = step >= max(FIRST, before * SPREAD)
        time = seconds - self._since + (ADVANCE * images_left / rate if early and rate else 0.0)
        if step == before or self._spent + cost * (2 if images_left else 1) > SHARE * time:
            return 0.0
        self.wait()
        started = self.clock()
        try:
            self.add(step, self.draw())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._since = float("inf")  # there is no room to look at it: the training itself goes on
        taken = self.clock() - started
        self._spent += taken
        # The first is slower than all that follow, and so is any while the machine is busy with something else.
        self._cost = taken if self._cost is None else min(self._cost, taken)
        return taken

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them, for the state of the training; none where none was drawn."""
        if not self.steps:
            return {}
        return {PREVIEWS: np.stack(self.images), PREVIEW_STEP_NUMBERS: np.array(self.steps, np.int64)}

    def restore(self, state: dict[str, NDArray[Any]], seconds: float) -> None:
        """Take those out of a state that it holds, and have them again; a run that goes on has time for more from here.

        Raises:
            ValueError: when they do not fit together.
        """
        images, self.steps = previews_of(
            {name: state.pop(name) for name in (PREVIEWS, PREVIEW_STEP_NUMBERS) if name in state}
        )
        self.images = list(images)
        if self._cost is None:  # what this process spent before a roll-back stays spent
            self._since = seconds
