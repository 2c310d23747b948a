"""The validation loss: always the same images, timesteps and noise."""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpmctl.core.diffusion import stratified_timesteps
from ddpmctl.data.dataset import Dataset
from ddpmctl.training.train_step import TrainStep

BATCH_SIZES = {"cpu": 250, "mps": 500, "cuda": 2500}
"""Validation images per forward pass, by kind of device: a stop request is noticed between two passes."""

CONSTANT_IMAGES = 5000
"""Images that suffice for the variance of their pixels."""


class Validator:
    """Validates the EMA weights of a training step on images that are not trained on, on the device."""

    def __init__(self, step: TrainStep, images: Dataset) -> None:
        self.step = step
        self.images = images
        self._noise: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def mse(self, should_stop: Callable[[], bool]) -> float | None:
        """The mean over images, timesteps and pixels; None if a stop was requested."""
        step, images, group = self.step, self.images, self.step.execution.group
        device = step.execution.device
        timesteps, noise = self._fixed_noise()
        batches = torch.split(torch.arange(len(images), device=device), BATCH_SIZES[device.type])
        totals = torch.zeros(len(batches), dtype=torch.float32, device=device)
        for number, ids in enumerate(batches):
            turn = number % group.size
            if turn == 0 and group.any_rank(should_stop())[0]:
                return None
            if turn == group.rank:
                x0, epsilon = step.pixels(images.images[ids]), noise[ids].contiguous(memory_format=torch.channels_last)
                with step.autocast():
                    losses = step.objective.loss(step.ema.module, x0, timesteps[ids], epsilon, images.labels[ids])
                totals[number] = losses.sum()
        return group.all_reduce_sum(totals).sum().item() / len(images)

    def constant_mse(self) -> float:
        """MSE of the best constant prediction on (some of) these images: see `Diffusion.constant_mse`."""
        return self.step.diffusion.constant_mse(self.step.pixels(self.images.images[:CONSTANT_IMAGES]))

    def _fixed_noise(self) -> tuple[Tensor, Tensor]:
        """Timesteps int64[N] and noise float32[N,C,S,S], drawn once."""
        if self._noise is None:
            device, images = self.step.execution.device, self.images
            generator = torch.Generator().manual_seed(0)
            levels = self.step.timesteps
            timesteps = levels[stratified_timesteps(len(images), len(levels), generator).to(device)]
            noise = torch.randn(tuple(images.images.shape), generator=generator, dtype=torch.float32, device="cpu")
            self._noise = timesteps, noise.to(device)
        return self._noise
