"""Normalization layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUP = 16
"""Channels per group: with fewer, bf16 on a CPU is ten times slower (measured)."""


class GroupNorm(nn.GroupNorm):
    """GroupNorm (Wu & He 2018) whose output has the dtype of its input, also where autocast would make it float32.

    On CUDA, autocast would run it and everything up to the next convolution in float32, with twice the memory traffic.
    Sums are accumulated in float32 in any case.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize float[B,C,..] in groups of channels."""
        if x.device.type != "cuda" or x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast("cuda", enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def _group_norm(channels: int) -> nn.Module:
    return GroupNorm(channels // GROUP, channels)


def _batch_norm(channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    norm.num_batches_tracked = None  # an unused count, and the only buffer that is not a float
    return norm


NORMS: dict[str, Callable[[int], nn.Module]] = {"group": _group_norm, "batch": _batch_norm}
"""GroupNorm normalizes each image independently, BatchNorm over the batch (Ioffe & Szegedy 2015)."""
