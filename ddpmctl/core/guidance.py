"""Classifier-free guidance."""

import torch
from torch import Tensor

from ddpmctl.core.diffusion import Denoiser


def scale_at(relative_t: float, scale: float, interval: tuple[float, ...]) -> float:
    """The guidance scale at t / T, 0 for the image and 1 for the noise; 1.0 outside of ``interval``.

    Kynkaanniemi et al. 2024, eq. 6: guidance costs diversity near pure noise and has no effect near the image; a step
    without it costs half.
    """
    low, high = interval
    return scale if low <= relative_t <= high else 1.0


def guided(model: Denoiser, scale: float | Tensor, null_label: int) -> Denoiser:
    """A denoiser that returns ``uncond + scale * (cond - uncond)`` (Ho & Salimans 2022, eq. 6 with scale = 1 + w).

    A scale of 1.0 disables guidance and costs nothing extra; 0.0 ignores the label. A scale tensor, float32[], always
    costs a second forward pass, since its value may change between calls.
    """
    if not isinstance(scale, Tensor) and scale == 1.0:
        return model

    def denoise(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        # One pass over a doubled batch: both halves share each weight read from memory.
        null = torch.full_like(label, null_label)
        cond, uncond = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, null])).chunk(2)
        return uncond + scale * (cond - uncond)

    return denoise
