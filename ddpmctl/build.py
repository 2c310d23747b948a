"""Builds the objects of `core` from a config."""

from typing import TYPE_CHECKING

from ddpmctl.config import Config, DiffusionConfig

if TYPE_CHECKING:
    from torch import nn

    from ddpmctl.core.diffusion import Diffusion


def build_network(config: Config) -> "nn.Module":
    """The network of this config, randomly initialised."""
    from ddpmctl.core.classic import Classic
    from ddpmctl.core.defaults import default_dtype_and_device
    from ddpmctl.core.diffusion import PARAMETERIZATIONS
    from ddpmctl.core.gaussian import GaussianDenoiser, GaussianResidual
    from ddpmctl.core.schedule import SCHEDULES
    from ddpmctl.core.unet import UNet

    model, diffusion = config.model, config.diffusion
    with default_dtype_and_device():
        if model.network == "classic":
            return Classic(model.channels)
        network = UNet(
            channels=model.channels,
            num_classes=model.num_classes,
            widths=model.widths,
            blocks=model.blocks,
            patch=model.patch,
            embedding=model.embedding,
            norm=model.norm,
            inputs=2 * model.channels if model.gaussian_rank else model.channels,
        )
        if not model.gaussian_rank:
            return network
        schedule = SCHEDULES[diffusion.schedule](diffusion.timesteps)
        pixels = model.channels * model.sample_size**2
        gaussian = GaussianDenoiser(schedule, pixels, model.num_classes, model.gaussian_rank, model.gaussian_clusters)
        return GaussianResidual(network, gaussian, PARAMETERIZATIONS[diffusion.parameterization])


def build_diffusion(config: DiffusionConfig) -> "Diffusion":
    """The diffusion process of this config."""
    from ddpmctl.core.diffusion import Diffusion
    from ddpmctl.core.schedule import SCHEDULES

    low, high = config.pixel_range
    return Diffusion(SCHEDULES[config.schedule](config.timesteps), config.parameterization, config.clip_x0, (low, high))
