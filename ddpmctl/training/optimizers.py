"""How gradients become steps."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddpmctl.config import TrainingConfig

SMALLEST_MATRIX = 16
"""Muon takes matrices with at least so many rows and columns; there is nothing to orthogonalise in thinner ones."""


class MatrixMuon(torch.optim.Muon):
    """torch's Muon (Jordan et al. 2024) for convolutions too: a kernel is a matrix of its first dimension by the rest.

    Its rate means what AdamW's means (Liu et al. 2025), so one rate serves both.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, newton_schulz: int) -> None:
        self.parameters = parameters
        self.matrices = [_as_matrix(parameter.detach()) for parameter in parameters]
        for parameter, matrix in zip(parameters, self.matrices, strict=True):
            assert matrix.data_ptr() == parameter.data_ptr(), "a copy would be trained instead of the network"
        super().__init__(self.matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw", ns_steps=newton_schulz)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take the gradients of the parameters over to the matrices, and step."""
        for parameter, matrix in zip(self.parameters, self.matrices, strict=True):
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        loss: float | None = super().step(closure)  # type: ignore[no-untyped-call]
        return loss


def make_optimizers(model: nn.Module, settings: TrainingConfig) -> list[Optimizer]:
    """The optimizers that together hold every parameter once, all with the rate of ``settings``."""
    parameters = list(model.parameters())
    muon: list[Optimizer] = []
    if settings.optimizer == "muon":
        matrices = _hidden_matrices(model)
        muon = [MatrixMuon(matrices, settings.lr, settings.newton_schulz)]
        chosen = {id(matrix) for matrix in matrices}
        parameters = [parameter for parameter in parameters if id(parameter) not in chosen]
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    betas = (0.9, settings.beta2)
    return [*muon, kind(parameters, lr=settings.lr, betas=betas, weight_decay=settings.weight_decay, fused=True)]


def memories(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """What the optimizers remember from step to step, by name; nothing before the first step."""
    return {
        f"optimizer.{number}.{index}.{name}": value
        for number, optimizer in enumerate(optimizers)
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }


def remember(optimizers: list[Optimizer], saved: Mapping[str, np.ndarray], step: int) -> None:
    """Put back what `memories` gave after so many steps.

    Raises:
        ValueError: when something is missing, too much or of another shape.
    """
    left = dict(saved)
    for number, optimizer in enumerate(optimizers):
        optimizer.state.clear()
        names = ("momentum_buffer",) if isinstance(optimizer, MatrixMuon) else ("step", "exp_avg", "exp_avg_sq")
        for index, parameter in enumerate(_parameters(optimizer)):
            for name in names if step else ():
                array = left.pop(f"optimizer.{number}.{index}.{name}", None)
                if array is None:
                    raise ValueError("it lacks what the optimizer remembers")
                # In the layout of the parameter, which fused steps take for granted.
                like = parameter.new_empty(()) if name == "step" else torch.empty_like(parameter)
                optimizer.state[parameter][name] = fill(like.detach(), array)
    if left:
        raise ValueError(f"it holds what nothing asks for: {min(left)}")


@torch.no_grad()
def fill(tensor: Tensor, array: np.ndarray) -> Tensor:
    """Put an array's numbers into a tensor, whatever its layout and device.

    Raises:
        ValueError: when the shapes differ.
    """
    if tuple(tensor.shape) != array.shape:
        raise ValueError(f"it holds a tensor of shape {array.shape} in place of {tuple(tensor.shape)}")
    return tensor.copy_(torch.from_numpy(array))


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights that map many features to many: not embeddings, which are looked up and not multiplied."""
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    weights = [module.get_parameter("weight") for module in model.modules() if isinstance(module, kinds)]
    return [weight for weight in weights if min(weight.shape[0], weight[0].numel()) >= SMALLEST_MATRIX]


def _as_matrix(weight: Tensor) -> Tensor:
    """float[O,I,H,W] as float[O,I*H*W]: a view, with the columns in the order of the memory."""
    if weight.ndim == 4 and not weight.is_contiguous():
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
