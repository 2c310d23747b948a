"""Embeddings of timestep and class."""

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, dim: int) -> Tensor:
    """Sines then cosines of ``t`` at ``dim / 2`` geometric frequencies from 1 down to 1e-4.

    Maps [B] to float32[B, dim], ``dim`` even: Vaswani et al. 2017, section 3.5, in the order of Ho et al. 2020.
    """
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimestepAndClassEmbedding(nn.Module):
    """Learned class embedding and sinusoidal timestep embedding, concatenated: float32[B, 2 * dim]."""

    def __init__(self, labels: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.label = nn.Embedding(labels, dim)

    def forward(self, t: Tensor, label: Tensor) -> Tensor:
        return torch.cat([self.label(label), sinusoidal(t, self.dim)], dim=1)
