"""Exponential moving average of the weights, with which samples are better than with the last weights."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Moving average of parameters, with an averaging window that grows with the number of steps; buffers are copied.

    At update ``n`` the decay is ``(1 - 1/n) ** (gamma + 1)`` (Karras et al. 2024, eq. 10): the average does not contain
    the initial weights, and always lags by the same fraction ``1 / (gamma + 2)`` of the steps so far (its mean age).

    Args:
        module: the module to average; the attribute of this name is the averaged copy, in evaluation mode.
        lag: that fraction, in [0, 0.5); 0 keeps a plain copy.
    """

    def __init__(self, module: nn.Module, lag: float) -> None:
        if not 0 <= lag < 0.5:
            raise ValueError(f"the EMA lag must be in [0, 0.5), not {lag}")
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.lag = lag
        self.updates = 0

    def update(self, module: nn.Module) -> None:
        """Move the average towards ``module`` by one step."""
        self.lerp_(module, self.next_weight())

    def next_weight(self) -> float:
        """Count one update and return 1 - decay, in (0, 1]."""
        self.updates += 1
        return 1.0 - ((1 - 1 / self.updates) ** (1 / self.lag - 1) if self.lag else 0.0)

    @torch.no_grad()
    def lerp_(self, module: nn.Module, weight: float | Tensor) -> None:
        """Move the average to ``average + weight (module - average)``; ``weight`` may be a tensor float32[]."""
        averages: list[Tensor] = list(self.module.parameters())
        values: list[Tensor] = list(module.parameters())
        if isinstance(weight, Tensor):
            differences = torch._foreach_sub(values, averages)
            torch._foreach_mul_(differences, weight)
            torch._foreach_add_(averages, list(differences))
        else:
            torch._foreach_lerp_(averages, values, weight)
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)
