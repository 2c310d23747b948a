"""An average of the weights over training, which samples better than the last of them."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Moving average of a module's parameters whose memory grows with the run; buffers are copied.

    After update ``n`` the decay is ``(1 - 1/n) ** (gamma + 1)`` (Karras et al. 2024, eq. 10): the random start
    is forgotten at once, and the average always lags by the same share ``1 / (gamma + 2)`` of the steps so far,
    however long the run.

    Args:
        module: the module to follow.
        lag: that share, in [0, 0.5); 0 keeps a plain copy.

    Attributes:
        module: the averaged copy, in evaluation mode, without gradients.
        updates: how many times it was moved.
    """

    def __init__(self, module: nn.Module, lag: float) -> None:
        if not 0 <= lag < 0.5:
            raise ValueError(f"the EMA lag lies in [0, 0.5), not {lag}")
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.lag = lag
        self.updates = 0

    def update(self, module: nn.Module) -> None:
        """Move the average towards ``module`` by one step."""
        self.move(module, self.next_weight())

    def next_weight(self) -> float:
        """Count one update and return the weight of the new value in it, 1 - decay, in (0, 1]."""
        self.updates += 1
        return 1.0 - ((1 - 1 / self.updates) ** (1 / self.lag - 1) if self.lag else 0.0)

    @torch.no_grad()
    def move(self, module: nn.Module, weight: float | Tensor) -> None:
        """Move the average to ``average + weight (module - average)``.

        Args:
            module: the module to follow.
            weight: as from `next_weight`; a tensor float32[] where the host must not be read.
        """
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
