"""What the original scripts save and compute, from their description alone; only the noise is drawn as here."""

import math
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpmctl.core.noise import normal

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPES: dict[str, tuple[int, ...]] = {
    "label_embedding.weight": (10, 256),
    "embedding_projector.weight": (512, 512),
    "embedding_projector.bias": (512,),
    "down1.0.weight": (64, 1, 3, 3),
    "down1.0.bias": (64,),
    "down1.1.weight": (64,),
    "down1.1.bias": (64,),
    "down1.3.weight": (64, 64, 3, 3),
    "down1.3.bias": (64,),
    "down1.4.weight": (64,),
    "down1.4.bias": (64,),
    "down2.0.weight": (128, 64, 3, 3),
    "down2.0.bias": (128,),
    "down2.1.weight": (128,),
    "down2.1.bias": (128,),
    "down2.3.weight": (128, 128, 3, 3),
    "down2.3.bias": (128,),
    "down2.4.weight": (128,),
    "down2.4.bias": (128,),
    "down3.0.weight": (256, 128, 3, 3),
    "down3.0.bias": (256,),
    "down3.1.weight": (256,),
    "down3.1.bias": (256,),
    "down3.3.weight": (256, 256, 3, 3),
    "down3.3.bias": (256,),
    "down3.4.weight": (256,),
    "down3.4.bias": (256,),
    "bottleneck.0.weight": (512, 256, 3, 3),
    "bottleneck.0.bias": (512,),
    "bottleneck.1.weight": (512,),
    "bottleneck.1.bias": (512,),
    "bottleneck.3.weight": (512, 512, 3, 3),
    "bottleneck.3.bias": (512,),
    "bottleneck.4.weight": (512,),
    "bottleneck.4.bias": (512,),
    "up1.weight": (512, 256, 2, 2),
    "up1.bias": (256,),
    "decode3.0.weight": (128, 512, 3, 3),
    "decode3.0.bias": (128,),
    "decode3.1.weight": (128,),
    "decode3.1.bias": (128,),
    "decode3.3.weight": (128, 128, 3, 3),
    "decode3.3.bias": (128,),
    "decode3.4.weight": (128,),
    "decode3.4.bias": (128,),
    "up2.weight": (128, 128, 2, 2),
    "up2.bias": (128,),
    "decode2.0.weight": (64, 256, 3, 3),
    "decode2.0.bias": (64,),
    "decode2.1.weight": (64,),
    "decode2.1.bias": (64,),
    "decode2.3.weight": (64, 64, 3, 3),
    "decode2.3.bias": (64,),
    "decode2.4.weight": (64,),
    "decode2.4.bias": (64,),
    "up3.weight": (64, 64, 2, 2),
    "up3.bias": (64,),
    "decode1.0.weight": (64, 128, 3, 3),
    "decode1.0.bias": (64,),
    "decode1.1.weight": (64,),
    "decode1.1.bias": (64,),
    "decode1.3.weight": (64, 64, 3, 3),
    "decode1.3.bias": (64,),
    "decode1.4.weight": (64,),
    "decode1.4.bias": (64,),
    "final_out.weight": (1, 64, 1, 1),
    "final_out.bias": (1,),
}
"""Of the tensors in a checkpoint, in their order in the file."""


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """A state_dict of random float32 tensors, none of them constant, scaled so that activations stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in SHAPES.items():
        scale = 0.3 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
        is_norm_weight = len(shape) == 1 and name.endswith("weight")
        state[name] = scale * torch.randn(shape, generator=generator) + float(is_norm_weight)
    return state


def predict(state: Mapping[str, Tensor], x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """The forward pass with the tensors of a checkpoint; ``x``: float[B,1,S,S], S a multiple of 8."""

    def block(part: str, h: Tensor) -> Tensor:
        for convolution, norm in (("0", "1"), ("3", "4")):
            h = F.conv2d(h, *weight_and_bias(f"{part}.{convolution}"), padding=1)
            h = F.leaky_relu(F.group_norm(h, 8, *weight_and_bias(f"{part}.{norm}")), 0.1)
        return h

    def upsample(part: str, h: Tensor) -> Tensor:
        return F.conv_transpose2d(h, *weight_and_bias(part), stride=2)

    def weight_and_bias(part: str) -> tuple[Tensor, Tensor]:
        return state[f"{part}.weight"], state[f"{part}.bias"]

    first = block("down1", x)
    second = block("down2", F.max_pool2d(first, 2))
    third = block("down3", F.max_pool2d(second, 2))
    h = block("bottleneck", F.max_pool2d(third, 2))
    angles = t[:, None] * torch.exp(-torch.arange(128) * (math.log(10000) / 127))
    embedding = torch.cat([state["label_embedding.weight"][label], angles.sin(), angles.cos()], dim=1)
    h = h + F.linear(embedding, *weight_and_bias("embedding_projector"))[:, :, None, None]
    h = block("decode3", torch.cat([upsample("up1", h), third], dim=1))
    h = block("decode2", torch.cat([upsample("up2", h), second], dim=1))
    h = block("decode1", torch.cat([upsample("up3", h), first], dim=1))
    return F.conv2d(h, *weight_and_bias("final_out"))


@torch.no_grad()
def sample(model: Predict, labels: list[int], seed: int, length: int) -> list[Tensor]:
    """The first steps of the original sampling: x_998 and so on, in float32, with the variance beta."""
    betas = torch.linspace(1e-4, 0.02, 1000)
    alphas, alpha_bar = 1 - betas, torch.cumprod(1 - betas, dim=0)
    draws = count()

    def noise() -> Tensor:
        return normal(range(seed, seed + len(labels)), next(draws), (1, 32, 32))

    x, label, steps = noise(), torch.tensor(labels), []
    for t in range(999, 999 - length, -1):
        epsilon = model(x, torch.full((len(labels),), t), label)
        x = (x - (1 - alphas[t]) / (1 - alpha_bar[t]).sqrt() * epsilon) / alphas[t].sqrt()
        if t > 0:
            x = x + betas[t].sqrt() * noise()
        steps.append(x)
    return steps


def save(path: Path, state: Mapping[str, Any], **metadata: Any) -> Path:
    """Write a checkpoint as the original scripts do, with other values or further entries in its metadata."""
    usual = {"creator": "someone", "version": 2, "architecture": "unet", "classes": dict(enumerate(NAMES))}
    torch.save({"state_dict": dict(state), "metadata": usual | metadata}, path)
    return path
