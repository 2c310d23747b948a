"""Optimizers: Muon for the hidden matrices, AdamW for the rest, or Adam(W) for everything."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddpmctl.config import TrainingConfig

SMALLEST_MATRIX = 16
"""Muon takes matrices with at least this many rows and columns; there is nothing to orthogonalize in thinner ones."""

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz polynomial (Jordan et al. 2024)."""

MOMENTUM = 0.95


class Muon(Optimizer):
    """Muon with Nesterov momentum (Jordan et al. 2024), for convolutions too.

    A kernel float[O,I,H,W] is the matrix float[O,I*H*W]. The update has the RMS of AdamW's (Liu et al. 2025, eq. 4), so
    one learning rate serves both optimizers. Computed in float32: bfloat16 is emulated on most CPUs and no faster than
    the Gram form below on those that have it.

    Args:
        parameters: weights with at least two dimensions.
        lr: the learning rate; a tensor on the device if the step is captured in a CUDA graph.
        newton_schulz: iterations.
        batched: whether matrices of one shape are multiplied together. A GPU needs few large kernels; a CPU gains
            nothing.
    """

    def __init__(
        self, parameters: list[nn.Parameter], lr: float | Tensor, newton_schulz: int, *, batched: bool = False
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        self.newton_schulz = newton_schulz
        self.parameters = parameters
        self.matrices = [_as_matrix(parameter.detach(), parameter) for parameter in parameters]
        for parameter, matrix in zip(parameters, self.matrices, strict=True):
            assert matrix.data_ptr() == parameter.data_ptr(), "a copy would be trained instead of the network"
            self.state[parameter]["momentum_buffer"] = torch.zeros_like(matrix)
        alike: dict[object, list[int]] = defaultdict(list)
        for index, matrix in enumerate(self.matrices):
            alike[matrix.shape if batched else index].append(index)
        self.groups_of_one_shape = list(alike.values())
        self.scales = [0.2 * math.sqrt(max(matrix.shape)) for matrix in self.matrices]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix by its orthogonalized momentum; each must have a gradient."""
        gradients = [_as_matrix(p.grad, p) for p in self.parameters if p.grad is not None]
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in self.parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = list(torch._foreach_lerp(gradients, momenta, MOMENTUM))
        for indices in self.groups_of_one_shape:
            if len(indices) == 1:
                updates[indices[0]] = orthogonalize(updates[indices[0]], self.newton_schulz)
                continue
            together = orthogonalize(torch.stack([updates[index] for index in indices]), self.newton_schulz)
            for index, update in zip(indices, together.unbind(), strict=True):
                updates[index] = update
        torch._foreach_mul_(updates, self.scales)
        torch._foreach_mul_(updates, self.param_groups[0]["lr"])
        torch._foreach_sub_(self.matrices, updates)


def orthogonalize(matrix: Tensor, iterations: int) -> Tensor:
    """Newton-Schulz iterations that move all singular values of a matrix towards 1: float32[..,R,C] to the same shape.

    In the Gram form. With ``x = m / |m|`` and ``r = x x^T``, an iteration ``x <- (a + b r + c r^2) x = z x`` makes
    ``r <- z r z``, and all ``z`` commute: their product is applied to ``x`` once, at the end. So only two products are
    as long as the matrix, however many iterations there are.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    gram = x @ x.mT
    product: Tensor | None = None
    for iteration in range(iterations):
        z = (gram @ gram).mul_(c).add_(gram, alpha=b)
        z.diagonal(dim1=-2, dim2=-1).add_(a)
        product = z if product is None else z @ product
        if iteration + 1 < iterations:
            gram = z @ gram @ z
    assert product is not None, "the configuration asks for at least one iteration"
    update: Tensor = product @ x
    return update.mT if tall else update


def make_optimizers(model: nn.Module, settings: TrainingConfig, *, on_gpu: bool = False) -> list[Optimizer]:
    """The optimizers that together hold every parameter once, all with the learning rate of ``settings``.

    Their state is allocated here and not in the first step, so that a captured step finds it in place.

    Args:
        model: the network, on its device.
        settings: which optimizer, and how.
        on_gpu: whether steps are to be few large kernels without host synchronization: the learning rate is a
            tensor then.
    """
    parameters = list(model.parameters())
    lr = torch.tensor(settings.lr, dtype=torch.float32, device=parameters[0].device) if on_gpu else settings.lr
    muon: list[Optimizer] = []
    if settings.optimizer == "muon":
        matrices = _hidden_matrices(model)
        muon = [Muon(matrices, lr, settings.newton_schulz, batched=on_gpu)]
        chosen = {id(matrix) for matrix in matrices}
        parameters = [parameter for parameter in parameters if id(parameter) not in chosen]
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    betas, decay = (0.9, settings.beta2), settings.weight_decay
    adam = kind(parameters, lr=lr, betas=betas, weight_decay=decay, fused=True, capturable=on_gpu)
    for parameter in parameters:
        adam.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return [*muon, adam]


def set_learning_rate(optimizers: list[Optimizer], lr: float) -> None:
    """Set the learning rate of all parameters, in place if it is a tensor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr


def state_dict(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The state of all optimizers by name: the tensors themselves."""
    return {
        f"optimizer.{number}.{index}.{name}": value
        for number, optimizer in enumerate(optimizers)
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }


def load_state_dict(optimizers: list[Optimizer], saved: Mapping[str, np.ndarray]) -> None:
    """Copy back what `state_dict` returned; raises a `ValueError` for a missing, unknown or misshapen entry."""
    tensors = state_dict(optimizers)
    if missing := sorted(tensors.keys() - saved.keys()):
        raise ValueError(f"{missing[0]} is missing from the optimizer state")
    if unknown := sorted(saved.keys() - tensors.keys()):
        raise ValueError(f"the optimizer state has the unknown entry {unknown[0]}")
    for name, tensor in tensors.items():
        copy_into(tensor, saved[name])


@torch.no_grad()
def copy_into(tensor: Tensor, array: np.ndarray) -> Tensor:
    """Copy an array into a tensor of the same shape, whatever its memory format and device."""
    if tuple(tensor.shape) != array.shape:
        raise ValueError(f"expected a tensor of shape {tuple(tensor.shape)}, got {array.shape}")
    return tensor.copy_(torch.from_numpy(array))


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights that map many features to many: not embeddings, which are looked up and not multiplied."""
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    weights = [module.get_parameter("weight") for module in model.modules() if isinstance(module, kinds)]
    return [weight for weight in weights if min(weight.shape[0], weight[0].numel()) >= SMALLEST_MATRIX]


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """float[O,I,H,W] as float[O,I*H*W], with the columns in the order of the memory of ``like``, where it is a view."""
    if tensor.ndim == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)
