"""Guided progressive distillation: a student that takes one DDIM step where its teacher takes several."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpmctl.core.diffusion import PARAMETERIZATIONS, Denoiser, Diffusion
from ddpmctl.core.guidance import guided
from ddpmctl.core.samplers import trailing_timesteps


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained network with its guidance.

    Attributes:
        network: in evaluation mode, without gradients.
        diffusion: its forward process, on the device; the same noise levels as the student's.
        scale: the guidance scale; 1.0 disables guidance.
        interval: of t / T, in which guidance is applied.
    """

    network: Denoiser
    diffusion: Diffusion
    scale: float
    interval: tuple[float, ...]
    null_label: int

    def predict_x0(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The clean images float32[B,C,H,W] that it predicts from ``x`` at timesteps ``t``, int64[B]."""
        if self.scale == 1.0:
            return self.diffusion.predict_x0(x, t, self.network(x, t, label).float())
        relative = t.view(-1, 1, 1, 1) / len(self.diffusion.schedule)
        low, high = self.interval
        scale = torch.where((relative >= low) & (relative <= high), self.scale, 1.0)
        return self.diffusion.predict_x0(x, t, guided(self.network, scale, self.null_label)(x, t, label).float())


class Distillation:
    """The loss of a student of ``steps`` DDIM steps (Salimans & Ho 2022, algorithm 2; Meng et al. 2023 for guidance).

    From ``x_t`` at one of the student's timesteps, the teacher takes ``substeps`` DDIM steps to ``x_s`` at the
    student's next one. The target is the clean image from which a single DDIM step would arrive at the same ``x_s``:

        x~ = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)

    Args:
        length: the student's chain begins at the timestep before it, T for pure noise.

    Attributes:
        timesteps: those that the student is trained at, int64[steps] on the device, descending.
    """

    def __init__(
        self, teacher: Teacher, diffusion: Diffusion, steps: int, substeps: int, length: int, device: torch.device
    ) -> None:
        self.teacher = teacher
        self.diffusion = diffusion
        fine = [*trailing_timesteps(length, steps * substeps), -1]
        self.timesteps = torch.tensor(fine[:-1:substeps], device=device)
        # Row t: the teacher's timesteps from t to the student's next one; -1 is the clean image.
        self._path = torch.full((len(diffusion.schedule), substeps + 1), -1, device=device)
        for start in range(0, steps * substeps, substeps):
            self._path[fine[start]] = torch.tensor(fine[start : start + substeps + 1], device=device)
        # alpha and sigma with those of the clean image at the end, which is where index -1 looks.
        table = torch.stack([diffusion.schedule.alpha, diffusion.schedule.sigma]).float()
        self._table = torch.cat([table, torch.tensor([[1.0], [0.0]])], dim=1).to(device)

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, epsilon: Tensor, label: Tensor) -> Tensor:
        """Squared error of the model output, averaged over pixels: float32[B]; arguments as for `Diffusion.loss`."""
        alpha, sigma = self._alpha_sigma(t)
        x = alpha * x0 + sigma * epsilon
        with torch.no_grad():
            target_x0 = self.target(x, t, label)
            of_noise = (x - alpha * target_x0) / sigma
            to_output = PARAMETERIZATIONS[self.diffusion.parameterization].to_model_output
            target = to_output(target_x0, of_noise, alpha, sigma)
        return F.mse_loss(model(x, t, label).float(), target, reduction="none").mean(dim=(1, 2, 3))

    def target(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The clean images ``x~`` from which one DDIM step arrives where the teacher's steps do: float32[B,C,H,W]."""
        path = self._path[t].T
        current, x_t = x, x
        for now, following in pairwise(path):
            predicted = self.teacher.predict_x0(current, now, label)
            (alpha, sigma), (alpha_next, sigma_next) = self._alpha_sigma(now), self._alpha_sigma(following)
            # Song et al. 2021, eq. 12 with eta = 0.
            current = alpha_next * predicted + sigma_next / sigma * (current - alpha * predicted)
        (alpha, sigma), (alpha_s, sigma_s) = self._alpha_sigma(t), self._alpha_sigma(path[-1])
        ratio = sigma_s / sigma
        return (current - ratio * x_t) / (alpha_s - ratio * alpha)

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self._table[:, t].view(2, -1, 1, 1, 1)
        return alpha, sigma
