"""The likelihood of 8-bit images: the variational bound of the diffusion process, in bits per dimension."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpmctl.config import check_seed
from ddpmctl.core.noise import normal
from ddpmctl.evaluation.denoising import Denoising, check_denoiser
from ddpmctl.sampling.engine import Engine

TIMESTEPS = 16
"""Random timesteps per image."""

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Upper bounds of the negative log-likelihood of images given their labels, in bits per dimension, float64[N] each.

    Attributes:
        prior: L_T: how far the last noise level is from pure noise.
        diffusion: the sum of L_1 .. L_{T-1}, estimated from random timesteps.
        decoder: L_0: the last step, which yields 8-bit pixels.
        timesteps: evaluated per image, other than the last step.
    """

    prior: Tensor
    diffusion: Tensor
    decoder: Tensor
    timesteps: int

    @property
    def bits(self) -> Tensor:
        """The bound of each image."""
        return self.prior + self.diffusion + self.decoder

    @property
    def mean(self) -> float:
        """Bits per dimension of all images."""
        return float(self.bits.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, from the choice of images, timesteps and noise; NaN for one image."""
        return float(self.bits.std()) / math.sqrt(len(self.bits))


@torch.inference_mode()
def likelihood(
    engine: Engine,
    images: Tensor,
    labels: Tensor,
    seed: int = 0,
    timesteps: int | None = TIMESTEPS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Likelihood:
    """The bound of Ho et al. 2020, section 3.4, without guidance: ``L_T + L_{T-1} + .. + L_0``.

    Args:
        images: uint8[N,C,S,S] at the resolution of the network.
        labels: int64[N].
        seed: image k draws its noise from ``seed + k``.
        timesteps: random timesteps per image; None evaluates each once, and the sum is exact for that noise.
        progress: called with the number of finished images and their total.
    """
    check_denoiser(engine.checkpoint, "likelihood")
    check_seed(seed, max(1, len(images)))
    denoising, length = Denoising(engine), len(engine.diffusion.schedule)
    count = length - 1 if timesteps is None else timesteps
    group = max(1, denoising.batch // (count + 1))
    parts: list[Tensor] = []
    for start in range(0, len(images), group):
        ids = torch.arange(start, min(start + group, len(images)), device="cpu")
        x0, label = denoising.clean(images[ids]), labels[ids].to(engine.device)
        t, weight = (
            (torch.arange(1, length, device="cpu").expand(len(ids), -1), 1.0)
            if timesteps is None
            else random_timesteps(engine.diffusion.schedule.alpha_bar, ids, seed, timesteps)
        )
        t = torch.cat([t.new_zeros(len(ids), 1), t], dim=1).flatten()
        epsilon = normal([seed + k for k in ids.tolist()], 0, (count + 1, *denoising.shape)).flatten(0, 1)
        rows = torch.arange(len(ids), device=engine.device).repeat_interleave(count + 1)
        batches = zip(*(torch.split(each, denoising.batch) for each in (rows, t, epsilon)), strict=True)
        terms = [
            step_nats(denoising, x0[row], time.to(engine.device), noise.to(engine.device), label[row])
            for row, time, noise in batches
        ]
        nats = torch.cat(terms).view(len(ids), -1)
        parts.append(torch.stack([prior_nats(denoising, x0), (weight * nats[:, 1:]).sum(dim=1), nats[:, 0]]))
        progress(start + len(ids), len(images))
    bits = torch.cat(parts, dim=1) / (math.prod(denoising.shape) * math.log(2))
    prior, diffusion, decoder = bits
    return Likelihood(prior, diffusion, decoder, count)


def random_timesteps(alpha_bar: Tensor, ids: Tensor, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Timesteps int64[N,count] in 1..T-1 for images int64[N], and their weights float64[N,count] in an unbiased sum.

    Their density is the squared error of the predicted noise if that of the velocity were the same at all noise levels,
    ``alpha_bar |d log SNR|``: where the terms are large. They are spread evenly over its distribution, for each image
    and over images (Kingma et al. 2021, appendix I.1).
    """
    log_snr = alpha_bar.logit()
    density = alpha_bar[1:] * (log_snr[:-1] - log_snr[1:])
    density = density / density.sum()
    offset = torch.rand((), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float64, device="cpu")
    shift = ((ids + 1) * GOLDEN + offset) % 1
    place = (torch.arange(count, device="cpu") + shift[:, None]) / count
    index = torch.searchsorted(density.cumsum(0), place).clamp(max=len(density) - 1)
    return index + 1, 1 / (count * density[index])


def step_nats(denoising: Denoising, x0: Tensor, t: Tensor, epsilon: Tensor, labels: Tensor) -> Tensor:
    """The term of one step, from timestep t to t - 1, of each image: float64[B] on the CPU.

    With the variance of the posterior the KL divergence is ``(SNR_{t-1} - SNR_t) ||x_0 - x0_hat||^2 / 2`` (Kingma et
    al. 2021, eq. 13). Timestep 0 is the decoder's; its variance would be 0, and is that of the step before, as in the
    code of Ho et al.
    """
    diffusion, schedule = denoising.engine.diffusion, denoising.engine.diffusion.schedule
    predicted = denoising.predict_x0(diffusion.add_noise(x0, t, epsilon), t, labels)
    squares = (x0 - predicted).cpu().double().square().sum(dim=(1, 2, 3))
    t = t.cpu()
    nats = (schedule.snr[(t - 1).clamp(min=0)] - schedule.snr[t]) / 2 * squares
    if (first := t == 0).any():
        variance = schedule.betas[1] * schedule.betas[0] / (1 - schedule.alpha_bar[1])
        x0, predicted = (each[first.to(each.device)].cpu().double() for each in (x0, predicted))
        nats[first] = discretized_nll(x0, predicted, float(variance.sqrt()), diffusion.pixel_range)
    return nats


def discretized_nll(x0: Tensor, mean: Tensor, deviation: float, pixel_range: tuple[float, float]) -> Tensor:
    """Negative log-probability of 8-bit pixels under a normal distribution in 256 bins, in nats: float64[B].

    The first and the last bin extend to infinity (Ho et al. 2020, eq. 13).
    """
    low, high = pixel_range
    half = (high - low) / 510
    above = torch.where(x0 > high - half, math.inf, (x0 + half - mean) / deviation)
    below = torch.where(x0 < low + half, -math.inf, (x0 - half - mean) / deviation)
    # In the upper tail the difference of two numbers near 1 would be lost: there the distribution is mirrored.
    mirrored = above + below > 0
    above, below = torch.where(mirrored, -below, above), torch.where(mirrored, -above, below)
    log_above, log_below = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    log_difference: Tensor = log_above + torch.log1p(-(log_below - log_above).exp())
    return -log_difference.sum(dim=(1, 2, 3))


def prior_nats(denoising: Denoising, x0: Tensor) -> Tensor:
    """L_T: the KL divergence of q(x_T | x_0) from pure noise, float64[B] on the CPU."""
    alpha_bar = denoising.engine.diffusion.schedule.alpha_bar[-1]
    squares, pixels = x0.cpu().double().square().sum(dim=(1, 2, 3)), math.prod(denoising.shape)
    return (alpha_bar * squares - pixels * (alpha_bar + torch.log1p(-alpha_bar))) / 2
