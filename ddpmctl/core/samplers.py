"""Samplers: generators over the steps from noise to an image, so that images and animations share their code."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ddpmctl.core.schedule import Schedule

PredictX0 = Callable[[Tensor, int], Tensor]
"""``predict_x0(x_t: float[B,C,H,W], t) -> float[B,C,H,W]``: the predicted clean image."""

Noise = Callable[[], Tensor]
"""Draws standard normal noise shaped like ``x``, different noise at each call.

The noise that a chain starts from is draw 0 of `noise.normal`, and call ``n``, counted from 1, is draw ``n``: a sampler
that calls it once per step has draw ``k + 1`` at step ``k``. It may be called several times per step, or not at all.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One sampling step."""

    index: int
    """0 for the first step."""
    t: int
    """The timestep that this step started from."""
    x: Tensor
    """The image after the step, still noisy, float[B,C,H,W]."""
    x0: Tensor
    """The clean image predicted in this step, float[B,C,H,W]; the last step's is the result."""


Sampler = Callable[[PredictX0, Schedule, Tensor, list[int], Noise], Iterator[Step]]
"""``sampler(predict_x0, schedule, x, timesteps, noise)`` with timesteps descending and ``x`` at the first of them: pure
noise, unless a picture is edited."""


def trailing_timesteps(timesteps: int, steps: int) -> list[int]:
    """``steps`` timesteps from ``timesteps - 1`` down, evenly spaced; all of them when the counts agree.

    Trailing spacing starts at the last timestep, where the image is pure noise (Lin et al. 2024, table 2).
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must be in 1..{timesteps}, not {steps}")
    return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]


def beginning_timesteps(timesteps: int, end: int, steps: int) -> list[int]:
    """``steps`` timesteps from ``timesteps - 1`` down, evenly spaced, of which the next one would be ``end``."""
    return [round(timesteps - 1 - i * (timesteps - 1 - end) / steps) for i in range(steps)]


def ddpm(predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    The variance is ``beta_t`` with all timesteps below the first and the posterior's (eq. 7) when timesteps are
    skipped, where the larger one would leave noise in the image.
    """
    full_chain = timesteps == list(range(len(timesteps)))[::-1]
    for index, (t, t_next) in enumerate(pairwise([*timesteps, -1])):
        alpha_bar, alpha_bar_next = schedule.signal(t), schedule.signal(t_next)
        beta = 1 - alpha_bar / alpha_bar_next
        x0 = predict_x0(x, t)
        # Eq. 7: the mean of q(x_{t-1} | x_t, x_0).
        mean_x0 = math.sqrt(alpha_bar_next) * beta / (1 - alpha_bar)
        mean_x = math.sqrt(1 - beta) * (1 - alpha_bar_next) / (1 - alpha_bar)
        x = mean_x0 * x0 + mean_x * x
        if t_next >= 0:
            variance = beta if full_chain else beta * (1 - alpha_bar_next) / (1 - alpha_bar)
            x = x + math.sqrt(variance) * noise()
        yield Step(index, t, x, x0)


def ddim(predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise) -> Iterator[Step]:
    """Deterministic implicit sampling (Song et al. 2021, eq. 12 with eta = 0); ``noise`` is not drawn."""
    for index, (t, t_next) in enumerate(pairwise([*timesteps, -1])):
        alpha_bar, alpha_bar_next = schedule.signal(t), schedule.signal(t_next)
        x0 = predict_x0(x, t)
        epsilon = (x - math.sqrt(alpha_bar) * x0) / math.sqrt(1 - alpha_bar)
        x = math.sqrt(alpha_bar_next) * x0 + math.sqrt(1 - alpha_bar_next) * epsilon
        yield Step(index, t, x, x0)


def dpmpp(predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); ``noise`` is not drawn."""
    return _second_order_multistep(predict_x0, schedule, x, timesteps, None)


def dpmpp_sde(
    predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, eq. 18): as `dpmpp`, with fresh noise in each step.

    The added noise corrects errors of an undertrained network (measured: a quarter less Frechet distance); a well
    trained one samples better without.
    """
    return _second_order_multistep(predict_x0, schedule, x, timesteps, noise)


def _second_order_multistep(
    predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise | None
) -> Iterator[Step]:
    """A second-order multistep method in ``lambda = log(alpha / sigma)``.

    It uses the previous prediction, without extra network function evaluations. The first step and the last, where
    lambda is infinite, are of first order.
    """

    def log_ratio(alpha_bar: float) -> float:
        return math.log(alpha_bar / (1 - alpha_bar)) / 2

    previous: tuple[float, Tensor] | None = None  # the last step's h and x0
    for index, (t, t_next) in enumerate(pairwise([*timesteps, -1])):
        x0 = predict_x0(x, t)
        if t_next < 0:
            yield Step(index, t, x0, x0)
            return
        alpha_bar, alpha_bar_next = schedule.signal(t), schedule.signal(t_next)
        h = log_ratio(alpha_bar_next) - log_ratio(alpha_bar)
        corrected = x0
        if previous is not None:
            h_previous, x0_previous = previous
            corrected = x0 + h / (2 * h_previous) * (x0 - x0_previous)
        sigma, sigma_next = math.sqrt(1 - alpha_bar), math.sqrt(1 - alpha_bar_next)
        if noise is None:
            x = sigma_next / sigma * x - math.sqrt(alpha_bar_next) * math.expm1(-h) * corrected
        else:
            lost = -math.expm1(-2 * h)  # the share of the variance that this step replaces with fresh noise
            x = sigma_next / sigma * math.exp(-h) * x + math.sqrt(alpha_bar_next) * lost * corrected
            x = x + sigma_next * math.sqrt(lost) * noise()
        previous = (h, x0)
        yield Step(index, t, x, x0)


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpmpp": dpmpp, "dpmpp-sde": dpmpp_sde}
