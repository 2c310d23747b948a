"""A model that is known in closed form: images whose classes are normal, and a network that is their best denoiser."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from ddpmctl.build import build_network
from ddpmctl.config import Config
from ddpmctl.data.dataset import to_model_range
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.builders import register, tiny_config

SIDE, PIXELS, CLASSES = 8, 64, ("a", "b", "c")


class GaussianImages:
    """Three classes of correlated pixels, far from black and white; the correlations may be the same."""

    def __init__(self, distance: float, *, alike: bool = False) -> None:
        generator = np.random.default_rng(0)
        self.means = distance * generator.standard_normal((len(CLASSES), PIXELS))
        mixing = 0.06 * generator.standard_normal((1 if alike else len(CLASSES), PIXELS, 12))
        mixing = np.broadcast_to(mixing, (len(CLASSES), PIXELS, 12))
        self.covariances = mixing @ mixing.transpose(0, 2, 1) + 0.05**2 * np.eye(PIXELS)

    def draw(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """uint8[N,1,8,8] and int64[N]."""
        generator = np.random.default_rng(seed)
        labels = np.arange(count) % len(CLASSES)
        roots = np.linalg.cholesky(self.covariances)
        values = self.means[labels] + np.einsum("nij,nj->ni", roots[labels], generator.standard_normal((count, PIXELS)))
        pixels = np.rint((values.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        return torch.from_numpy(pixels).view(-1, 1, SIDE, SIDE), torch.from_numpy(labels)

    def log_density(self, images: Tensor) -> Tensor:
        """float64[N,classes]."""
        flat = to_model_range(images).flatten(1).double().numpy()
        pairs = zip(self.means, self.covariances, strict=True)
        return torch.from_numpy(np.stack([multivariate_normal(m, c).logpdf(flat) for m, c in pairs], axis=1))


def config(**tables: dict[str, Any]) -> Config:
    model = {
        "image_size": SIDE, "sample_size": SIDE, "num_classes": len(CLASSES), "widths": [16], "patch": 4,
        "gaussian_rank": PIXELS, **tables.pop("model", {}),
    }  # fmt: skip
    diffusion = {"clip_x0": False, **tables.pop("diffusion", {})}
    return tiny_config(model=model, diffusion=diffusion, **tables)


def gaussian_engine(home: Path, data: GaussianImages, **tables: dict[str, Any]) -> Engine:
    """An engine of a registered model whose network adds nothing to the Gaussian denoiser of these images."""
    settings = config(**tables)
    network: Any = build_network(settings)
    images, labels = data.draw(6000, seed=1)
    network.gaussian.fit(to_model_range(images, settings.diffusion.pixel_range), labels)
    for name, tensor in network.state_dict().items():
        if not name.startswith("gaussian."):
            tensor.zero_()
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    register(Registry(home), "gaussian", weights=weights, config=settings, classes=CLASSES)
    return Engine(Registry(home).open("gaussian"), "cpu", "fp32")
