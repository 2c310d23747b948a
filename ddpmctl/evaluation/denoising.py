"""The denoising of a model without guidance: what its classifier and its likelihood are made of."""

import torch
from torch import Tensor

from ddpmctl.data.dataset import to_model_range
from ddpmctl.errors import UsageError
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import SMALLEST_BATCH
from ddpmctl.sampling.request import public_name

BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**21, "mps": 2**18}
"""Pixels of a batch: 256 images of 32x32 on a CPU, where larger batches are not faster (measured)."""


def check_denoiser(checkpoint: Checkpoint, task: str) -> None:
    """Check that a model predicts the mean of x_0, which a distilled one does not."""
    if student := checkpoint.manifest.config.distillation:
        raise UsageError(
            f"'{public_name(checkpoint)}' has no {task}: a distilled model predicts where the steps of its teacher "
            "arrive, not the mean of the clean images",
            f"use its teacher, '{student.teacher}', or another model that is not distilled",
        )


def check_classifier(checkpoint: Checkpoint) -> None:
    """Check that a model can classify: it is not distilled and has at least two classes."""
    check_denoiser(checkpoint, "classifier")
    if len(checkpoint.manifest.classes) < 2:
        raise UsageError(
            f"'{public_name(checkpoint)}' has only one class, so there is nothing to classify",
            "use a model of several classes: ddpmctl models",
        )


class Denoising:
    """The clean images that a model predicts from noisy ones at any timesteps, in batches.

    Attributes:
        shape: of an image: channels, height and width.
        batch: the largest number of images in a call.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        model = engine.config.model
        self.shape = (model.channels, model.sample_size, model.sample_size)
        self.batch = max(SMALLEST_BATCH, BATCH_PIXELS[engine.device.type] // model.sample_size**2)

    def clean(self, images: Tensor) -> Tensor:
        """uint8[N,C,S,S] as float32[N,C,S,S] in the range of the model, on the device."""
        return to_model_range(images.to(self.engine.device), self.engine.diffusion.pixel_range)

    @torch.inference_mode()
    def predict_x0(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """x0_hat, float32[B,C,S,S], of noisy images float32[B,C,S,S] at timesteps int64[B] for labels int64[B]."""
        count, engine = len(x), self.engine
        # Few images are padded as in sampling; a CUDA graph has a fixed shape.
        size = self.batch if engine.sampling_step.captures else max(count, SMALLEST_BATCH)
        rows = torch.arange(size, device=x.device).clamp(max=count - 1)
        x, t, labels = x[rows].contiguous(memory_format=torch.channels_last), t[rows], labels[rows]
        return engine.diffusion.predict_x0(x, t, engine.sampling_step.model_output(x, t, labels, 1.0))[:count]
