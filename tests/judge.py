"""A small MNIST classifier that tells whether digits are right: 99.6 % on the test images.

``python -m tests.judge DATA_DIR`` trains it anew, in two minutes, and writes ``judge.safetensors`` beside this file.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).with_name("judge.safetensors")


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def network() -> nn.Sequential:
    """float[N,1,32,32] in [-1, 1] to logits float[N,10]; 61,226 parameters."""
    return nn.Sequential(
        *_block(1, 16), nn.MaxPool2d(2), *_block(16, 32), nn.MaxPool2d(2), *_block(32, 64), nn.MaxPool2d(2),
        *_block(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def judge() -> nn.Sequential:
    """The trained classifier. Its weights are kept in half precision; it computes in float32."""
    model = network()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return model.eval()


@torch.no_grad()
def read_digits(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What the classifier takes uint8[N,32,32] for: int64[N] in 0..9."""
    model = judge()
    batches = torch.from_numpy(images)[:, None].float().div(127.5).sub(1).split(500)
    return torch.cat([model(batch).argmax(dim=1) for batch in batches]).numpy()


def accuracy(images: NDArray[np.uint8], labels: NDArray[np.int64] | list[int]) -> float:
    """Share of images in which the classifier reads the label."""
    return float((read_digits(images) == np.asarray(labels)).mean())


def _augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, stretch and shift each image a little."""
    angle, scale = ((torch.rand(2, len(x), generator=generator) - 0.5) * torch.tensor([[0.4], [0.25]])).unbind()
    affine = torch.zeros(len(x), 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = angle.cos() * (1 + scale)
    affine[:, 1, 0] = angle.sin() * (1 + scale)
    affine[:, 0, 1] = -affine[:, 1, 0]
    affine[:, :, 2] = (torch.rand(len(x), 2, generator=generator) - 0.5) * 0.2
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def train(data_dir: Path, epochs: int = 6, batch: int = 128) -> None:
    """Train on the real training images, say how many test images are read right, and keep the weights."""
    from torchvision.datasets import MNIST

    from ddpmctl.data.dataset import resized, to_model_range

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    real = MNIST(str(data_dir), train=True)
    images, labels = resized(real.data[:, None], 32), real.targets
    model = network().to(memory_format=torch.channels_last)
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(epochs):
        for ids in torch.randperm(len(images), generator=generator).split(batch)[: len(images) // batch]:
            x = _augmented(to_model_range(images[ids]), generator).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), labels[ids], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, WEIGHTS)
    test = MNIST(str(data_dir), train=False)
    share = accuracy(resized(test.data[:, None], 32)[:, 0].numpy(), test.targets.numpy())
    print(f"{share:.2%} of the test images are read right")


if __name__ == "__main__":
    train(Path(sys.argv[1]))
