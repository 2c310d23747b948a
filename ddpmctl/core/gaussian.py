"""The best denoiser of images whose classes are mixtures of Gaussians, in closed form, and a network to correct it."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ddpmctl.core.diffusion import Parameterization
from ddpmctl.core.schedule import Schedule

MAX_VALUES = 2816 * 32 * 32
"""Values of all means and principal components together: with more classes or pixels, each class has fewer."""

IMAGES_PER_CLUSTER = 64
"""Of a class with fewer images a cluster, fewer clusters are made; a cluster of less than a quarter is dissolved."""

KMEANS_IMAGES = 2000
KMEANS_ITERATIONS = 12

MAX_IMAGES = 6000
"""Images of a cluster whose principal components are computed."""

MIN_VARIANCE = 2e-3
"""Floor of the variances: an image is never exactly in the span of the others."""

ITERATIONS = 2
"""Subspace iterations of the randomized decomposition."""

NEGLIGIBLE = 1e-9
"""Smaller probabilities are zero: products with denormal numbers take eight times as long (measured)."""

SMALLEST_PRODUCT = 16
"""Matrix products with fewer rows sum in a different order (measured, MKL): in sampling they are padded, since the bits
of an image may not depend on the others."""


class Clusters(NamedTuple):
    """Some clusters of a Gaussian denoiser, and what their velocity needs of them: K of them, R components each.

    Images have much in common, their background above all. Without it the squares are a tenth, and so is what rounding
    does to the likelihoods, which divide them by small variances.
    """

    common: Tensor
    """The mean of all means, float32[pixels]."""
    mean: Tensor
    """What the means have beyond, float[K,pixels]."""
    basis: Tensor
    """Principal components, float[pixels,K*R]."""
    mean_in_basis: Tensor
    """Components of ``mean``, float32[K,R]."""
    mean_square: Tensor
    """Its squared length, float32[K]."""
    variance: Tensor
    """Of the components, float32[K,R]."""
    rest: Tensor
    """Variance of all other directions, float32[K]."""
    weight: Tensor
    """Of the cluster, float32[K]."""

    def with_products_in(self, dtype: torch.dtype) -> "Clusters":
        """The same with matrix products of another type, which suits high noise levels: their variances are large."""
        return self._replace(mean=self.mean.to(dtype), basis=self.basis.to(dtype))

    def velocity(
        self,
        x: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        belongs: Tensor | None = None,
        scale: float | Tensor | None = None,
    ) -> Tensor:
        """The expected velocity float32[B,pixels].

        Args:
            x: float32[B,pixels].
            alpha: float32[B,1], or float32[1,1] if all images have the same timestep; as ``sigma``.
            belongs: which of the clusters are those of the image, bool[B,K]; all when None.
            scale: of guidance away from all of the clusters.
        """
        x = x - alpha * self.common
        components, likelihood = self._compared(x, alpha, sigma)
        posterior = likelihood.softmax(1)
        if belongs is not None:
            conditional = likelihood.masked_fill(~belongs, -torch.inf).softmax(1)
            posterior = conditional if scale is None else posterior + scale * (conditional - posterior)
        posterior = posterior.masked_fill(posterior.abs() < NEGLIGIBLE, 0)

        shared = _gain(self.rest, alpha, sigma)
        gains = _gain(self.variance, alpha[..., None], sigma[..., None]) - shared[..., None]
        velocity = (posterior * shared).sum(1, keepdim=True) * x - sigma * self.common
        velocity = velocity - product(posterior * (sigma + shared * alpha), self.mean)
        return velocity + product((posterior[..., None] * gains * components).flatten(1), self.basis.T)

    def log_joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``log(w_k N(x; alpha m_k, alpha^2 S_k + sigma^2 I))`` up to a constant, float32[B,K]; as for `velocity`."""
        return self._compared(x - alpha * self.common, alpha, sigma)[1]

    def _compared(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Components of ``x - alpha m_k``, float32[B,K,R], and `log_joint`; x without what the means have in common."""
        pixels, rank = self.basis.shape[0], self.variance.shape[1]
        # x - alpha m is never made for every cluster: its components and its square follow from products with x.
        components = product(x, self.basis).view(-1, *self.variance.shape) - alpha[..., None] * self.mean_in_basis
        energy = components.square()
        square = x.square().sum(1, keepdim=True)
        square = square - 2 * alpha * product(x, self.mean.T) + alpha**2 * self.mean_square

        spread = alpha[..., None] ** 2 * self.variance + sigma[..., None] ** 2
        spread_rest = alpha**2 * self.rest + sigma**2
        exponent = (square - energy.sum(2)) / spread_rest + (energy / spread + spread.log()).sum(2)
        exponent = exponent + (pixels - rank) * spread_rest.log()
        return components, self.weight.log() - exponent / 2


class GaussianDenoiser(nn.Module):
    """``E[v | x_t]`` if the images of each class were a mixture of normal distributions: nothing in it is trained.

    With the weights ``w_k``, means ``m_k`` and covariances ``S_k = U_k diag(s_k) U_k^T`` of the clusters of a class,
    and ``y_k = x_t - alpha m_k``,

        v = sum_k p(k | x_t) (-sigma m_k + U_k diag(alpha sigma (1 - s_k) / (alpha^2 s_k + sigma^2)) U_k^T y_k)
        p(k | x_t) ~ w_k N(x_t; alpha m_k, alpha^2 S_k + sigma^2 I)

    (the conditional mean of a mixture, as a velocity: Salimans & Ho 2022). The components beyond the first ``rank``
    share their mean variance (Tipping & Bishop 1999). The null class is the mixture of all clusters. At high noise
    levels this is nearly the optimal denoiser (Wang & Vastola 2024), which a network needs many steps to find.

    Args:
        pixels: values of an image, C * H * W.
        classes: without the null class.
        rank: principal components per cluster, at most.
        clusters: per class, at most.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor
    rest: Tensor
    weight: Tensor
    levels: Tensor

    def __init__(self, schedule: Schedule, pixels: int, classes: int, rank: int, clusters: int = 1) -> None:
        super().__init__()
        columns = MAX_VALUES // (pixels * classes)
        self.classes = classes
        self.clusters = max(1, min(clusters, columns // (1 + rank)))
        self.rank = max(1, min(rank, columns // self.clusters - 1, pixels))
        count = classes * self.clusters
        self.register_buffer("mean", torch.zeros(count, pixels))
        self.register_buffer("basis", torch.zeros(pixels, count * self.rank))
        self.register_buffer("variance", torch.ones(count, self.rank))
        self.register_buffer("rest", torch.ones(count))
        self.register_buffer("weight", torch.full((count,), 1 / count))
        levels = torch.stack([schedule.alpha, schedule.sigma]).float().to(self.mean.device)
        self.register_buffer("levels", levels, persistent=False)

    @torch.no_grad()
    def fit(self, images: Tensor, labels: Tensor) -> None:
        """Find the clusters of each class by k-means, and measure the mean and the principal components of each.

        Args:
            images: in the range of the network, float32[N,C,H,W].
            labels: int64[N].
        """
        flat = images.flatten(1)
        self.weight.zero_()
        for label in range(self.classes):
            chosen = flat[labels == label]
            # A class of one image has no variance: it takes that of all images. One of none has a weight, too, too
            # small for the null class to see it and large enough for half precision.
            share = max(len(chosen) / len(flat), 1e-5)
            if len(chosen) < 2:
                chosen = flat
            for k, members in enumerate(_clustered(chosen, self.clusters)):
                self._fit_cluster(label * self.clusters + k, members)
                self.weight[label * self.clusters + k] = share * len(members) / len(chosen)

    def _fit_cluster(self, cluster: int, images: Tensor) -> None:
        mean = images.mean(0)
        spread = (images - mean)[:: -(-len(images) // MAX_IMAGES)]
        total = spread.square().sum() / len(spread)
        rank = min(self.rank, *spread.shape)
        _, values, vectors = torch.svd_lowrank(spread, min(rank + 8, *spread.shape), niter=ITERATIONS)
        # The sign of a singular vector is arbitrary and cancels out.
        variance = values[:rank].square() / len(spread)
        left = max(1, images.shape[1] - rank)
        rest = ((total - variance.sum()) / left).clamp(min=MIN_VARIANCE)
        columns = slice(cluster * self.rank, cluster * self.rank + rank)
        self.mean[cluster] = mean
        self.basis[:, columns] = vectors[:, :rank]
        self.variance[cluster] = rest
        self.variance[cluster, :rank] = variance.clamp(min=MIN_VARIANCE)
        self.rest[cluster] = rest

    def clusters_of(self, label: int | None = None) -> Clusters:
        """The clusters of a class, or all of them."""
        part = slice(None) if label is None else slice(label * self.clusters, (label + 1) * self.clusters)
        columns = slice(None) if label is None else slice(part.start * self.rank, part.stop * self.rank)
        common = self.mean.mean(0)
        mean, basis, variance = self.mean[part] - common, self.basis[:, columns], self.variance[part]
        by_cluster = basis.view(-1, *variance.shape).permute(1, 0, 2)
        mean_in_basis = torch.bmm(mean[:, None], by_cluster)[:, 0]
        mean_square = mean.square().sum(1)
        return Clusters(
            common, mean, basis, mean_in_basis, mean_square, variance, self.rest[part], self.weight[part]
        )  # fmt: skip

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The expected velocity float32[B,C,H,W] for x float[B,C,H,W], t int64[B] and label int64[B]."""
        with torch.autocast(x.device.type, enabled=False):
            if not self.training or x.device.type != "cpu" or torch.compiler.is_compiling():
                return self.velocity(self.clusters_of(), x, t, label)
            # A class at a time, with its own clusters: a tenth of the arithmetic. Not in sampling, where the bits of an
            # image may not depend on the labels of the others.
            alpha, sigma = self.levels[:, t, None]
            flat = x.flatten(1).float()
            velocity = torch.empty_like(flat)
            for each in sorted(set(label.tolist())):
                rows = (label == each).nonzero()[:, 0]
                clusters = self.clusters_of(None if each == self.classes else each)
                velocity[rows] = clusters.velocity(flat[rows], alpha[rows], sigma[rows])
        return velocity.view_as(x)

    def velocity(
        self, clusters: Clusters, x: Tensor, t: Tensor, label: Tensor, scale: float | Tensor | None = None
    ) -> Tensor:
        """The same from all clusters in one product. Its shape does not depend on the labels, so a graph can hold it.

        With a guidance scale it is ``uncond + scale * (cond - uncond)`` (Ho & Salimans 2022).
        """
        flat = x.flatten(1).float()
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            flat, label = at_least(SMALLEST_PRODUCT, flat), at_least(SMALLEST_PRODUCT, label)
            # One row of what depends on the timestep alone.
            t = t[:1] if (t == t[0]).all() else at_least(SMALLEST_PRODUCT, t)
        alpha, sigma = self.levels[:, t, None]
        belongs = torch.arange(len(self.mean), device=x.device) // self.clusters == label[:, None]
        belongs = belongs | (label[:, None] == self.classes)
        velocity = clusters.velocity(flat, alpha, sigma, belongs, scale)
        # Not len(x), which an export would take for a constant.
        return velocity[: x.shape[0]].view_as(x)

    def log_likelihood(self, x0: Tensor, t: int) -> Tensor:
        """``log p(x_t | class)`` of images that are noised with their mean, ``x_t = alpha x_0``: float32[N,classes].

        Up to a constant; with the frequencies of the classes.
        """
        alpha, sigma = self.levels[:, t].view(2, 1, 1)
        joint = self.clusters_of().log_joint(alpha * x0.flatten(1).float(), alpha, sigma)
        return joint.view(-1, self.classes, self.clusters).logsumexp(2)


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """``x @ matrix`` in the type of the matrix, as float32."""
    return (x.to(matrix.dtype) @ matrix).float()


def at_least(count: int, x: Tensor) -> Tensor:
    """``x`` with its last row repeated until there are ``count`` rows."""
    missing = max(0, count - len(x))
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x


def _gain(variance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return alpha * sigma * (1 - variance) / (alpha**2 * variance + sigma**2)


def _clustered(images: Tensor, clusters: int) -> list[Tensor]:
    """Split float32[N,pixels] by k-means (Lloyd 1982) into at most so many clusters."""
    count = min(clusters, len(images) // IMAGES_PER_CLUSTER)
    if count < 2:
        return [images]
    order = torch.randperm(len(images), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    some = images[order[:KMEANS_IMAGES]]
    centres = some[:count]
    for _ in range(KMEANS_ITERATIONS):
        nearest = torch.cdist(some, centres).argmin(1)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, some)
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
    sizes = torch.bincount(torch.cdist(images, centres).argmin(1), minlength=count)
    nearest = torch.cdist(images, centres[sizes >= IMAGES_PER_CLUSTER // 4]).argmin(1)
    return [images[nearest == k] for k in range(int(nearest.max()) + 1)]


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
