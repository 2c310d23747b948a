"""Classifier-free guidance: lean towards the label by leaning away from no label."""

import torch
from torch import Tensor

from ddpmctl.core.diffusion import Denoiser


def scale_at(time: float, scale: float, interval: tuple[float, ...]) -> float:
    """The scale at one point of the chain: none outside of ``interval`` (Kynkaanniemi et al. 2024, eq. 6).

    In pure noise guidance picks favourites and costs diversity; near the image it has nothing left to decide, and
    leaving it out halves the cost of those steps.

    Args:
        time: share of the chain, 0 for the image and 1 for the noise.
        scale: inside.
        interval: from and to, both included.
    """
    low, high = interval
    return scale if low <= time <= high else 1.0


def guided(model: Denoiser, scale: float | Tensor, null_label: int) -> Denoiser:
    """A denoiser that answers ``none + scale * (labelled - none)`` (Ho & Salimans 2022, eq. 6 with scale = 1 + w).

    Args:
        model: a network trained with dropped labels.
        scale: 1.0 is no guidance and costs nothing extra; 0.0 ignores the label; above 1.0 exaggerates it. A tensor,
            float32[], always costs the second evaluation: its value may change from call to call.
        null_label: the index of the class that stands for "no label".
    """
    if not isinstance(scale, Tensor) and scale == 1.0:
        return model

    def denoise(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        # One pass over a doubled batch: the two halves share every weight that is read.
        none = torch.full_like(label, null_label)
        labelled, unlabelled = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, none])).chunk(2)
        return unlabelled + scale * (labelled - unlabelled)

    return denoise
