"""The sampling loop for one batch, and conversion to pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddpmctl import plugins
from ddpmctl.config import Config, SamplingConfig
from ddpmctl.core.diffusion import Denoiser, Diffusion
from ddpmctl.core.gaussian import Clusters, GaussianResidual
from ddpmctl.core.guidance import guided, scale_at
from ddpmctl.core.noise import key_words, normal, normal_from_key
from ddpmctl.core.samplers import SAMPLERS, PredictX0, Sampler, Step
from ddpmctl.cuda_graphs import CapturedCall, Graphs
from ddpmctl.data.dataset import resized, to_model_range
from ddpmctl.sampling.editing import begin_in_closed_form, chain_timesteps, keep_known, mixed, resample, spherical
from ddpmctl.sampling.variation import PLAIN, Mix, Start, Variation

Images = NDArray[np.uint8]

SMALLEST_BATCH = 8
"""Smaller batches are padded: kernels for few images sum in a different order, which changes the image."""


class SamplingStep:
    """What one sampling step computes on a device: the model output with guidance, and noise.

    Reuse it between batches: on CUDA it captures both as graphs, one per batch shape.

    Args:
        network: in evaluation mode, on the device; its parameters keep their addresses.
        null_label: the index of the null class.
        precision: ``fp32`` or ``bf16``, of the network alone; guidance and the sampler compute in float32.
    """

    def __init__(
        self,
        network: Denoiser,
        null_label: int,
        device: torch.device,
        precision: str,
        graphs: Graphs | None = None,
    ) -> None:
        self.device = device
        self.captures = graphs is not None
        self._modules = tuple(network.modules()) if isinstance(network, nn.Module) else ()
        self._output = CapturedCall(_guided_output(network, null_label, device, precision), graphs)
        self._closed_form = CapturedCall(_closed_form(network, precision), graphs)
        self._normal = CapturedCall(normal_from_key, graphs)

    def model_output(self, x: Tensor, times: Tensor, label: Tensor, scale: float, mix: Mix = ()) -> Tensor:
        """The model output, float32[N,C,S,S], for x float32[N,C,S,S], times and label int64[N], guidance scale."""
        guidance = () if scale == 1.0 else (torch.full((), scale, device=self.device),)
        # A graph does not notice that BatchNorm was switched between running and batch statistics.
        training = tuple(module.training for module in self._modules)
        return self._output(x, times, label, *guidance, training=training, mix=mix)

    def closed_form(self, x: Tensor, times: Tensor, label: Tensor, scale: float, mix: Mix = ()) -> Tensor:
        """The velocity of the Gaussian denoiser alone, of high noise levels: float32[N,C,S,S]; as `model_output`."""
        return self._closed_form(x, times, label, torch.full((), scale, device=self.device), mix=mix)

    def noise(self, seeds: Sequence[int], shape: tuple[int, ...]) -> Callable[[], Tensor]:
        """A function that draws noise of these seeds, float32[N, *shape] on the device: draw 0, then 1, and so on."""
        draws = count()
        if self.device.type != "cuda" and not self.captures:  # MPS has no float64
            return lambda: normal(seeds, next(draws), shape).to(self.device)
        key = torch.from_numpy(key_words(seeds).view(np.int32)).to(self.device)

        def draw() -> Tensor:
            number = torch.full((), next(draws), dtype=torch.int32, device=self.device)
            return self._normal(key, number, shape=shape)

        return draw

    def release(self) -> None:
        """Free the captured graphs."""
        self._output.release()
        self._closed_form.release()
        self._normal.release()


def _guided_output(network: Denoiser, null_label: int, device: torch.device, precision: str) -> Callable[..., Tensor]:
    """``output(x, times, label[, scale])``, float32, of fixed shapes; guided if a scale, float32[], is given."""

    def plain(x: Tensor, times: Tensor, label: Tensor) -> Tensor:
        # A cache of bf16 weights would outlive the capture that computed it.
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            return network(x, times, label).float()

    def output(
        x: Tensor, times: Tensor, label: Tensor, scale: float | Tensor = 1.0, *, training: object, mix: Mix = ()
    ) -> Tensor:
        if not mix:
            return guided(plain, scale, null_label)(x, times, label)
        cond = mixed(plain, mix)(x, times, label)
        if not isinstance(scale, Tensor):
            return cond
        uncond = plain(x, times, torch.full_like(label, null_label))
        return uncond + scale * (cond - uncond)

    return output


def _closed_form(network: Denoiser, precision: str) -> Callable[..., Tensor]:
    """``velocity(x, times, label, scale)``, float32, of the Gaussian denoiser of a network."""
    clusters: list[Clusters] = []

    def output(x: Tensor, times: Tensor, label: Tensor, scale: Tensor, *, mix: Mix = ()) -> Tensor:
        assert isinstance(network, GaussianResidual), "only such a network has a closed form"
        gaussian = network.gaussian
        if not clusters:
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            clusters.append(gaussian.clusters_of().with_products_in(dtype))

        def velocity(x: Tensor, times: Tensor, label: Tensor) -> Tensor:
            return gaussian.velocity(clusters[0], x, times, label, scale)

        return (mixed(velocity, mix) if mix else velocity)(x, times, label)

    return output


@torch.inference_mode()
def sample_trajectory(
    step: SamplingStep,
    diffusion: Diffusion,
    config: Config,
    sampling: SamplingConfig,
    labels: list[int],
    seeds: Sequence[int],
    at_least: int = SMALLEST_BATCH,
    variation: Variation = PLAIN,
) -> Iterator[Step]:
    """The steps from noise to one image per label, all in one batch: ``x`` and ``x0`` are float32[N,C,S,S].

    Each image draws all its noise from its own seed and does not depend on the others. A batch of fewer than
    ``at_least`` images is padded by repeating its last one.

    Args:
        variation: of these images, with one fraction for each if their noise is interpolated.
    """
    length, device, images, model = len(diffusion.schedule), step.device, len(labels), config.model
    closed_form = config.closed_form
    padding = max(0, max(at_least, SMALLEST_BATCH) - images)
    label = torch.tensor([*labels, *labels[-1:] * padding], device=device)
    shape, start, between = (model.channels, model.sample_size, model.sample_size), variation.start, variation.between
    draw = step.noise(seeds, shape)

    def padded(drawn: Tensor) -> Tensor:
        together = torch.cat([drawn, drawn[-1:].expand(padding, -1, -1, -1)]) if padding else drawn
        return together.contiguous(memory_format=torch.channels_last)

    def noise() -> Tensor:
        return padded(draw())

    def predict_x0(x: Tensor, t: int) -> Tensor:
        times = torch.full((len(x),), t, device=device)
        if closed_form and t >= config.chain_length:
            scale = scale_at(t / length, closed_form.guidance, closed_form.guidance_interval)
            return diffusion.predict_x0(x, times, step.closed_form(x, times, label, scale, variation.mix))
        scale = scale_at(t / length, sampling.guidance, sampling.guidance_interval)
        return diffusion.predict_x0(x, times, step.model_output(x, times, label, scale, variation.mix))

    run, timesteps = find_sampler(sampling.sampler), chain_timesteps(config, sampling.steps, variation)
    if closed_form:
        run = partial(begin_in_closed_form, config.chain_length - 1, run)
    predict: PredictX0 = predict_x0
    x = draw()
    if between:
        x = spherical(x, step.noise([between.seeds[1]] * images, shape)(), between.fractions)
    x = padded(x)
    if start:
        x0 = start_image(start, diffusion).to(device)
        x = diffusion.add_noise(x0, torch.full((len(x),), timesteps[0], device=device), x)
        if start.mask is not None:
            predict, run = keep_known(predict_x0, x0, torch.from_numpy(start.mask).to(device)), partial(resample, run)
    for result in run(predict, diffusion.schedule, x, timesteps, noise):
        yield replace(result, x=result.x[:images], x0=result.x0[:images])


def start_image(start: Start, diffusion: Diffusion) -> Tensor:
    """The picture that images are edited from, float32[1,C,S,S] in the range of the pixels."""
    pixels = start.drawing.pixels
    bands = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy()).permute(2, 0, 1)
    return to_model_range(bands[None], diffusion.pixel_range)


def find_sampler(name: str) -> Sampler:
    """A built-in sampler, or one that a plugin adds."""
    if name in SAMPLERS:
        return SAMPLERS[name]
    plugin: Sampler = plugins.available(plugins.SAMPLERS)[name].load()
    return plugin


def to_pixels(x: Tensor, pixel_range: tuple[float, float] = (-1.0, 1.0), size: int | None = None) -> Images:
    """float[N,C,S,S] to uint8[N,S,S], or [N,S,S,3] for three channels, clipped to the pixel range.

    With a size, the bytes are resized to that side as training images are.
    """
    return start_pixels(x, pixel_range, size)()


def start_pixels(
    x: Tensor, pixel_range: tuple[float, float] = (-1.0, 1.0), size: int | None = None
) -> Callable[[], Images]:
    """`to_pixels` in two parts: the copy from the device starts now, the returned function waits for it.

    Work issued to a GPU in between overlaps with the conversion.
    """
    low, high = pixel_range
    # Convert to bytes first, so that fewer bytes are copied from the device.
    pixels = ((x.clamp(low, high) - low) * (255 / (high - low))).round().to(torch.uint8)
    event = None
    if pixels.device.type == "cuda":
        # Only a copy into pinned memory is asynchronous; and only an event waits for no more than the copy.
        host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
        host.copy_(pixels, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
    else:
        host = pixels.cpu()

    def finish() -> Images:
        if event is not None:
            event.synchronize()
        return channels_last_pixels(host if size is None else resized(host, size))

    return finish


def channels_last_pixels(images: Tensor) -> Images:
    """uint8[N,C,S,S], as networks have it, to uint8[N,S,S] or [N,S,S,3], as files have it."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
