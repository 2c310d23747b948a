"""An average of the weights over training, which samples better than the last of them."""

import copy

import torch
from torch import nn


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
        updates: how many times `update` ran.
    """

    def __init__(self, module: nn.Module, lag: float) -> None:
        if not 0 <= lag < 0.5:
            raise ValueError(f"the EMA lag lies in [0, 0.5), not {lag}")
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.lag = lag
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards ``module`` by one step."""
        self.updates += 1
        decay = (1 - 1 / self.updates) ** (1 / self.lag - 1) if self.lag else 0.0
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - decay)
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)
