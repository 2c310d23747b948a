"""A diffusion model as a classifier: the class whose conditional prediction is best (Li et al. 2023, arXiv:2303.16203).

The error of a class is the mean over draws of timestep and noise of ``SNR_t ||x_0 - x0_hat(x_t, class)||^2 / pixels``:
the squared error of the predicted noise, whatever the network predicts. All classes are compared on the same draws, so
that the differences between their errors vary much less than the errors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ddpmctl.config import check_seed
from ddpmctl.core.gaussian import GaussianDenoiser, GaussianResidual
from ddpmctl.core.noise import normal
from ddpmctl.evaluation.denoising import Denoising, check_classifier
from ddpmctl.sampling.engine import Engine

LOG_SNR = (0.5, -3.5)
"""Noise levels of the draws. Nearer to the image, all classes predict almost the same; nearer to noise, none knows the
image (measured: README.md)."""


class Round(NamedTuple):
    """Draws for the remaining classes, and the number of classes that remain after them at most."""

    draws: int
    keep: int


ROUNDS = (Round(3, 4), Round(6, 3), Round(12, 2), Round(24, 2), Round(48, 1))
STANDARD_ERRORS = 2.5
"""A class is dropped when its error exceeds the smallest by this many standard errors of the difference."""

CLOSED_FORM_LOG_SNR, CLOSED_FORM_MARGIN, CLOSED_FORM_KEEP = 0.64, 0.06, 2
"""Without network evaluations, the Gaussian denoiser keeps the classes whose log-likelihood at this noise level is
within so many nats a pixel of the best, and at least the best two (measured: README.md)."""

GROUP, TABLE = 128, 2**22
"""Images that are classified together, at most, and the size of their table of errors."""

MAP_LOG_SNR, MAP_TIMESTEPS, MAP_DRAWS = (6.0, -6.0), 25, 4


@dataclass(frozen=True, slots=True)
class Classification:
    """The classes that a model takes images for.

    Attributes:
        labels: the class of the smallest error, int64[N].
        errors: of every class, float64[N,K]. That of a dropped class is the error of ``labels`` and what exceeded it on
            the draws that both were compared on.
        evaluations: network function evaluations per image, int64[N].
    """

    labels: Tensor
    errors: Tensor
    evaluations: Tensor


@torch.inference_mode()
def classify(
    engine: Engine,
    images: Tensor,
    seed: int = 0,
    rounds: tuple[Round, ...] = ROUNDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    closed_form: bool = False,
) -> Classification:
    """Classify images by successive elimination: an image is finished when all classes but one are dropped.

    Args:
        images: uint8[N,C,S,S] at the resolution of the network.
        seed: of the noise, which all images share: the class of an image does not depend on the others.
        progress: called with the number of finished images and their total.
        closed_form: let the Gaussian denoiser, if the model has one, drop hopeless classes first; their errors are NaN.
    """
    check_classifier(engine.checkpoint)
    denoising = Denoising(engine)
    t = torch.cat([timesteps_at(engine, LOG_SNR, draws) for draws, _ in rounds])
    noise = shared_noise(denoising, seed, len(t))
    classes, parts = engine.config.model.num_classes, []
    size = max(1, min(GROUP, TABLE // (len(t) * classes)))
    for start in range(0, len(images), size):
        x0 = denoising.clean(images[start : start + size])
        table = torch.full((len(x0), len(t), classes), math.nan, dtype=torch.float64, device="cpu")
        remaining, done = torch.ones(len(x0), classes, dtype=torch.bool, device="cpu"), 0
        if closed_form and isinstance(engine.network, GaussianResidual):
            remaining = plausible(engine, engine.network.gaussian, x0)
        for draws, keep in rounds:
            undecided = (remaining.sum(dim=1) > 1).nonzero()[:, 0]
            if not len(undecided):
                break
            image, draw, label = remaining[undecided, None].expand(-1, draws, -1).nonzero().unbind(1)
            image, draw = undecided[image], done + draw
            table[image, draw, label] = noise_errors(denoising, x0, t, noise, (image, draw, label))
            done += draws
            remaining[undecided] = survivors(table[undecided, :done], keep)
        parts.append(_classification(table, remaining))
        progress(start + len(x0), len(images))
    return Classification(*(torch.cat(part) for part in zip(*parts, strict=True)))


def plausible(engine: Engine, gaussian: GaussianDenoiser, x0: Tensor) -> Tensor:
    """The classes that the Gaussian denoiser does not drop, bool[N,K] on the CPU, for x0 float32[N,C,S,S]."""
    (t,) = timesteps_at(engine, (CLOSED_FORM_LOG_SNR, CLOSED_FORM_LOG_SNR), 1).tolist()
    found = gaussian.log_likelihood(x0, t).cpu()
    margin = CLOSED_FORM_MARGIN * x0[0].numel()
    near = found >= found.amax(dim=1, keepdim=True) - margin
    rank = found.argsort(dim=1, descending=True).argsort(dim=1)
    return near | (rank < CLOSED_FORM_KEEP)


def survivors(errors: Tensor, keep: int) -> Tensor:
    """The classes that are not dropped, bool[N,K], by their errors on the same draws.

    Args:
        errors: float64[N,draws,K]; NaN for classes that were dropped before.
        keep: the number of classes that remain at most.
    """
    mean = errors.mean(dim=1).nan_to_num(nan=math.inf)
    best = mean.argmin(dim=1)[:, None, None].expand(-1, errors.shape[1], 1)
    excess = errors - errors.gather(2, best)
    hopeless = excess.mean(dim=1) > STANDARD_ERRORS * excess.std(dim=1) / math.sqrt(errors.shape[1])
    return mean.isfinite() & ~hopeless & (mean.argsort(dim=1).argsort(dim=1) < keep)


def _classification(table: Tensor, remaining: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, errors and evaluations of images, by errors float64[N,draws,K] and the class bool[N,K] that remains."""
    labels = remaining.int().argmax(dim=1)
    winner = table.gather(2, labels[:, None, None].expand(-1, table.shape[1], 1))
    errors = winner.nanmean(dim=1) + (table - winner).nanmean(dim=1)
    return labels, errors, (~table.isnan()).sum(dim=(1, 2))


