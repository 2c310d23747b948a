"""A model in memory that samples images."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Self, SupportsIndex, Unpack

import numpy as np
import torch
from torch import Tensor

from ddpmctl.build import build_diffusion, build_network
from ddpmctl.config import SamplingConfig
from ddpmctl.core.guidance import scale_at
from ddpmctl.core.samplers import Step, trailing_timesteps
from ddpmctl.cuda_graphs import graphs_of
from ddpmctl.devices import choose_device, choose_precision, is_out_of_memory
from ddpmctl.errors import CheckpointError, DdpmctlError, Setting, UsageError
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.sampling.editing import step_count
from ddpmctl.sampling.loop import SMALLEST_BATCH, Images, SamplingStep, sample_trajectory, start_pixels
from ddpmctl.sampling.request import Labels, SamplingOptions, SamplingRequest

log = logging.getLogger("ddpmctl")

BATCH_SIZES = {"cpu": 64, "cuda": 2048, "mps": 128}
"""Default batch sizes with guidance, half of those without: large enough to use the device, small enough for memory."""


class Engine:
    """A model on a device, ready to sample.

    Example:
        >>> engine = ddpmctl.load("latest")  # doctest: +SKIP
        >>> engine.generate([8, 3], seed=0).shape  # doctest: +SKIP
        (2, 32, 32)

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32`` or ``bf16``, of the network alone; the sampler computes in float32.

    Raises:
        CheckpointError: for weights that are damaged or have a different shape.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", precision: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.manifest.config
        self.device = choose_device(device)
        self.precision, _ = choose_precision(precision, self.device)
        self.diffusion = build_diffusion(self.config.diffusion).to(self.device)
        network = build_network(self.config)
        weights, tensors = checkpoint.weights(), network.state_dict()
        if {name: array.shape for name, array in weights.items()} != {name: (*t.shape,) for name, t in tensors.items()}:
            raise CheckpointError(
                f"damaged checkpoint: the weights in {checkpoint.path} do not match the manifest",
                "choose another model (ddpmctl models) or train it again (ddpmctl train)",
            )
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(weights[name]))
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.sampling_step = SamplingStep(
            self.network, self.config.model.num_classes, self.device, self.precision, graphs_of(self.device)
        )

    @classmethod
    def load(cls, name: str | None = None, device: str = "auto", precision: str = "auto") -> Self:
        """Load a model by name, by path, or the newest (``"latest"`` or None)."""
        return cls(Registry().open(name), device, precision)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.checkpoint.manifest.classes

    def request(
        self, labels: Labels, seed: int = 0, *, batch_size: int | None = None, **options: Unpack[SamplingOptions]
    ) -> SamplingRequest:
        """A request for images of this model on this engine's device; see `SamplingRequest.resolve`."""
        request = SamplingRequest.resolve(self.checkpoint, labels, seed=seed, batch_size=batch_size, **options)
        return self.resolve(request)

    def resolve(self, request: SamplingRequest) -> SamplingRequest:
        """The request with the device and precision of this engine, and a batch size that suits device and labels."""
        size = request.batch_size or self._default_batch_size(request)
        size = min(size, len(request.labels)) if request.labels else size
        return replace(request, device=str(self.device), precision=self.precision, batch_size=size)

    def generate(
        self,
        labels: Labels,
        seed: int = 0,
        *,
        batch_size: int | None = None,
        fixed: bool = False,
        on_step: Callable[[int], None] | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Images:
        """Sample one image per label; see `SamplingRequest.resolve` and `run`."""
        return self.run(self.request(labels, seed, batch_size=batch_size, **options), on_step, fixed=fixed)

    def run(
        self, request: SamplingRequest, on_step: Callable[[int], None] | None = None, *, fixed: bool = False
    ) -> Images:
        """Sample the images of a request.

        The same request gives the same image within one grey level for any batch size, and bit for bit if the kernels
        of the device do not depend on it.

        Args:
            on_step: called after each step with the number of images that it advanced.
            fixed: raise an error for a batch that does not fit in memory instead of reducing the batch size.

        Returns:
            uint8[N,S,S] for grey images, uint8[N,S,S,3] for colour.
        """
        labels, model, side = _checked_labels(request), self.config.model, self.config.model.image_size
        size = request.batch_size or self._default_batch_size(request)
        images = np.empty((len(labels), side, side, *([3] if model.channels > 1 else [])), np.uint8)
        start = done = 0
        finish: Callable[[], Images] | None = None
        while start < len(labels):
            chunk = labels[start : start + size]
            # A smaller last batch uses the CUDA graph of the previous ones.
            together = min(size, len(labels)) if self.sampling_step.captures else len(chunk)
            try:
                for step in self._chain(request, start, len(chunk), together):
                    last = step
                    if on_step:
                        on_step(len(chunk))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                size = self._smaller_batch(together, fixed=fixed)
                continue
            # The images of one batch are converted while a GPU computes the next.
            before, finish = finish, start_pixels(last.x0, self.diffusion.pixel_range, side)
            done = _store_batch(images, done, before)
            start += len(chunk)
        _store_batch(images, done, finish)
        return images

    def trajectory(
        self, label: SupportsIndex | str, seed: int = 0, **options: Unpack[SamplingOptions]
    ) -> Iterator[Step]:
        """The steps from noise to one image; see `SamplingRequest.resolve` and `steps`."""
        return self.steps(self.request([label], seed, **options))

    def steps(self, request: SamplingRequest) -> Iterator[Step]:
        """The steps of a request, all images in one batch: ``x`` and ``x0`` are float32[N,C,S,S]."""
        return self._chain(request, 0, len(_checked_labels(request)))

    def step_count(self, request: SamplingRequest) -> int:
        """Sampling steps of one image of a request."""
        return step_count(self.config, request.sampling, request.variation)

    @torch.inference_mode()
    def predict_x0(self, x: Tensor, t: int, labels: Sequence[int]) -> Tensor:
        """The clean images that the network predicts from noisy ones, without guidance and clipping.

        Args:
            x: noisy images, float32[N,C,S,S].
            t: their timestep, 0 (nearly clean) to T-1 (nearly noise).
            labels: class indices; the number of classes is the null class, if the network has one.

        Returns:
            float32[N,C,S,S] on the device of the engine.
        """
        x = x.to(self.device).contiguous(memory_format=torch.channels_last)
        times = torch.full((len(x),), t, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            model_output = self.network(x, times, torch.tensor(labels, device=self.device)).float()
        return replace(self.diffusion, clip_x0=False).predict_x0(x, times, model_output)

    def nfe(self, sampling: SamplingConfig) -> int:
        """Network function evaluations per image of the built-in samplers; a guided step takes two."""
        length = len(self.diffusion.schedule)
        timesteps = trailing_timesteps(length, sampling.steps)
        scales = [scale_at(t / length, sampling.guidance, sampling.guidance_interval) for t in timesteps]
        return len(scales) + sum(scale != 1.0 for scale in scales)

    def _default_batch_size(self, request: SamplingRequest) -> int:
        """The same number of images for the network, whose batch is twice as large with guidance."""
        size = BATCH_SIZES[self.device.type]
        return size if request.sampling.guidance != 1.0 else 2 * size

    def _chain(
        self, request: SamplingRequest, start: int, count: int, at_least: int = SMALLEST_BATCH
    ) -> Iterator[Step]:
        """The steps of some of the images of a request."""
        labels, seeds = list(request.labels[start : start + count]), request.seeds[start : start + count]
        variation = request.variation.slice(start, count)
        return sample_trajectory(
            self.sampling_step, self.diffusion, self.config, request.sampling, labels, seeds, at_least, variation
        )

    def _smaller_batch(self, size: int, *, fixed: bool) -> int:
        """Half of a batch that does not fit in memory, unless its size is fixed or there is no smaller one."""
        if fixed:
            half = Setting("batch_size", max(1, size // 2))
            raise DdpmctlError(f"a batch of {size} images does not fit in memory", "use another folder with ", half)
        if size <= SMALLEST_BATCH:
            message = f"not enough memory for a batch of {SMALLEST_BATCH} images"
            raise DdpmctlError(message, Setting("device", "cpu"))
        smaller = max(SMALLEST_BATCH, size // 2)
        self.sampling_step.release()
        log.warning(f"a batch of {size} images does not fit in memory: continuing with batches of {smaller}")
        return smaller


def _checked_labels(request: SamplingRequest) -> list[int]:
    if not request.labels:
        raise UsageError("no labels", "pass at least one label")
    return list(request.labels)


def _store_batch(images: Images, done: int, finish: Callable[[], Images] | None) -> int:
    """Copy a finished batch into ``images``; returns the number of finished images."""
    if finish is None:
        return done
    batch = finish()
    images[done : done + len(batch)] = batch
    return done + len(batch)
