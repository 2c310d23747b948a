"""The compared programs: this project's presets, the plain PyTorch loop, and two public libraries.

Each trains on the real MNIST for so many seconds, then makes digits with the sampler that it comes with.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ddpmctl.core.classic import Classic
from ddpmctl.core.schedule import linear
from ddpmctl.registry import Registry, last_of
from ddpmctl.sampling.engine import Engine

from .machine import ddpmctl

Images = NDArray[np.uint8]
SAMPLED_TOGETHER = 100


class Contender(Protocol):
    """Something that learns digits and makes them.

    Attributes:
        sampler: how it makes them, in words.
    """

    sampler: str

    def train(self, seconds: float) -> tuple[int, float]:
        """Train for so long, and return how many images were shown in how many seconds."""

    def sample(self, labels: list[int], seed: int) -> Images:
        """Digits of these labels, uint8[N,32,32]; another seed makes others."""


class Preset:
    """One of this project's presets, trained through the command line."""

    def __init__(self, data_dir: Path, preset: str) -> None:
        self.data_dir = data_dir
        self.preset = preset

    def train(self, seconds: float) -> tuple[int, float]:
        """``ddpmctl train --max-time``."""
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            ddpmctl(
                home, "train", "--preset", self.preset, "--max-time", f"{seconds:g}s", "--name", "it",
                "--device", "cpu", "--data-dir", self.data_dir,
            )  # fmt: skip
            best = Registry(home).open("it")
            self.engine = Engine(best, "cpu")
            way = self.engine.request([]).sampling
            self.sampler = f"{way.sampler}, {way.steps} steps, guidance {way.guidance:g}"
            run = last_of(best).manifest.run
        return run.images, run.seconds

    def sample(self, labels: list[int], seed: int) -> Images:
        """By the recommended sampler."""
        return self.engine.generate(labels, seed)


class PlainLoop:
    """The original scripts' way: the classic network in float32, a DataLoader of PIL images, Adam, `.item()`."""

    sampler = "ancestral, 1000 steps"

    def __init__(self, data_dir: Path, batch_size: int = 64, device: str | torch.device = "cpu") -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.model = Classic().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4)
        self.loader = pil_loader(data_dir, batch_size)
        self.alpha_bar = linear(1000).alpha_bar.float().to(device)

    def steps(self) -> Iterator[int]:
        """Train for ever, a step at a time, each with the number of its images."""

        def error(x0: Tensor, label: Tensor) -> Tensor:
            x0, label = x0.to(self.device), label.to(self.device)
            t, epsilon = torch.randint(1000, (len(x0),), device=self.device), torch.randn_like(x0)
            alpha_bar = self.alpha_bar[t].view(-1, 1, 1, 1)
            answer = self.model(alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * epsilon, t, label)
            return F.mse_loss(answer, epsilon)

        return learn(self.loader, self.optimizer, error)

    def train(self, seconds: float) -> tuple[int, float]:
        """Run `steps` for so long."""
        return _timed(self.steps(), seconds)

    @torch.no_grad()
    def sample(self, labels: list[int], seed: int) -> Images:
        """The full chain (Ho et al. 2020, algorithm 2, variance beta)."""
        label, x = torch.tensor(labels), torch.randn(len(labels), 1, 32, 32)
        for t in reversed(range(1000)):
            alpha_bar, before = self.alpha_bar[t], self.alpha_bar[t - 1] if t else torch.tensor(1.0)
            alpha = alpha_bar / before
            epsilon = self.model(x, torch.full((len(x),), t), label)
            x = (x - (1 - alpha) / (1 - alpha_bar).sqrt() * epsilon) / alpha.sqrt()
            if t:
                x = x + (1 - alpha).sqrt() * torch.randn_like(x)
        return _bytes(x)


