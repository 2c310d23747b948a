"""The mathematics behind the lessons, computed on real images."""

import math

import torch
from torch import Tensor


def conditional_mean(x: Tensor, images: Tensor, alpha: float, sigma: float) -> Tensor:
    """``E[x0 | x_t]`` for ``x0`` uniform over ``images``: the prediction of least squared error.

    The posterior of image ``i`` is proportional to ``exp(-|x_t - alpha x_i|^2 / (2 sigma^2))`` (Bayes' rule on
    Ho et al. 2020, eq. 4), and the mean is the sum of all images with these weights.

    Args:
        x: noisy images, float[N,C,S,S].
        images: clean images in the pixel range of ``x``, float[M,C,S,S].
    """
    noisy, clean = x.flatten(1), images.flatten(1)
    # Without the term common to all images, to avoid cancellation in float32.
    fit = (alpha * noisy @ clean.T - (alpha**2 / 2) * clean.square().sum(1)) / sigma**2
    return (fit.softmax(dim=1) @ clean).view_as(x)


def signal_to_noise(images: Tensor, alpha_bar: float) -> float:
    """The signal-to-noise ratio of the differences between images, in decibels.

    ``10 log10(alpha_bar Var[x0] / (1 - alpha_bar))``, with the variance over images, a mean over pixels. A range
    of half the width has a quarter of the variance: 6.02 dB less at every timestep.

    Args:
        images: clean images in the pixel range, float[N,C,S,S], at least two.
        alpha_bar: share of the signal, in (0, 1).
    """
    variance = float(images.double().var(dim=0, correction=0).mean())
    return 10 * math.log10(alpha_bar * variance / (1 - alpha_bar))


def first_below(images: Tensor, alpha_bar: Tensor, decibels: float = 0.0) -> int:
    """The first timestep at which `signal_to_noise` is below ``decibels``; T if there is none."""
    ratio = [signal_to_noise(images, 0.5) + 10 * math.log10(float(level / (1 - level))) for level in alpha_bar]
    return next((t for t, value in enumerate(ratio) if value < decibels), len(ratio))


def dependence_on_batch(predictions: Tensor) -> float:
    """How much the prediction for one image varies with the other images of its batch, as root mean square over pixels.

    Args:
        predictions: for one image in different batches, float[K,C,S,S].
    """
    return float(torch.var(predictions.double(), dim=0, correction=0).mean().sqrt())
