"""The best denoiser of images whose classes are Gaussian, in closed form, and a network that corrects it."""

from typing import cast

import torch
from torch import Tensor, nn

from ddpmctl.core.diffusion import Parameterization
from ddpmctl.core.schedule import Schedule

MAX_VALUES = 1408 * 32 * 32
"""Values of the principal components of all classes together: with more classes or pixels, each class has fewer."""

MAX_IMAGES = 6000
"""Images of a class whose principal components are computed."""

MIN_VARIANCE = 2e-3
"""Floor of the variances: an image is never exactly in the span of the others."""

ITERATIONS = 4
"""Subspace iterations of the randomized decomposition."""


class GaussianDenoiser(nn.Module):
    """``E[v | x_t]`` if the images of each class were normal, ``x_0 ~ N(m, S)``: nothing in it is trained.

    With the eigenvalues ``w`` of ``S`` and ``y = x_t - alpha m``,

        v = -sigma m + U diag(alpha sigma (1 - w) / (alpha^2 w + sigma^2)) U^T y

    (the conditional mean of a normal distribution, as a velocity: Salimans & Ho 2022). The components beyond the first
    ``rank`` share their mean variance (Tipping & Bishop 1999). The null class is the distribution of all images. At
    high noise levels this is nearly the optimal denoiser (Wang & Vastola 2024), which a network needs many steps to
    find.

    Args:
        pixels: values of an image, C * H * W.
        classes: without the null class.
        rank: principal components per class, at most.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor
    rest: Tensor
    levels: Tensor

    def __init__(self, schedule: Schedule, pixels: int, classes: int, rank: int) -> None:
        super().__init__()
        labels = classes + 1
        self.rank = max(1, min(rank, MAX_VALUES // (pixels * labels), pixels))
        self.register_buffer("mean", torch.zeros(labels, pixels))
        self.register_buffer("basis", torch.zeros(pixels, labels * self.rank))
        self.register_buffer("variance", torch.ones(labels, self.rank))
        self.register_buffer("rest", torch.ones(labels))
        levels = torch.stack([schedule.alpha, schedule.sigma]).float().to(self.mean.device)
        self.register_buffer("levels", levels, persistent=False)

    @torch.no_grad()
    def fit(self, images: Tensor, labels: Tensor) -> None:
        """Measure the mean and the principal components of each class and of all images.

        Args:
            images: in the range of the network, float32[N,C,H,W].
            labels: int64[N].
        """
        flat, count = images.flatten(1), len(self.mean)
        for label in range(count):
            chosen = flat if label == count - 1 else flat[labels == label]
            # A class of one image has no variance: it takes that of all images.
            self._fit_class(label, chosen if len(chosen) > 1 else flat)

    def _fit_class(self, label: int, images: Tensor) -> None:
        mean = images.mean(0)
        spread = (images - mean)[:: -(-len(images) // MAX_IMAGES)]
        total = spread.square().sum() / len(spread)
        rank = min(self.rank, *spread.shape)
        _, values, vectors = torch.svd_lowrank(spread, min(rank + 8, *spread.shape), niter=ITERATIONS)
        # The sign of a singular vector is arbitrary and cancels out.
        variance = values[:rank].square() / len(spread)
        left = max(1, images.shape[1] - rank)
        rest = ((total - variance.sum()) / left).clamp(min=MIN_VARIANCE)
        columns = slice(label * self.rank, label * self.rank + rank)
        self.mean[label] = mean
        self.basis[:, columns] = vectors[:, :rank]
        self.variance[label] = rest
        self.variance[label, :rank] = variance.clamp(min=MIN_VARIANCE)
        self.rest[label] = rest

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The expected velocity float32[B,C,H,W] for x float[B,C,H,W], t int64[B] and label int64[B]."""
        with torch.autocast(x.device.type, enabled=False):
            alpha, sigma = self.levels[:, t, None]
            mean, variance, rest = self.mean[label], self.variance[label], self.rest[label, None]
            y = x.flatten(1).float() - alpha * mean
            # All classes in one product, of which each image takes its own: cheaper than to gather a basis for each.
            of_class = torch.arange(len(self.mean), device=x.device) == label[:, None]
            components = (y @ self.basis).unflatten(1, (len(self.mean), self.rank))
            shared = _gain(rest, alpha, sigma)
            gains = (_gain(variance, alpha, sigma) - shared)[:, None] * of_class[..., None]
            velocity: Tensor = shared * y - sigma * mean + (components * gains).flatten(1) @ self.basis.T
        return velocity.view_as(x)


def _gain(variance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return alpha * sigma * (1 - variance) / (alpha**2 * variance + sigma**2)


class GaussianResidual(nn.Module):
    """A network that corrects the Gaussian denoiser: it is given the denoiser's output, and adds to it.

    Args:
        network: maps the noisy image and the velocity, as channels, to the correction, in any parameterization.
    """

    def __init__(self, network: nn.Module, gaussian: GaussianDenoiser, parameterization: Parameterization) -> None:
        super().__init__()
        self.network = network
        self.gaussian = gaussian
        self.parameterization = parameterization

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Predict from ``x``: float[B,C,H,W], ``t``: int64[B], ``label``: int64[B] in 0..num_classes."""
        velocity = self.gaussian(x, t, label)
        correction = self.network(torch.cat([x, velocity.to(x.dtype)], dim=1), t, label)
        alpha, sigma = self.gaussian.levels[:, t].view(2, -1, 1, 1, 1)
        x0, epsilon = alpha * x - sigma * velocity, sigma * x + alpha * velocity
        return cast(Tensor, correction.float() + self.parameterization.to_model_output(x0, epsilon, alpha, sigma))
