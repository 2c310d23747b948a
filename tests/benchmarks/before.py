"""The previous, slower training and sampling code, as the baseline of benchmarks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ddpmctl.config import Config, TrainingConfig, load_preset
from ddpmctl.core.guidance import guided, scale_at
from ddpmctl.core.samplers import SAMPLERS, trailing_timesteps
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images, to_pixels
from ddpmctl.training import optimizers
from ddpmctl.training.train_step import TrainStep

BATCH = 512
"""Images that were sampled together on CUDA."""


class MatrixMuon(torch.optim.Muon):
    """torch's Muon, one matrix at a time and in bfloat16, over kernels as matrices."""

    def __init__(self, parameters: list[nn.Parameter], settings: TrainingConfig) -> None:
        self.parameters = parameters
        self.matrices = [optimizers._as_matrix(parameter.detach(), parameter) for parameter in parameters]
        super().__init__(
            self.matrices, lr=settings.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw",
            ns_steps=settings.newton_schulz,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take the gradients over to the matrices, and step."""
        for parameter, matrix in zip(self.parameters, self.matrices, strict=True):
            assert parameter.grad is not None
            matrix.grad = optimizers._as_matrix(parameter.grad, parameter)
        loss: float | None = super().step(closure)
        return loss


class StepBefore(TrainStep):
    """An eager step, its learning rate and its average's weight numbers of the host."""

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **{**options, "static": False})
        settings, matrices = config.training, []
        if settings.optimizer == "muon":
            matrices = optimizers._hidden_matrices(self.model)
        others = [p for p in self.model.parameters() if all(p is not matrix for matrix in matrices)]
        kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
        betas = (0.9, settings.beta2)
        adam = kind(others, lr=settings.lr, betas=betas, weight_decay=settings.weight_decay, fused=True)
        self.optimizers = [*([MatrixMuon(matrices, settings)] if matrices else []), adam]


def config_before(preset: str) -> Config:
    """The settings: one batch for all kinds of devices, and networks that compute at 32x32."""
    return load_preset(preset).config


@torch.inference_mode()
def sample_before(engine: Engine, count: int) -> Images:
    """Images by the model's recommended sampler: noise image by image and step by step, one eager pass a step."""
    config, sampling, device = engine.config, engine.request([]).sampling, engine.device
    side, length = config.model.sample_size, len(engine.diffusion.schedule)
    images = []
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        label = torch.arange(start, start + size, device=device) % config.model.num_classes
        generators = [torch.Generator().manual_seed(start + k) for k in range(size)]
        shape = (config.model.channels, side, side)

        def noise(generators: list[torch.Generator] = generators, shape: tuple[int, ...] = shape) -> Tensor:
            drawn = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
            return drawn.to(device).contiguous(memory_format=torch.channels_last)

        def predict_x0(x: Tensor, t: int, label: Tensor = label) -> Tensor:
            times = torch.full((len(x),), t, device=device)
            scale = scale_at(t / length, sampling.guidance, sampling.guidance_interval)
            with torch.autocast(device.type, torch.bfloat16, enabled=engine.precision == "bf16"):
                output = guided(engine.network, scale, config.model.num_classes)(x, times, label)
            return engine.diffusion.predict_x0(x, times, output.float())

        run = SAMPLERS[sampling.sampler]
        *_, last = run(
            predict_x0, engine.diffusion.schedule, noise(), trailing_timesteps(length, sampling.steps), noise
        )
        images.append(to_pixels(last.x0, engine.diffusion.pixel_range))
    return images[0] if len(images) == 1 else torch.cat([torch.from_numpy(part) for part in images]).numpy()
