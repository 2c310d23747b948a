"""Denoising probe: an image, its noisy version at one timestep, and the prediction of the network."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpmctl.core.noise import normal
from ddpmctl.data.dataset import resized, to_model_range
from ddpmctl.errors import DataError
from ddpmctl.imaging.grid import labelled_grid
from ddpmctl.imaging.provenance import Provenance
from ddpmctl.labels import typed_label
from ddpmctl.model_images import load_training_data
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images, channels_last_pixels, to_pixels
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import check_timesteps, command_line, public_name

log = logging.getLogger("ddpmctl")

NOISE_RANGE = (-3.0, 3.0)
"""Noise values displayed as black and white."""

UPSCALE = 4


@dataclass(frozen=True, slots=True)
class DenoisingProbe:
    """What a network predicts from one noisy image; tensors are float32[C,S,S] on the CPU.

    Attributes:
        x0: the clean image, in the range of the pixels.
        epsilon: the noise that was added.
        x: x_t.
        pred_x0: the mean of x_0 given x_t, not clipped.
    """

    t: int
    x0: Tensor
    epsilon: Tensor
    x: Tensor
    pred_epsilon: Tensor
    pred_x0: Tensor

    @property
    def errors(self) -> dict[str, float]:
        """Mean squared errors of the two predictions over pixels."""
        pairs = {"epsilon": (self.pred_epsilon, self.epsilon), "x0": (self.pred_x0, self.x0)}
        return {name: float((predicted - true).square().mean()) for name, (predicted, true) in pairs.items()}

    def tiles(self, pixel_range: tuple[float, float], size: int) -> list[Images]:
        """Clean and noisy image, noise, predicted noise and predicted image as pixels."""
        shown = (
            (self.x0, pixel_range), (self.x, NOISE_RANGE), (self.epsilon, NOISE_RANGE),
            (self.pred_epsilon, NOISE_RANGE), (self.pred_x0, pixel_range),
        )  # fmt: skip
        return [to_pixels(tensor[None], limits, size)[0] for tensor, limits in shown]


@torch.inference_mode()
def probe_denoising(engine: Engine, image: Images, label: int | str, t: int, seed: int = 0) -> DenoisingProbe:
    """Add noise to an image and predict x_0, without guidance.

    Args:
        image: uint8[S,S], or uint8[S,S,3] for colour; resized to the resolution of the network.
        label: its class.
        t: the timestep, 0 (nearly clean) to T-1 (nearly noise).
        seed: of the noise.
    """
    check_timesteps(engine.checkpoint, [t])
    request = engine.request([label], seed)
    diffusion = engine.diffusion
    pixels = torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).copy())[None]
    pixels = resized(pixels, engine.config.model.sample_size)
    x0 = to_model_range(pixels, diffusion.pixel_range).to(engine.device)
    epsilon = normal([seed], 0, (*x0.shape[1:],)).to(engine.device)
    times = torch.full((1,), t, device=engine.device)
    x = diffusion.add_noise(x0, times, epsilon)
    pred_x0 = engine.predict_x0(x, t, request.labels)
    alpha, sigma = diffusion.alpha_sigma(times, x)
    pred_epsilon = (x - alpha * pred_x0) / sigma
    return DenoisingProbe(t, *(tensor[0].cpu() for tensor in (x0, epsilon, x, pred_epsilon, pred_x0)))


@dataclass(frozen=True, slots=True)
class ProbeGrid:
    """Probes of one image at several timesteps.

    Attributes:
        pixels: one row per probe, uint8[H,W] or uint8[H,W,3].
        measurements: timestep, alpha (``signal``), sigma (``noise``) and both errors of each.
    """

    pixels: Images
    measurements: list[dict[str, float]]
    provenance: Provenance


def probe_grid(
    engine: Engine,
    label: int,
    timesteps: list[int],
    seed: int = 0,
    data_dir: Path | None = None,
) -> ProbeGrid:
    """Probe an image of a class at several timesteps.

    Args:
        seed: selects the image and draws the noise.
        data_dir: as for `load_dataset`.
    """
    image = example_image(engine, label, seed, data_dir)
    probes = [probe_denoising(engine, image, label, t, seed) for t in timesteps]
    size, schedule = engine.config.model.image_size, engine.diffusion.schedule
    rows = [probe.tiles(engine.diffusion.pixel_range, size) for probe in probes]
    titles = [[f"x0, t = {t}", "x_t", "noise", "predicted noise", "predicted x0"] for t in timesteps]
    measurements = [
        {
            "t": probe.t,
            "signal": float(schedule.alpha[probe.t]),
            "noise": float(schedule.sigma[probe.t]),
            "mse_of_noise": probe.errors["epsilon"],
            "mse_of_x0": probe.errors["x0"],
        }
        for probe in probes
    ]
    return ProbeGrid(labelled_grid(rows, titles, UPSCALE), measurements, _provenance(engine, label, timesteps, seed))


def example_image(engine: Engine, label: int, seed: int = 0, data_dir: Path | None = None) -> Images:
    """An image of a class: a test image, otherwise a training image, otherwise a generated one."""
    manifest = engine.checkpoint.manifest
    reason = ""
    for train in (False, True):
        try:
            data = load_training_data(manifest, data_dir, train=train)
        except DataError as error:
            if train and data_dir is not None:
                raise
            reason = error.message
            continue
        found = (data.labels == label).nonzero()[:, 0]
        if len(found):
            if train:
                log.info(f"{reason}: using a training image")
            real: Images = channels_last_pixels(data.images[found[seed % len(found)]][None])[0]
            return real
        reason = f"{data.name} has no {'' if train else 'test '}image of {manifest.classes[label]}"
    log.info(f"{reason}: using a generated image")
    generated: Images = engine.generate([label], seed)[0]
    return generated


def _provenance(engine: Engine, label: int, timesteps: list[int], seed: int) -> Provenance:
    checkpoint, device = engine.checkpoint, engine.device.type
    argv = command_line(
        "inspect", public_name(checkpoint), at=timesteps,
        label=typed_label(label, checkpoint.manifest.classes), seed=seed, device=device,
    )  # fmt: skip
    provenance = build_provenance(engine.request([label], seed, batch_size=1), "sheet", argv, upscale=UPSCALE)
    # Nothing is sampled.
    return replace(provenance, sampler="none", steps=0, guidance=1.0, guidance_interval=(0.0, 1.0))
