"""How gradients become steps."""

from typing import Any

import pytest
import torch
from torch import nn

from ddpmctl import assembly
from ddpmctl.config import TrainingConfig
from ddpmctl.training.optimizers import make_optimizers
from tests.builders import tiny_config

from .support import Train


def settings(**changes: Any) -> TrainingConfig:
    return tiny_config(training=changes).training


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_every_weight_is_trained_once(train: Train, optimizer: str) -> None:
    trained = train(epochs=1, optimizer=optimizer)
    trainer = trained.trainer
    torch.manual_seed(0)
    start = assembly.build_network(trainer.config.model).state_dict()
    assert [
        name for name, tensor in trainer.learner.model.state_dict().items() if torch.equal(tensor, start[name])
    ] == []
    held = sum(p.numel() for made in trainer.learner.optimizers for group in made.param_groups for p in group["params"])
    assert held == sum(parameter.numel() for parameter in trainer.learner.model.parameters())


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
    # Muon computes in bfloat16: another order of the columns is another rounding.
    assert (moved - expected).norm() < 0.03 * expected.norm()