@torch.inference_mode()
def error_map(engine: Engine, image: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Timesteps int64[T] from the image to noise, and the error of each class at each of them, float64[K,T].

    Args:
        image: uint8[C,S,S] at the resolution of the network.
    """
    check_classifier(engine.checkpoint)
    denoising, classes = Denoising(engine), engine.config.model.num_classes
    t = timesteps_at(engine, MAP_LOG_SNR, MAP_TIMESTEPS)
    noise = shared_noise(denoising, seed, len(t) * MAP_DRAWS)
    draw, label = torch.cartesian_prod(
        torch.arange(len(noise), device="cpu"), torch.arange(classes, device="cpu")
    ).unbind(1)
    rows = (torch.zeros_like(draw), draw, label)
    errors = noise_errors(denoising, denoising.clean(image[None]), t.repeat_interleave(MAP_DRAWS), noise, rows)
    return t, errors.view(len(t), MAP_DRAWS, classes).mean(dim=1).T


def timesteps_at(engine: Engine, log_snr: tuple[float, float], count: int) -> Tensor:
    """Timesteps at evenly spaced noise levels, each in the middle of its part of the interval, int64[count].

    The levels are those of pixels in -1..1; with half of that range, the signal is half as strong.
    """
    low, high = engine.diffusion.pixel_range
    first, last = (level - 2 * math.log((high - low) / 2) for level in log_snr)
    levels = first + (last - first) * (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count
    return (engine.diffusion.schedule.snr.log()[:, None] - levels).abs().argmin(dim=0)


def shared_noise(denoising: Denoising, seed: int, draws: int) -> Tensor:
    """The noise of each draw, float32[draws,C,S,S] on the device: draw by draw, whatever their number."""
    check_seed(seed)
    return normal([seed], 0, (draws, *denoising.shape))[0].to(denoising.engine.device)


def noise_errors(
    denoising: Denoising, x0: Tensor, t: Tensor, noise: Tensor, rows: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """The errors of some images, draws and classes, which are indices int64[B] each: float64[B] on the CPU.

    Args:
        x0: clean images float32[N,C,S,S] on the device.
        t: the timestep of each draw, int64[draws].
        noise: of each draw, float32[draws,C,S,S] on the device.
    """
    diffusion, device = denoising.engine.diffusion, x0.device
    errors = []
    for image, draw, label in zip(*(torch.split(index, denoising.batch) for index in rows), strict=True):
        clean, time = x0[image.to(device)], t[draw].to(device)
        x = diffusion.add_noise(clean, time, noise[draw.to(device)])
        squares = (clean - denoising.predict_x0(x, time, label.to(device))).square().mean(dim=(1, 2, 3))
        errors.append(squares.cpu().double() * diffusion.schedule.snr[t[draw]])
    return torch.cat(errors)
