"""Builds the objects of `core` from a config."""

from typing import TYPE_CHECKING

from ddpmctl.config import DiffusionConfig, ModelConfig

if TYPE_CHECKING:
    from torch import nn

    from ddpmctl.core.diffusion import Diffusion


def build_network(config: ModelConfig) -> "nn.Module":
    """The network of this config, randomly initialised."""
    from ddpmctl.core.classic import Classic
    from ddpmctl.core.defaults import default_dtype_and_device
    from ddpmctl.core.unet import UNet

    with default_dtype_and_device():
        if config.network == "classic":
            return Classic(config.channels)
        return UNet(
            channels=config.channels,
            num_classes=config.num_classes,
            widths=config.widths,
            blocks=config.blocks,
            patch=config.patch,
            embedding=config.embedding,
            norm=config.norm,
        )


def build_diffusion(config: DiffusionConfig) -> "Diffusion":
    """The diffusion process of this config."""
    from ddpmctl.core.diffusion import Diffusion
    from ddpmctl.core.schedule import SCHEDULES

    low, high = config.pixel_range
    return Diffusion(SCHEDULES[config.schedule](config.timesteps), config.parameterization, config.clip_x0, (low, high))