class Diffusers:
    """Hugging Face `diffusers`: UNet2DModel with a class embedding, DDPMScheduler, Adam 1e-3, batches of 128."""

    sampler = "DDPMScheduler, 1000 steps"

    def __init__(self, data_dir: Path) -> None:
        from diffusers import DDPMScheduler, UNet2DModel

        torch.manual_seed(0)
        unet: Any = UNet2DModel(
            sample_size=32, in_channels=1, out_channels=1, layers_per_block=2, block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), num_class_embeds=10,
        )  # fmt: skip
        self.model = unet
        self.scheduler: Any = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loader = pil_loader(data_dir, 128)

    def train(self, seconds: float) -> tuple[int, float]:
        """The loop of its documentation."""

        def error(x0: Tensor, label: Tensor) -> Tensor:
            noise, t = torch.randn_like(x0), torch.randint(1000, (len(x0),))
            answer = self.model(self.scheduler.add_noise(x0, noise, t), t, class_labels=label).sample
            return F.mse_loss(answer, noise)

        return _timed(learn(self.loader, self.optimizer, error), seconds)

    @torch.no_grad()
    def sample(self, labels: list[int], seed: int) -> Images:
        """The full chain of its scheduler."""
        label, x = torch.tensor(labels), torch.randn(len(labels), 1, 32, 32)
        self.scheduler.set_timesteps(1000)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.model(x, t, class_labels=label).sample, t, x).prev_sample
        return _bytes(x)


class DenoisingDiffusion:
    """`denoising-diffusion-pytorch`: its classifier-free Unet of dim 32, Adam 1e-3, batches of 128."""

    sampler = "its own, 250 steps, guidance 6"

    def __init__(self, data_dir: Path) -> None:
        from denoising_diffusion_pytorch import classifier_free_guidance as theirs

        torch.manual_seed(0)
        unet = theirs.Unet(dim=32, dim_mults=(1, 2, 4), num_classes=10, channels=1, cond_drop_prob=0.1)
        self.diffusion: Any = theirs.GaussianDiffusion(unet, image_size=32, timesteps=1000, sampling_timesteps=250)
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=1e-3)
        self.loader = pil_loader(data_dir, 128)

    def train(self, seconds: float) -> tuple[int, float]:
        """The loop of its documentation; it centres pixels of [0, 1] by itself."""

        def error(x0: Tensor, label: Tensor) -> Tensor:
            loss: Tensor = self.diffusion((x0 + 1) / 2, classes=label)
            return loss

        return _timed(learn(self.loader, self.optimizer, error), seconds)

    @torch.no_grad()
    def sample(self, labels: list[int], seed: int) -> Images:
        """Its own sampler."""
        self.diffusion.eval()
        return _bytes(self.diffusion.sample(classes=torch.tensor(labels)) * 2 - 1)


CONTENDERS: dict[str, Callable[[Path], Contender]] = {
    "ddpmctl quick": lambda data_dir: Preset(data_dir, "quick"),
    "ddpmctl classic": lambda data_dir: Preset(data_dir, "classic"),
    "plain loop": PlainLoop,
    "diffusers": Diffusers,
    "denoising-diffusion-pytorch": DenoisingDiffusion,
}


def pil_loader(data_dir: Path, batch_size: int) -> "DataLoader[tuple[Tensor, Tensor]]":
    """The usual way to the real training images: PIL, transforms and two workers; float[B,1,32,32] in [-1, 1]."""
    from torchvision import transforms
    from torchvision.datasets import MNIST

    steps = [transforms.Resize(32), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    data = MNIST(str(data_dir), train=True, transform=transforms.Compose(steps))
    return DataLoader(data, batch_size, shuffle=True, num_workers=2, drop_last=True)


def learn(
    loader: "DataLoader[tuple[Tensor, Tensor]]",
    optimizer: torch.optim.Optimizer,
    error: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[int]:
    """The loop of every tutorial, for ever: gradients, a step, `.item()`; gives the number of images of each step."""
    while True:
        for x0, label in loader:
            loss = error(x0, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield len(x0)


def in_batches(contender: Contender, labels: list[int]) -> Images:
    """Sample a hundred at a time."""
    starts = range(0, len(labels), SAMPLED_TOGETHER)
    return np.concatenate([contender.sample(labels[start : start + SAMPLED_TOGETHER], start) for start in starts])


def _timed(steps: Iterator[int], seconds: float) -> tuple[int, float]:
    """As many steps as fit: the images that they showed, and the time they took."""
    started, images = time.perf_counter(), 0
    for shown in steps:
        images += shown
        if time.perf_counter() - started > seconds:
            break
    return images, time.perf_counter() - started


def _bytes(x: Tensor) -> Images:
    return ((x[:, 0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
