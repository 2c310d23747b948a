"""References for `core`: `diffusers`, and data whose optimal denoiser is known in closed form."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from ddpmctl.core.schedule import Schedule

BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTION_TYPES = {"epsilon": "epsilon", "v": "v_prediction"}

BestDenoiser = Callable[[Tensor, float, float], Tensor]
"""``(x_t, alpha, sigma) -> E[x0 | x_t]``."""


def gaussian(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """For pixels drawn from a normal distribution of mean 0.3 and deviation 0.5."""
    mean, variance = 0.3, 0.25
    return mean + variance * alpha / (alpha**2 * variance + sigma**2) * (x - alpha * mean)


def two_points(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """For pixels that are -0.8 or 0.8, equally often."""
    return 0.8 * torch.tanh(0.8 * alpha * x / sigma**2)


@dataclass(frozen=True)
class Move:
    """One step of a `diffusers` scheduler: the image after it, and the predicted clean one where it tells."""

    t: int
    x: Tensor
    x0: Tensor | None


def scheduler(kind: str, schedule: str, timesteps: int, **settings: Any) -> Any:
    """A `diffusers` scheduler with our betas; clips nothing and spaces its steps as we do."""
    scale = 1000 / timesteps
    return getattr(diffusers, kind)(
        num_train_timesteps=timesteps,
        beta_start=1e-4 * scale,
        beta_end=0.02 * scale,
        beta_schedule=BETA_SCHEDULES[schedule],
        timestep_spacing="trailing",
        **settings,
    )


def in_float64(made: Any, schedule: Schedule) -> Any:
    """The same scheduler with our float64 numbers: its own are float32, too coarse at the noisy end."""
    made.alphas_cumprod = schedule.alpha_bar
    made.betas = schedule.betas
    made.alphas = 1 - schedule.betas
    return made


def run(
    made: Any, schedule: Schedule, steps: int, x: Tensor, answer: Callable[[Tensor, int], Tensor]
) -> Iterator[Move]:
    """Sample with a scheduler, its noise from a generator of seed 1."""
    made.set_timesteps(steps)
    if hasattr(made, "sigmas"):
        chosen = schedule.alpha_bar[made.timesteps]
        made.sigmas = torch.cat([((1 - chosen) / chosen).sqrt(), chosen.new_zeros(1)])
    generator = torch.Generator().manual_seed(1)
    # This one would draw its noise in float32, which is another stream.
    draws = str(made.config.get("algorithm_type")).startswith("sde")
    for t in made.timesteps:
        noise = {"variance_noise": torch.randn(x.shape, generator=generator, dtype=x.dtype)} if draws else {}
        done = made.step(answer(x, int(t)), t, x, generator=generator, **noise)
        x = done.prev_sample
        yield Move(int(t), x, done.get("pred_original_sample"))
