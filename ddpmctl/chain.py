"""One batch run along the chain, for whoever has a network in memory; and tensors as pixels."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import plugins
from .config import ModelConfig, SamplingConfig
from .core.diffusion import Denoiser, Diffusion
from .core.guidance import guided, scale_at
from .core.samplers import SAMPLERS, Sampler, Step, trailing_timesteps

Images = NDArray[np.uint8]

SMALLEST_BATCH = 8
"""A smaller one is filled up: kernels for very few images add in another order, and would make another image."""


@torch.inference_mode()
def run_chain(
    network: Denoiser,
    diffusion: Diffusion,
    model: ModelConfig,
    sampling: SamplingConfig,
    labels: list[int],
    seeds: range,
    device: torch.device,
    precision: str,
) -> Iterator[Step]:
    """The steps from noise to an image a label, all in one batch.

    Args:
        network: in evaluation mode, on the device.
        diffusion: of the same model, on the device.
        model: the network's settings.
        sampling: complete settings.
        labels: class indices.
        seeds: of each image, which draws all its noise from its own: it does not depend on the others.
        device: where to compute.
        precision: ``fp32`` or ``bf16``, of the network alone; the sampler computes in float32.

    Yields:
        Each step, its ``x`` and ``x0`` float32[N,C,S,S].
    """
    shape, length = (model.channels, model.image_size, model.image_size), len(diffusion.schedule)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    count = len(labels)
    filling = max(0, SMALLEST_BATCH - count)
    label = torch.tensor([*labels, *labels[-1:] * filling], device=device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    def noise() -> Tensor:
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
        together = torch.stack([*drawn, *drawn[-1:] * filling])
        return together.to(device).contiguous(memory_format=torch.channels_last)

    def predict_x0(x: Tensor, t: int) -> Tensor:
        times = torch.full((len(x),), t, device=device)
        scale = scale_at(t / length, sampling.guidance, sampling.guidance_interval)
        with autocast:
            answer = guided(network, scale, model.num_classes)(x, times, label)
        return diffusion.predict_x0(x, times, answer.float())

    run, timesteps = find_sampler(sampling.sampler), trailing_timesteps(length, sampling.steps)
    for step in run(predict_x0, diffusion.schedule, noise(), timesteps, noise):
        yield replace(step, x=step.x[:count], x0=step.x0[:count])


def find_sampler(name: str) -> Sampler:
    """A built-in sampler, or one that a plugin adds."""
    if name in SAMPLERS:
        return SAMPLERS[name]
    added: Sampler = plugins.available(plugins.SAMPLERS)[name].load()
    return added


def to_pixels(x: Tensor, pixel_range: tuple[float, float] = (-1.0, 1.0)) -> Images:
    """float[N,C,S,S] in a range to uint8[N,S,S], or [N,S,S,3] for three channels; what lies outside is cut off."""
    low, high = pixel_range
    return channels_last_pixels(((x.clamp(low, high) - low) * (255 / (high - low))).round().to("cpu", torch.uint8))


def channels_last_pixels(images: Tensor) -> Images:
    """uint8[N,C,S,S], as networks have it, to uint8[N,S,S] or [N,S,S,3], as files have it."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
