"""The forward process and what the network is taught to say about it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpmctl.core.schedule import Schedule

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``model(x: float[B,C,H,W], t: int64[B], label: int64[B]) -> float[B,C,H,W]``."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a network predicts, as a pair of inverse maps.

    With ``x_t = alpha x0 + sigma epsilon``:

    Attributes:
        encode: ``(x0, epsilon, alpha, sigma) -> target``, what the network should answer.
        decode: ``(x_t, answer, alpha, sigma) -> x0``, the clean image that the answer means.
    """

    encode: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    decode: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


TARGETS: dict[str, Target] = {
    # Ho et al. 2020, eq. 14: the noise itself.
    "epsilon": Target(
        encode=lambda x0, epsilon, alpha, sigma: epsilon,
        decode=lambda x, epsilon, alpha, sigma: (x - sigma * epsilon) / alpha,
    ),
    # Salimans & Ho 2022, eq. 10: the velocity, well scaled at both ends of the chain.
    "v": Target(
        encode=lambda x0, epsilon, alpha, sigma: alpha * epsilon - sigma * x0,
        decode=lambda x, v, alpha, sigma: alpha * x - sigma * v,
    ),
    # Ho et al. 2020, section 3.2, where it was found to sample worse: the clean image.
    "x0": Target(
        encode=lambda x0, epsilon, alpha, sigma: x0,
        decode=lambda x, x0, alpha, sigma: x0,
    ),
}


@dataclass(frozen=True, slots=True)
class Diffusion:
    """A schedule and a target: the one place that knows what a network's answer means.

    Attributes:
        schedule: the noise levels of the chain.
        target: a key of `TARGETS`.
        clip_x0: keep predicted images in the range of the pixels at each step of a chain.
        pixel_range: what black and white are in the chain.
        table: alpha and sigma of every timestep on the device of the computation, float32[2,T]; set by `to`.
    """

    schedule: Schedule
    target: str
    clip_x0: bool = True
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    table: Tensor | None = None

    def to(self, device: torch.device) -> "Diffusion":
        """The same with its scales on a device, in float32, so that no step has to copy them there."""
        return replace(self, table=self._scales().float().to(device))

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha_t`` and ``sigma_t`` of int64[B] timesteps, shaped and typed to multiply ``like``."""
        table = self._scales().to(like.dtype).to(t.device) if self.table is None else self.table.to(like.dtype)
        alpha, sigma = table[:, t].view(2, -1, *[1] * (like.ndim - 1))
        return alpha, sigma

    def _scales(self) -> Tensor:
        return torch.stack([self.schedule.alpha, self.schedule.sigma])

    def noised(self, x0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Sample ``q(x_t | x_0)`` (Ho et al. 2020, eq. 4): float[B,C,H,W]."""
        alpha, sigma = self.scales(t, x0)
        return alpha * x0 + sigma * epsilon

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, epsilon: Tensor, label: Tensor) -> Tensor:
        """Squared error of the network's answer, a mean over pixels: float32[B].

        Args:
            model: the network.
            x0: clean images in the range of the pixels, float[B,C,H,W].
            t: timesteps, int64[B] in 0..T-1.
            epsilon: standard normal noise, float[B,C,H,W].
            label: class indices, int64[B]; the null class where the label is dropped.
        """
        alpha, sigma = self.scales(t, x0)
        answer = model(alpha * x0 + sigma * epsilon, t, label).float()
        expected = TARGETS[self.target].encode(x0, epsilon, alpha, sigma)
        return F.mse_loss(answer, expected, reduction="none").mean(dim=(1, 2, 3))

    def constant_mse(self, x0: Tensor) -> float:
        """MSE of the best prediction that does not look at its input: a network that has learned something is below.

        Each target is ``a epsilon + b x0``, of variance ``a^2 + b^2 var(x0)``, since the noise has unit variance and is
        independent of the image.

        Args:
            x0: images in the range of the pixels, float[B,C,H,W].

        Returns:
            A mean over the timesteps of the chain.
        """
        alpha, sigma = self.schedule.alpha, self.schedule.sigma
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        encode = TARGETS[self.target].encode
        of_noise, of_image = encode(zero, one, alpha, sigma), encode(one, zero, alpha, sigma)
        return float((of_noise**2 + of_image**2 * x0.double().var(correction=0).cpu()).mean())

    def predict_x0(self, x: Tensor, t: Tensor, answer: Tensor) -> Tensor:
        """The clean image that a network's answer at ``x_t`` stands for, clipped where the chain clips."""
        alpha, sigma = self.scales(t, x)
        x0 = TARGETS[self.target].decode(x, answer.to(x.dtype), alpha, sigma)
        return x0.clamp(*self.pixel_range) if self.clip_x0 else x0


def stratified_timesteps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """Timesteps spread evenly over the chain, one in each of ``count`` equal slices: int64[count], on its device.

    Each alone is uniform on 0..timesteps-1, as in Ho et al. 2020, algorithm 1; together they vary
    less, and so does the loss (Kingma et al. 2021, appendix I.1).
    """
    device = generator.device
    offset = torch.rand((), generator=generator, dtype=torch.float32, device=device)
    # Not randperm: sorting can be captured in a CUDA graph on every version.
    shuffled = torch.rand(count, generator=generator, dtype=torch.float32, device=device).argsort()
    return (((shuffled + offset) / count) * timesteps).long().clamp(max=timesteps - 1)
