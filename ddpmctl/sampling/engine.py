"""A loaded model that makes images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from ddpmctl import plugins
from ddpmctl.build import build_diffusion, build_network
from ddpmctl.config import SamplingConfig, resolve_sampling
from ddpmctl.core.guidance import scale_at
from ddpmctl.core.noise import normal
from ddpmctl.core.samplers import Step, trailing_timesteps
from ddpmctl.cuda_graphs import graphs_of
from ddpmctl.data.dataset import resized, to_model_range
from ddpmctl.devices import choose_device, choose_precision, is_out_of_memory
from ddpmctl.errors import CheckpointError, DdpmctlError, UsageError
from ddpmctl.labels import resolve_label
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.sampling.loop import SMALLEST_BATCH, Images, SamplingStep, run_chain, start_pixels

BATCH_SIZES = {"cpu": 64, "cuda": 2048, "mps": 128}
"""Images sampled together: enough to keep each kind of device busy, few enough for small memories."""

MAX_SEED = 2**63 - 1

Labels = Iterable[SupportsIndex | str]


@dataclass(frozen=True, slots=True)
class Look:
    """What a network makes of one noisy image; tensors are float32[C,S,S] on the CPU.

    Attributes:
        x0: the clean image, in the range of the pixels.
        epsilon: the noise that was added.
        x: the two together at timestep t.
        told_epsilon: the noise that the network tells.
        told_x0: the clean image that it expects: a mean over all that could be behind ``x`` (not clipped).
    """

    x0: Tensor
    epsilon: Tensor
    x: Tensor
    told_epsilon: Tensor
    told_x0: Tensor

    @property
    def errors(self) -> dict[str, float]:
        """Mean squared errors over pixels of what was told."""
        pairs = {"epsilon": (self.told_epsilon, self.epsilon), "x0": (self.told_x0, self.x0)}
        return {name: float((told - true).square().mean()) for name, (told, true) in pairs.items()}


class Engine:
    """A model in memory, ready to sample.

    Example:
        >>> engine = Engine.load("latest")  # doctest: +SKIP
        >>> engine.generate([8, 3], seed=0).shape  # doctest: +SKIP
        (2, 32, 32)

    Args:
        checkpoint: an opened commit.
        device: as in ``--device``.
        precision: as in ``--precision``; of the network alone, the sampler computes in float32.
        notice: told, in words, when memory is short and fewer images are sampled together.

    Raises:
        CheckpointError: for weights that are damaged or of another shape.
        DdpmctlError: for a device that is not here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        precision: str = "auto",
        notice: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.checkpoint = checkpoint
        self.notice = notice
        self.config = checkpoint.manifest.config
        self.device = choose_device(device)
        self.precision, _ = choose_precision(precision, self.device)
        self.diffusion = build_diffusion(self.config.diffusion).to(self.device)
        network = build_network(self.config.model)
        weights, tensors = checkpoint.weights(), network.state_dict()
        if {name: array.shape for name, array in weights.items()} != {name: (*t.shape,) for name, t in tensors.items()}:
            raise CheckpointError(
                f"damaged checkpoint: the weights in {checkpoint.path} do not fit their manifest",
                "choose another model (ddpmctl models) or train it again (ddpmctl train)",
            )
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(weights[name]))
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        graphs, null_label = graphs_of(self.device), self.config.model.num_classes
        self.sampling_step = SamplingStep(self.network, null_label, self.device, self.precision, graphs, notice)

    @classmethod
    def load(cls, reference: str | None = None, device: str = "auto", precision: str = "auto") -> Self:
        """Load a model by name, by path, or the newest (``"latest"`` or None).

        Raises:
            CheckpointError: when there is none or it is damaged.
        """
        return cls(Registry().open(reference), device, precision)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.checkpoint.manifest.classes

    def generate(
        self,
        labels: Labels,
        seed: int = 0,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, ...] | None = None,
        batch_size: int | None = None,
        fixed: bool = False,
        on_step: Callable[[int], None] | None = None,
    ) -> Images:
        """Make one image a label.

        Image ``k`` draws all its noise from seed ``seed + k``: it does not depend on the others.

        Args:
            labels: indices (Python or NumPy integers, also as an array) or class names; ``1`` is the class with index
                1, ``"1"`` the class named 1.
            seed: in 0..2^63-1.
            sampler: ``ddpm``, ``ddim``, ``dpmpp``, ``dpmpp-sde`` or a plugin's; the model's own recommendation by
                default.
            steps: of the sampler along the chain.
            guidance: 1.0 is none.
            guidance_interval: where along the chain guidance acts, from and to: 0 is the image, 1 the noise.
            batch_size: images sampled together, 8 at least. Results agree to a grey level whatever it is, and bit for
                bit where the kernels of the device do not depend on it.
            fixed: whether a batch that does not fit in memory is an error; else it is made smaller.
            on_step: told after each step how many images it advanced.

        Returns:
            uint8[N,S,S] for grey images, uint8[N,S,S,3] for colour.

        Raises:
            UsageError: for an unknown label or sampler, or settings that this model has not.
        """
        sampling = self.resolve(sampler, steps, guidance, guidance_interval)
        indices = self._indices(labels)
        check_seed(seed, len(indices))
        size = checked_batch(BATCH_SIZES[self.device.type] if batch_size is None else batch_size)
        model, side = self.config.model, self.config.model.image_size
        start = done = 0
        images = np.empty((len(indices), side, side, *([3] if model.channels > 1 else [])), np.uint8)
        finish: Callable[[], Images] | None = None
        while start < len(indices):
            chunk = indices[start : start + size]
            # A last batch that is smaller takes the graph of those before it, where there is one.
            together = min(size, len(indices)) if self.sampling_step.captures else len(chunk)
            try:
                for step in self._steps(chunk, range(seed + start, seed + start + len(chunk)), sampling, together):
                    last = step
                    if on_step:
                        on_step(len(chunk))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                size = self._fewer(together, fixed=fixed)
                continue
            # The images of one batch are converted while a GPU computes the next.
            before, finish = finish, start_pixels(last.x0, self.diffusion.pixel_range, side)
            done = _filled(images, done, before)
            start += len(chunk)
        _filled(images, done, finish)
        return images

    def _fewer(self, together: int, *, fixed: bool) -> int:
        """A smaller batch, where one does not fit in memory.

        Raises:
            DdpmctlError: when even the smallest does not, or another is none.
        """
        if fixed:
            half = max(1, together // 2)
            raise DdpmctlError(f"{together} images at once do not fit in memory", f"--batch-size {half}, elsewhere")
        if together <= SMALLEST_BATCH:
            raise DdpmctlError(f"there is not enough memory for {SMALLEST_BATCH} images at once", "--device cpu")
        size = max(SMALLEST_BATCH, together // 2)
        self.sampling_step.release()
        self.notice(f"{together} images at once do not fit in memory: making {size} at a time")
        return size

    def trajectory(
        self,
        label: SupportsIndex | str,
        seed: int = 0,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, ...] | None = None,
    ) -> Iterator[Step]:
        """The steps from noise to one image, as they are made: ``x`` and ``x0`` are float32[1,C,S,S].

        The arguments and errors are those of `generate`.
        """
        return self.chain([label], seed, self.resolve(sampler, steps, guidance, guidance_interval))

    def chain(self, labels: Labels, seed: int, sampling: SamplingConfig) -> Iterator[Step]:
        """The steps from noise to an image a label, all in one batch: ``x`` and ``x0`` are float32[N,C,S,S].

        Args:
            labels: class indices or names.
            seed: of the first image, as in `generate`.
            sampling: as from `resolve`.

        Raises:
            UsageError: for an unknown label or a seed out of range.
        """
        indices = self._indices(labels)
        check_seed(seed, len(indices))
        return self._steps(indices, range(seed, seed + len(indices)), sampling)

    @torch.inference_mode()
    def predict_x0(self, x: Tensor, t: int, labels: Sequence[int]) -> Tensor:
        """The clean images that the network expects behind noisy ones, without guidance, and not clipped.

        Args:
            x: noisy images, float32[N,C,S,S].
            t: their timestep, 0 (nearly clean) to T-1 (nearly noise).
            labels: class indices; the number of classes stands for no label where the network can be guided.

        Returns:
            float32[N,C,S,S] on the device of the engine.
        """
        x = x.to(self.device).contiguous(memory_format=torch.channels_last)
        times = torch.full((len(x),), t, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            answer = self.network(x, times, torch.tensor(labels, device=self.device)).float()
        return replace(self.diffusion, clip_x0=False).predict_x0(x, times, answer)

    @torch.inference_mode()
    def look(self, image: Images, label: SupportsIndex | str, t: int, seed: int = 0) -> Look:
        """Add noise to an image and ask the network what is behind it, without guidance.

        Args:
            image: uint8[S,S], or uint8[S,S,3] for colour; resized to the side that the network has.
            label: what it shows.
            t: the timestep, 0 (nearly clean) to T-1 (nearly noise).
            seed: of the noise.

        Raises:
            UsageError: for a timestep or a label that this model has not.
        """
        length = len(self.diffusion.schedule)
        if not 0 <= t < length:
            raise UsageError(f"there is no timestep {t}: this model's chain has {length}", f"--at 0..{length - 1}")
        check_seed(seed, 1)
        pixels = torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).copy())[None]
        pixels = resized(pixels, self.config.model.sample_size)
        x0 = to_model_range(pixels, self.diffusion.pixel_range).to(self.device)
        epsilon = normal([seed], 0, (*x0.shape[1:],)).to(self.device)
        times = torch.full((1,), t, device=self.device)
        x = self.diffusion.add_noise(x0, times, epsilon)
        told_x0 = self.predict_x0(x, t, self._indices([label]))
        alpha, sigma = self.diffusion.alpha_sigma(times, x)
        told_epsilon = (x - alpha * told_x0) / sigma
        return Look(*(tensor[0].cpu() for tensor in (x0, epsilon, x, told_epsilon, told_x0)))

    def resolve(
        self,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, ...] | None = None,
    ) -> SamplingConfig:
        """Complete and check sampling settings with this model's recommendation."""
        return resolve_sampling(
            self.config, sampler, steps, guidance, guidance_interval, plugins.available(plugins.SAMPLERS)
        )

    def evaluations(self, sampling: SamplingConfig) -> int:
        """How often the built-in samplers ask the network for one image; a guided step asks twice."""
        length = len(self.diffusion.schedule)
        timesteps = trailing_timesteps(length, sampling.steps)
        scales = [scale_at(t / length, sampling.guidance, sampling.guidance_interval) for t in timesteps]
        return len(scales) + sum(scale != 1.0 for scale in scales)

    def _steps(
        self, labels: list[int], seeds: range, sampling: SamplingConfig, at_least: int = SMALLEST_BATCH
    ) -> Iterator[Step]:
        """Run the chain for one batch."""
        return run_chain(self.sampling_step, self.diffusion, self.config.model, sampling, labels, seeds, at_least)

    def _indices(self, labels: Labels) -> list[int]:
        if isinstance(labels, str):
            raise UsageError(f"labels are a sequence, not the text '{labels}'", f"engine.generate(['{labels}'])")
        indices = [resolve_label(label, self.classes) for label in labels]
        if not indices:
            raise UsageError("no label was given", "name at least one class")
        return indices


def _filled(images: Images, done: int, finish: Callable[[], Images] | None) -> int:
    """Put a batch behind the images that are done; returns how many are then."""
    if finish is None:
        return done
    batch = finish()
    images[done : done + len(batch)] = batch
    return done + len(batch)


def checked_batch(size: int) -> int:
    """A size of batches that is one.

    Raises:
        UsageError: when it is not.
    """
    if size < 1:
        raise UsageError(f"a batch of {size} holds no image", "batch_size is 1 or more")
    return size


def check_seed(seed: int, count: int) -> None:
    """See that ``count`` seeds from ``seed`` on exist.

    Raises:
        UsageError: when they do not.
    """
    if not 0 <= seed <= MAX_SEED - count:
        raise UsageError(f"the seed {seed} is out of range", "--seed 0..9000000000000000000")
