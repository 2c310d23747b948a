"""Editing on top of any sampler: noise levels of SDEdit, resampling of RePaint, mixed classes, interpolated noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from ddpmctl.config import Config, SamplingConfig
from ddpmctl.core.diffusion import Denoiser
from ddpmctl.core.samplers import Noise, PredictX0, Sampler, Step, beginning_timesteps, dpmpp, trailing_timesteps
from ddpmctl.core.schedule import Schedule
from ddpmctl.sampling.variation import PLAIN, Mix, Variation

PARTS, REPEATS = 10, 4
"""RePaint divides a chain into this many parts, and samples each this many times."""


def chain_timesteps(config: Config, steps: int, variation: Variation = PLAIN) -> list[int]:
    """The timesteps of a chain: ``steps`` of the network, after those of the closed form of a student.

    An edited picture takes those with ``t <= round(strength * T) - 1``, at least the last one.
    """
    length, first = config.diffusion.timesteps, config.chain_length
    timesteps = trailing_timesteps(first, steps)
    if config.closed_form:
        timesteps = [*beginning_timesteps(length, first - 1, config.closed_form.steps), *timesteps]
    if variation.start is None:
        return timesteps
    limit = round(variation.start.record.strength * length) - 1
    return [t for t in timesteps if t <= limit] or timesteps[-1:]


def step_count(config: Config, sampling: SamplingConfig, variation: Variation) -> int:
    """Sampling steps of one image."""
    timesteps = chain_timesteps(config, sampling.steps, variation)
    masked = variation.start is not None and variation.start.mask is not None
    return len(timesteps) * (REPEATS if masked else 1)


def begin_in_closed_form(
    first: int,
    sampler: Sampler,
    predict_x0: PredictX0,
    schedule: Schedule,
    x: Tensor,
    timesteps: list[int],
    noise: Noise,
) -> Iterator[Step]:
    """A chain whose steps down to timestep ``first``, those of the closed form, are DPM-Solver++(2M)'s."""
    above = sum(t > first for t in timesteps)
    for step in islice(dpmpp(predict_x0, schedule, x, timesteps[: above + 1], noise), above):
        yield step
        x = step.x
    for step in sampler(predict_x0, schedule, x, timesteps[above:], noise):
        yield replace(step, index=above + step.index)


def keep_known(predict_x0: PredictX0, x0: Tensor, changes: Tensor) -> PredictX0:
    """A prediction that is ``x0`` where a mask bool[S,S] is false.

    A sampler's step from ``x_t = alpha x_0 + sigma epsilon`` with this prediction ends in ``x_0`` noised to the next
    level: the known part of RePaint's algorithm 1, line 4, for every sampler.
    """

    def predict(x: Tensor, t: int) -> Tensor:
        return torch.where(changes, predict_x0(x, t), x0)

    return predict


def resample(
    sampler: Sampler, predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise
) -> Iterator[Step]:
    """A chain whose parts are repeated, each from its own result with the noise of its beginning added again.

    So the new part of an image comes to agree with the known one (Lugmayr et al. 2022, section 4.2).
    """
    length, index = math.ceil(len(timesteps) / PARTS), 0
    for first in range(0, len(timesteps), length):
        for repeat in range(REPEATS):
            for step in islice(sampler(predict_x0, schedule, x, timesteps[first:], noise), length):
                yield replace(step, index=index)
                index += 1
            x = step.x
            if repeat < REPEATS - 1:
                # q(x_t | x_s) of the forward process, from the level s of this part's end.
                end = timesteps[first + length] if first + length < len(timesteps) else -1
                ratio = schedule.signal(timesteps[first]) / schedule.signal(end)
                x = math.sqrt(ratio) * x + math.sqrt(1 - ratio) * noise()


def mixed(model: Denoiser, mix: Mix) -> Denoiser:
    """A denoiser that returns ``(1 - sum(w)) out(label) + sum(w_i out(label_i))``, in one pass over a larger batch."""
    weights = [1 - sum(weight for _, weight in mix), *(weight for _, weight in mix)]

    def denoise(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        labels = [label, *(torch.full_like(label, other) for other, _ in mix)]
        count = len(labels)
        outputs = model(torch.cat([x] * count), torch.cat([t] * count), torch.cat(labels)).chunk(count)
        return sum((weight * output for weight, output in zip(weights, outputs, strict=True)), torch.zeros_like(x))

    return denoise


def spherical(one: Tensor, other: Tensor, fractions: Sequence[float]) -> Tensor:
    """Spherical interpolation of noise float32[N,C,S,S], image k at fraction k (Shoemake 1985, "slerp")."""
    a, b = (noise.flatten(1).cpu().double() for noise in (one, other))  # MPS has no float64
    cosine = torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1)
    angle = torch.acos(cosine).clamp(min=1e-6)[:, None]
    at = torch.tensor(fractions, dtype=torch.float64)[:, None]
    between = (torch.sin((1 - at) * angle) * a + torch.sin(at * angle) * b) / torch.sin(angle)
    return between.float().view_as(one).to(one.device)
