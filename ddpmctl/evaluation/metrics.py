"""Distances between sets of images: fidelity, diversity and near-duplicates."""

import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ddpmctl.errors import DdpmctlError

MIN_SAMPLES = 2
"""A covariance, and an unbiased kernel distance, are undefined for fewer images on either side."""

NEIGHBOURS = 5
"""k of the nearest-neighbour balls (Naeem et al. 2020 use 5)."""

MIN_NEIGHBOURS = NEIGHBOURS + 1
"""Fewer images have no k-th neighbour."""

KERNEL_SUBSET = 1000
KERNEL_SUBSETS = 100

INSTALL = "in the project's folder: pip install '.[eval]'"


class _Identity(nn.Module):
    """A feature extractor for torchmetrics whose input is features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet(real: Tensor, generated: Tensor) -> float:
    """Frechet distance of Gaussians fitted to float64[N,F] and float64[M,F] (Heusel et al. 2017), by torchmetrics."""
    metric = _torchmetrics("fid").FrechetInceptionDistance(feature=_Identity(real.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return float(metric.compute())


def kernel(real: Tensor, generated: Tensor) -> float:
    """Unbiased kernel distance (Binkowski et al. 2018) of cubic polynomials, averaged over subsets, by torchmetrics."""
    torch.manual_seed(0)  # the subsets are drawn from torch's own generator
    size = min(KERNEL_SUBSET, len(real), len(generated))
    warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all extracted features")
    metric = _torchmetrics("kid").KernelInceptionDistance(
        feature=_Identity(real.shape[1]), subsets=KERNEL_SUBSETS, subset_size=size
    )
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return float(metric.compute()[0])


@dataclass(frozen=True, slots=True)
class Diversity:
    """How much of the real set is covered, and how densely (Kynkaanniemi et al. 2019; Naeem et al. 2020).

    Attributes:
        recall: share of real images inside the ball of a generated one.
        density: real balls that a generated image lies in, over k; 1 for images distributed as the real ones.
        coverage: share of real balls that contain a generated image.
    """

    recall: float
    density: float
    coverage: float


def diversity(real: Tensor, generated: Tensor) -> Diversity:
    """Compare equally many real and generated features, float64[N,F] each."""
    between = torch.cdist(real, generated)
    in_real_ball = between < _radii(real)[:, None]
    return Diversity(
        recall=float((between < _radii(generated)[None, :]).any(dim=1).double().mean()),
        density=float(in_real_ball.double().sum(dim=0).mean() / NEIGHBOURS),
        coverage=float(in_real_ball.any(dim=1).double().mean()),
    )


def _radii(features: Tensor) -> Tensor:
    """Distance of each to its k-th neighbour in its own set, itself not counted."""
    return torch.cdist(features, features).kthvalue(MIN_NEIGHBOURS, dim=1).values


def nearest(images: Tensor, among: Tensor, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """The nearest of uint8[M,..] to each of uint8[N,..]: root mean square differences float[N] in grey levels, indices.

    Exact, in pixels: a copy is found whatever features it has.
    """
    library = among.flatten(1).float()
    square = (library**2).sum(dim=1)
    distances, indices = [], []
    for part in torch.split(images.flatten(1).float(), chunk):
        squared = (part**2).sum(dim=1, keepdim=True) + square - 2 * part @ library.T
        found = squared.min(dim=1)
        distances.append((found.values.clamp(min=0) / part.shape[1]).sqrt())
        indices.append(found.indices)
    return torch.cat(distances), torch.cat(indices)


def is_available() -> bool:
    """Whether torchmetrics is installed."""
    return find_spec("torchmetrics") is not None


def check_available() -> None:
    """Raise an error if torchmetrics is not installed, before minutes of sampling."""
    if not is_available():
        raise DdpmctlError("torchmetrics is not installed", INSTALL)


def _torchmetrics(module: str) -> Any:
    try:
        return import_module(f"torchmetrics.image.{module}")
    except ImportError as error:
        raise DdpmctlError("torchmetrics is not installed", INSTALL) from error
