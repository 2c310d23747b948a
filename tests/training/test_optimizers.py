"""How gradients become steps."""

from typing import Any

import pytest
import torch
from torch import nn

from ddpmctl.build import build_network
from ddpmctl.config import TrainingConfig
from ddpmctl.training.optimizers import Muon, make_optimizers, orthogonalize
from tests.builders import tiny_config

from .support import Train


def settings(**changes: Any) -> TrainingConfig:
    return tiny_config(training=changes).training


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_every_weight_is_trained_once(train: Train, optimizer: str) -> None:
    trained = train(epochs=1, optimizer=optimizer)
    trainer = trained.trainer
    torch.manual_seed(0)
    start = build_network(trainer.config).state_dict()
    assert [
        name for name, tensor in trainer.train_step.model.state_dict().items() if torch.equal(tensor, start[name])
    ] == []
    held = sum(
        p.numel() for made in trainer.train_step.optimizers for group in made.param_groups for p in group["params"]
    )
    assert held == sum(parameter.numel() for parameter in trainer.train_step.model.parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_muon_steps_as_torchs_own_on_the_flattened_kernel(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 32, 3).to(memory_format=memory_format)
    flat = nn.Parameter(layer.weight.detach().contiguous().flatten(1).clone())
    theirs = torch.optim.Muon([flat], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    ours = make_optimizers(layer, settings(optimizer="muon", lr=0.01, weight_decay=0.0))
    before = flat.detach().clone()
    for seed in range(3):
        gradient = torch.randn(32, 24, 3, 3, generator=torch.Generator().manual_seed(seed))
        layer.weight.grad = gradient.clone().to(memory_format=memory_format)
        flat.grad = gradient.flatten(1)
        for optimizer in (*ours, theirs):
            optimizer.step()
    moved = (layer.weight.detach().contiguous().flatten(1) - before).flatten()
    expected = (flat.detach() - before).flatten()
    # torch's Muon orthogonalizes in bfloat16.
    assert (moved - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24), (3, 16, 40)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_the_gram_form_moves_the_singular_values_as_the_polynomial_does(
    shape: tuple[int, ...], iterations: int
) -> None:
    """U S V^T becomes U p(..p(S / |S|)) V^T with p(s) = a s + b s^3 + c s^5 (Jordan et al. 2024)."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / torch.linalg.vector_norm(s, dim=-1, keepdim=True)
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    expected = u @ torch.diag_embed(s) @ v
    torch.testing.assert_close(orthogonalize(matrix, iterations), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(orthogonalize(matrix.float(), iterations).double(), expected, rtol=0, atol=2e-5)


def test_matrices_of_one_shape_together_move_as_one_at_a_time() -> None:
    def moved(*, batched: bool) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes = [(16, 40), (40, 16), (16, 40), (20, 20), (16, 40)]
        weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        optimizer = Muon(weights, 0.01, 3, batched=batched)
        assert len(optimizer.groups_of_one_shape) == (3 if batched else 5)
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
        return [weight.detach() for weight in weights]

    for together, alone in zip(moved(batched=True), moved(batched=False), strict=True):
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_a_gradient_in_another_memory_format_means_the_same() -> None:
    def moved(memory_format: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        layer = nn.Conv2d(24, 32, 3).to(memory_format=torch.channels_last)
        optimizer = Muon([layer.weight], 0.01, 3)  # type: ignore[list-item]
        layer.weight.grad = torch.randn(32, 24, 3, 3).contiguous(memory_format=memory_format)
        optimizer.step()
        return layer.weight.detach()

    torch.testing.assert_close(moved(torch.contiguous_format), moved(torch.channels_last), rtol=0, atol=1e-6)
