"""Classifier-free guidance."""

import torch
from torch import Tensor

from ddpmctl.core.diffusion import Denoiser


def scale_at(time: float, scale: float, interval: tuple[float, ...]) -> float:
    """The guidance scale at ``time``, 0 for the image and 1 for the noise; 1.0 outside of ``interval``.

    Kynkaanniemi et al. 2024, eq. 6: in pure noise guidance costs diversity, and near the image it has no effect, where
    leaving it out halves the cost of a step.
    """
    low, high = interval
    return scale if low <= time <= high else 1.0


def guided(model: Denoiser, scale: float | Tensor, null_label: int) -> Denoiser:
    """A denoiser that returns ``none + scale * (labelled - none)`` (Ho & Salimans 2022, eq. 6 with scale = 1 + w).

    A scale of 1.0 is no guidance and costs nothing extra; 0.0 ignores the label. A scale tensor, float32[], always
    costs the second evaluation of the network: its value may change from call to call.
    """
    if not isinstance(scale, Tensor) and scale == 1.0:
        return model

    def denoise(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        # One pass over a doubled batch: the two halves share every weight that is read.
        none = torch.full_like(label, null_label)
        labelled, unlabelled = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, none])).chunk(2)
        return unlabelled + scale * (labelled - unlabelled)

    return denoise
