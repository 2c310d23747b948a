"""The image classifier of evaluations: small, and trained on the real training set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpmctl.core.defaults import default_dtype_and_device
from ddpmctl.data.dataset import Dataset, to_model_range

VERSION = 1
"""Version of the training below; increment to invalidate cached classifiers."""

EPOCHS = 6
BATCH_SIZE = 128
MIN_STEPS = 500
FEATURES = 64
CHUNK = 500

OnStep = Callable[[int, int], None]
"""Called after each training step with the steps done and their total."""


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


class Classifier(nn.Module):
    """float[N,C,S,S] in [-1, 1] to logits float[N,classes]; distances are measured between its 64 features."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        with default_dtype_and_device():
            self.body = nn.Sequential(
                *_block(channels, 16), nn.MaxPool2d(2), *_block(16, 32), nn.MaxPool2d(2), *_block(32, 64),
                nn.MaxPool2d(2), *_block(64, FEATURES), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            )  # fmt: skip
            self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.body(x))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Features, float64[N,64], and the most likely labels, int64[N], of a set of images."""

    features: Tensor
    labels: Tensor

    def accuracy(self, labels: Tensor) -> float:
        """Share of images that are classified as these labels."""
        return float((self.labels == labels.cpu()).double().mean())


@torch.no_grad()
def predict(classifier: Classifier, images: Tensor) -> Predictions:
    """Classify uint8[N,C,S,S]."""
    classifier.eval()
    device = next(classifier.parameters()).device
    features, labels = [], []
    for chunk in torch.split(images, CHUNK):
        feature = classifier.body(to_model_range(chunk.to(device)).contiguous(memory_format=torch.channels_last))
        features.append(feature.cpu().double())
        labels.append(classifier.head(feature).argmax(dim=1).cpu())
    return Predictions(torch.cat(features), torch.cat(labels))


@torch.inference_mode(False)
@torch.enable_grad()
def fit(data: Dataset, device: torch.device, on_step: OnStep, seed: int = 0) -> Classifier:
    """Train a classifier: about two minutes for MNIST on two CPU cores."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data = data.to(device)
    model = Classifier(int(data.images.shape[1]), len(data.classes)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch_size = min(BATCH_SIZE, len(data))
    per_epoch = len(data) // batch_size
    steps = max(EPOCHS * per_epoch, MIN_STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for step in range(steps):
        batch = step % per_epoch
        if batch == 0:
            order = torch.randperm(len(data), generator=generator, device="cpu").to(device)
        ids = order[batch * batch_size : (batch + 1) * batch_size]
        x = _augment(to_model_range(data.images[ids]), generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(x), data.labels[ids], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        on_step(step + 1, steps)
    trained: Classifier = model.eval()
    return trained


def _augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, scale and shift each image a little; never mirror it."""
    rand = partial(torch.rand, generator=generator, dtype=torch.float32, device="cpu")
    angle, scale = ((rand(2, len(x)) - 0.5) * torch.tensor([[0.4], [0.25]], dtype=torch.float32, device="cpu")).unbind()
    affine = torch.zeros(len(x), 2, 3, dtype=torch.float32, device="cpu")
    affine[:, 0, 0] = affine[:, 1, 1] = angle.cos() * (1 + scale)
    affine[:, 1, 0] = angle.sin() * (1 + scale)
    affine[:, 0, 1] = -affine[:, 1, 0]
    affine[:, :, 2] = (rand(len(x), 2) - 0.5) * 0.2
    grid = F.affine_grid(affine.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1
