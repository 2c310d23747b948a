"""Noise schedules."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LINEAR_MIN_TIMESTEPS = 50


@dataclass(frozen=True, slots=True)
class Schedule:
    """The cumulative signal level of the diffusion process.

    Everything follows from ``alpha_bar``: a noisy image is
    ``x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon`` (Ho et al. 2020, eq. 4).

    Attributes:
        alpha_bar: float64[T], strictly decreasing, in (0, 1).
    """

    alpha_bar: Tensor

    def __len__(self) -> int:
        return len(self.alpha_bar)

    @property
    def alpha(self) -> Tensor:
        """Signal scale ``sqrt(alpha_bar)``, float64[T]."""
        return self.alpha_bar.sqrt()

    @property
    def sigma(self) -> Tensor:
        """Noise scale ``sqrt(1 - alpha_bar)``, float64[T]."""
        return (1 - self.alpha_bar).sqrt()

    @property
    def betas(self) -> Tensor:
        """Variance added by each step, float64[T]."""
        previous = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        return 1 - self.alpha_bar / previous

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio ``alpha_bar / (1 - alpha_bar)``, float64[T]."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def signal(self, t: int) -> float:
        """``alpha_bar`` at timestep ``t``; 1.0 for ``t = -1``, the clean image."""
        return 1.0 if t < 0 else float(self.alpha_bar[t])


def linear(timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Linearly spaced betas (Ho et al. 2020, section 4).

    The bounds are those of 1000 timesteps and are scaled by ``1000 / timesteps``, so that a shorter process
    also ends in noise.
    """
    if timesteps < LINEAR_MIN_TIMESTEPS:
        raise ValueError(f"a linear schedule needs at least {LINEAR_MIN_TIMESTEPS} timesteps, not {timesteps}")
    scale = 1000 / timesteps
    betas = torch.linspace(scale * beta_start, scale * beta_end, timesteps, dtype=torch.float64, device="cpu")
    return Schedule(torch.cumprod(1 - betas, dim=0))


def cosine(timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """A squared cosine of time (Nichol & Dhariwal 2021, eq. 17), betas capped at ``max_beta``."""
    time = torch.arange(timesteps + 1, dtype=torch.float64, device="cpu") / timesteps
    level = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - level[1:] / level[:-1]).clamp(max=max_beta)
    return Schedule(torch.cumprod(1 - betas, dim=0))


SCHEDULES: dict[str, Callable[[int], Schedule]] = {"linear": linear, "cosine": cosine}
