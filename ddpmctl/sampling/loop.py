"""One batch along the chain, and tensors as pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddpmctl import plugins
from ddpmctl.config import ModelConfig, SamplingConfig
from ddpmctl.core.diffusion import Denoiser, Diffusion
from ddpmctl.core.guidance import guided, scale_at
from ddpmctl.core.noise import key_words, normal, normal_from_key
from ddpmctl.core.samplers import SAMPLERS, Sampler, Step, trailing_timesteps
from ddpmctl.cuda_graphs import CapturedCall, Graphs
from ddpmctl.data.dataset import resized

Images = NDArray[np.uint8]

SMALLEST_BATCH = 8
"""A smaller one is filled up: kernels for very few images sum in another order, which changes the image."""


class SamplingStep:
    """What the steps of a chain compute on a device: the network's output with guidance, and noise.

    Keep it from chain to chain: on CUDA it captures both as graphs, one for each shape of batch.

    Args:
        network: in evaluation mode, on the device; its parameters keep their addresses.
        null_label: the index that stands for no label.
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
        self._normal = CapturedCall(normal_from_key, graphs)

    def model_output(self, x: Tensor, times: Tensor, label: Tensor, scale: float) -> Tensor:
        """The network's output, float32[N,C,S,S], for x float32[N,C,S,S], times and label int64[N], guidance scale."""
        guidance = () if scale == 1.0 else (torch.full((), scale, device=self.device),)
        # A graph does not see that BatchNorm was switched from one kind of statistics to the other.
        training = tuple(module.training for module in self._modules)
        return self._output(x, times, label, *guidance, training=training)

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
        """Free what was captured."""
        self._output.release()
        self._normal.release()


def _guided_output(network: Denoiser, null_label: int, device: torch.device, precision: str) -> Callable[..., Tensor]:
    """``output(x, times, label[, scale])``, float32, of fixed shapes; with a scale, float32[], it is guided."""

    def plain(x: Tensor, times: Tensor, label: Tensor) -> Tensor:
        # A cache of weights in bf16 would outlive a capture, in which they were not computed.
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            return network(x, times, label).float()

    def output(x: Tensor, times: Tensor, label: Tensor, scale: float | Tensor = 1.0, *, training: object) -> Tensor:
        return guided(plain, scale, null_label)(x, times, label)

    return output


@torch.inference_mode()
def run_chain(
    step: SamplingStep,
    diffusion: Diffusion,
    model: ModelConfig,
    sampling: SamplingConfig,
    labels: list[int],
    seeds: range,
    at_least: int = SMALLEST_BATCH,
) -> Iterator[Step]:
    """The steps from noise to one image per label, all in one batch: ``x`` and ``x0`` are float32[N,C,S,S].

    Each image draws all its noise from its own seed and does not depend on the others. A batch of fewer than
    ``at_least`` images is filled up by repeating its last one.
    """
    length, device, images = len(diffusion.schedule), step.device, len(labels)
    filling = max(0, max(at_least, SMALLEST_BATCH) - images)
    label = torch.tensor([*labels, *labels[-1:] * filling], device=device)
    draw = step.noise(seeds, (model.channels, model.sample_size, model.sample_size))

    def noise() -> Tensor:
        drawn = draw()
        together = torch.cat([drawn, drawn[-1:].expand(filling, -1, -1, -1)]) if filling else drawn
        return together.contiguous(memory_format=torch.channels_last)

    def predict_x0(x: Tensor, t: int) -> Tensor:
        times = torch.full((len(x),), t, device=device)
        scale = scale_at(t / length, sampling.guidance, sampling.guidance_interval)
        return diffusion.predict_x0(x, times, step.model_output(x, times, label, scale))

    run, timesteps = find_sampler(sampling.sampler), trailing_timesteps(length, sampling.steps)
    for taken in run(predict_x0, diffusion.schedule, noise(), timesteps, noise):
        yield replace(taken, x=taken.x[:images], x0=taken.x0[:images])


def find_sampler(name: str) -> Sampler:
    """A built-in sampler, or one that a plugin adds."""
    if name in SAMPLERS:
        return SAMPLERS[name]
    added: Sampler = plugins.available(plugins.SAMPLERS)[name].load()
    return added


def to_pixels(x: Tensor, pixel_range: tuple[float, float] = (-1.0, 1.0), size: int | None = None) -> Images:
    """float[N,C,S,S] to uint8[N,S,S], or [N,S,S,3] for three channels, clipped to the range of black and white.

    With a size, the bytes are resized to that side as training images are.
    """
    return start_pixels(x, pixel_range, size)()


def start_pixels(
    x: Tensor, pixel_range: tuple[float, float] = (-1.0, 1.0), size: int | None = None
) -> Callable[[], Images]:
    """`to_pixels` in two parts: the copy from the device begins now, the returned function waits for it.

    What is issued to a GPU in between runs while the copy is converted.
    """
    low, high = pixel_range
    # As bytes first: a copy that also converts would move float32 from the device.
    pixels = ((x.clamp(low, high) - low) * (255 / (high - low))).round().to(torch.uint8)
    event = None
    if pixels.device.type == "cuda":
        # Only a copy into pinned memory lets the host go on; and only an event waits for no more than the copy.
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
