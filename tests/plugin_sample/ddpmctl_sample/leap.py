"""A sampler: believe the first prediction at each step, and draw no noise."""

from collections.abc import Iterator

from torch import Tensor

from ddpmctl.core.samplers import Noise, PredictX0, Step
from ddpmctl.core.schedule import Schedule


def leap(predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise) -> Iterator[Step]:
    """Go straight to what each prediction says."""
    for index, t in enumerate(timesteps):
        x = predict_x0(x, t)
        yield Step(index, t, x, x)
