"""The forward process, the parameterizations of the network's output, and the training loss."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpmctl.core.schedule import Schedule

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``model(x: float[B,C,H,W], t: int64[B], label: int64[B]) -> float[B,C,H,W]``."""


@dataclass(frozen=True, slots=True)
class Parameterization:
    """What a network predicts, as a pair of inverse maps for ``x_t = alpha x0 + sigma epsilon``.

    Attributes:
        to_model_output: ``(x0, epsilon, alpha, sigma) -> model output``, the training target.
        from_model_output: ``(x_t, model output, alpha, sigma) -> x0``, the predicted clean image.
    """

    to_model_output: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    from_model_output: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


PARAMETERIZATIONS: dict[str, Parameterization] = {
    # Ho et al. 2020, eq. 14: the noise itself.
    "epsilon": Parameterization(
        to_model_output=lambda x0, epsilon, alpha, sigma: epsilon,
        from_model_output=lambda x, epsilon, alpha, sigma: (x - sigma * epsilon) / alpha,
    ),
    # Salimans & Ho 2022, eq. 10: the velocity, well scaled at both ends of the diffusion process.
    "v": Parameterization(
        to_model_output=lambda x0, epsilon, alpha, sigma: alpha * epsilon - sigma * x0,
        from_model_output=lambda x, v, alpha, sigma: alpha * x - sigma * v,
    ),
    # Ho et al. 2020, section 3.2, where it was found to sample worse: the clean image.
    "x0": Parameterization(
        to_model_output=lambda x0, epsilon, alpha, sigma: x0,
        from_model_output=lambda x, x0, alpha, sigma: x0,
    ),
}


@dataclass(frozen=True, slots=True)
class Diffusion:
    """The forward process, the training loss, and the conversion of model output to the predicted x_0.

    Attributes:
        schedule: the noise levels.
        parameterization: a key of `PARAMETERIZATIONS`.
        clip_x0: clamp predicted images to ``pixel_range`` at each sampling step.
        pixel_range: the values of black and white.
        table: alpha and sigma of every timestep on the device of the computation, float32[2,T]; set by `to`.
    """

    schedule: Schedule
    parameterization: str
    clip_x0: bool = True
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    table: Tensor | None = None

    def to(self, device: torch.device) -> "Diffusion":
        """A copy with alpha and sigma on a device, in float32, to avoid a copy in each step."""
        return replace(self, table=self._table().float().to(device))

    def alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha_t`` and ``sigma_t`` of int64[B] timesteps, with the dtype of ``like`` and broadcastable to it."""
        table = self._table().to(like.dtype).to(t.device) if self.table is None else self.table.to(like.dtype)
        alpha, sigma = table[:, t].view(2, -1, *[1] * (like.ndim - 1))
        return alpha, sigma

    def _table(self) -> Tensor:
        return torch.stack([self.schedule.alpha, self.schedule.sigma])

    def add_noise(self, x0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Sample ``q(x_t | x_0)`` (Ho et al. 2020, eq. 4): float[B,C,H,W]."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return alpha * x0 + sigma * epsilon

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, epsilon: Tensor, label: Tensor) -> Tensor:
        """Squared error of the model output, averaged over pixels: float32[B].

        Args:
            model: the network.
            x0: clean images in ``pixel_range``, float[B,C,H,W].
            t: timesteps, int64[B] in 0..T-1.
            epsilon: standard normal noise, float[B,C,H,W].
            label: class indices, int64[B]; the null class for a dropped label.
        """
        alpha, sigma = self.alpha_sigma(t, x0)
        output = model(alpha * x0 + sigma * epsilon, t, label).float()
        target = PARAMETERIZATIONS[self.parameterization].to_model_output(x0, epsilon, alpha, sigma)
        return F.mse_loss(output, target, reduction="none").mean(dim=(1, 2, 3))

    def constant_mse(self, x0: Tensor) -> float:
        """MSE of the best prediction that ignores its input, averaged over timesteps; a trained model must be below it.

        Each target is ``a epsilon + b x0``, of variance ``a^2 + b^2 var(x0)``, since the noise has unit variance and is
        independent of the image ``x0``, float[B,C,H,W] in ``pixel_range``.
        """
        alpha, sigma = self.schedule.alpha, self.schedule.sigma
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        target = PARAMETERIZATIONS[self.parameterization].to_model_output
        of_noise, of_image = target(zero, one, alpha, sigma), target(one, zero, alpha, sigma)
        return float((of_noise**2 + of_image**2 * x0.double().var(correction=0).cpu()).mean())

    def predict_x0(self, x: Tensor, t: Tensor, model_output: Tensor) -> Tensor:
        """The clean image predicted by the model output at ``x_t``, clamped if ``clip_x0`` is set."""
        alpha, sigma = self.alpha_sigma(t, x)
        to_x0 = PARAMETERIZATIONS[self.parameterization].from_model_output
        x0 = to_x0(x, model_output.to(x.dtype), alpha, sigma)
        return x0.clamp(*self.pixel_range) if self.clip_x0 else x0


@dataclass(frozen=True, slots=True)
class Focus:
    """A distribution of t/T: this share of it is uniform in an interval, the rest in 0..1."""

    interval: tuple[float, ...] = (0.0, 1.0)
    share: float = 0.0

    def quantile(self, u: Tensor) -> Tensor:
        """The t/T, float[...] in 0..1, below which the share ``u`` of all draws lies."""
        low, high = self.interval
        outside = 1.0 - self.share
        inside = outside + self.share / (high - low)
        # Between the ends of the interval the distribution function rises by `inside`, elsewhere by `outside`.
        first = outside * low
        last = first + inside * (high - low)
        middle = low + (u - first) / inside
        if outside == 0:
            return middle
        return torch.where(u < first, u / outside, torch.where(u < last, middle, high + (u - last) / outside))


UNIFORM = Focus()


def stratified_timesteps(count: int, timesteps: int, generator: torch.Generator, focus: Focus = UNIFORM) -> Tensor:
    """Timesteps spread evenly over their distribution, one in each of ``count`` parts: int64[count].

    Each is distributed on its own as ``focus`` says: uniformly in 0..timesteps-1, as in Ho et al. 2020, algorithm 1, if
    it says nothing. Together they vary less, and so does the loss (Kingma et al. 2021, appendix I.1).
    """
    device = generator.device
    offset = torch.rand((), generator=generator, dtype=torch.float32, device=device)
    # Not randperm: sorting can be captured in a CUDA graph on every version.
    shuffled = torch.rand(count, generator=generator, dtype=torch.float32, device=device).argsort()
    return (focus.quantile((shuffled + offset) / count) * timesteps).long().clamp(max=timesteps - 1)
