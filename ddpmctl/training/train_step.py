"""One optimizer step, and how it is executed: eagerly, in several processes, or captured in a CUDA graph."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ddpmctl.build import build_diffusion, build_network
from ddpmctl.config import Config
from ddpmctl.core.diffusion import Denoiser, Focus, stratified_timesteps
from ddpmctl.core.distillation import Distillation, Teacher
from ddpmctl.core.ema import EMA
from ddpmctl.core.gaussian import GaussianResidual
from ddpmctl.data.dataset import Dataset, to_model_range
from ddpmctl.devices import is_out_of_memory
from ddpmctl.errors import DdpmctlError, Setting
from ddpmctl.training.execution import Execution
from ddpmctl.training.memory import batch_too_large
from ddpmctl.training.optimizers import copy_into, load_state_dict, make_optimizers, set_learning_rate, state_dict
from ddpmctl.training.run_spec import RunSpec

WARM_UP = 3
"""Eager steps before a capture, in which libraries allocate their workspaces; what they change is undone."""

FIT_VALUES = 10**8
"""Pixel values from which the Gaussian denoiser is measured, at most."""

log = logging.getLogger("ddpmctl")


class Objective(Protocol):
    """A training loss: that of a diffusion model, or of a student."""

    def loss(self, model: Denoiser, x0: Tensor, t: Tensor, epsilon: Tensor, label: Tensor) -> Tensor:
        """The loss of each image, float32[B]; see `Diffusion.loss`."""
        ...


class TrainStep:
    """One step of Ho et al. 2020, algorithm 1: draw, forward, backward, clip, step, average.

    What a step does is a function of the state, the seed and the step's number, whatever ran before. On one CUDA device
    the whole step is one graph: its inputs (the images' ids, the learning rate, the average's weight and the seed of
    its random numbers) are tensors and a generator that the graph was captured with, so that the host launches once a
    step and waits for nothing. A static step that is not captured runs the same operations on the same tensors.

    Args:
        train_set: the training images, on the device.
        static: whether a step reads its inputs from fixed tensors; None decides by whether it is captured.

    Attributes:
        model: the trained network.
        ema: its exponential moving average.
        captured: whether steps replay a CUDA graph.
        objective: what the loss is.
        timesteps: those that are trained at, int64[N].
    """

    def __init__(
        self, config: Config, train_set: Dataset, spec: RunSpec, execution: Execution, *, static: bool | None = None
    ) -> None:
        device, group = execution.device, execution.group
        self.config = config
        self.train_set = train_set
        self.spec = spec
        self.execution = execution
        self.static = device.type == "cuda" and group.size == 1 if static is None else static
        torch.manual_seed(spec.seed)
        self.diffusion = build_diffusion(config.diffusion).to(device)
        self.objective: Objective = self.diffusion
        self.timesteps = torch.arange(config.diffusion.timesteps, device=device)
        self.focus = Focus(config.training.timestep_focus, config.training.focus_share)
        network = build_network(config)
        if isinstance(network, GaussianResidual):
            # On the CPU, in every process from the same images.
            stride = -(-train_set.images.numel() // FIT_VALUES)
            network.gaussian.fit(self.pixels(train_set.images[::stride].cpu()), train_set.labels[::stride].cpu())
        self.model: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if spec.compile:
            self.model.compile()
        self.wrapped = group.wrap(self.model)
        self.ema = EMA(self.model, config.training.ema_lag)
        self.optimizers = make_optimizers(self.model, config.training, on_gpu=self.static)
        self.generator = torch.Generator(device)
        self.captured = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._ids = torch.empty(0, dtype=torch.int64, device=device)
        self._ema_weight = torch.zeros((), dtype=torch.float32, device=device)
        self._metrics = torch.zeros(2, dtype=torch.float32, device=device)

    def distill(self, teacher: Mapping[str, np.ndarray]) -> None:
        """Start from the weights of a teacher, and train the network to repeat it in fewer steps."""
        settings = self.config.distillation
        assert settings is not None, "only a student has a teacher"
        with torch.no_grad():
            for name, tensor in [*self.model.state_dict().items(), *self.ema.module.state_dict().items()]:
                copy_into(tensor, teacher[name])
        device, own = self.execution.device, self.config.diffusion
        # The student may predict something else than its teacher.
        of_teacher = replace(own, parameterization=settings.parameterization, clip_x0=settings.clip_x0)
        network = build_network(replace(self.config, diffusion=of_teacher))
        network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                copy_into(tensor, teacher[name])
        diffusion, null_label = build_diffusion(of_teacher).to(device), self.config.model.num_classes
        guided = Teacher(network, diffusion, settings.guidance, settings.guidance_interval, null_label)
        self.objective = Distillation(
            guided, self.diffusion, settings.steps, settings.substeps, self.config.chain_length, device
        )
        self.timesteps = self.objective.timesteps

    def __call__(self, ids: Tensor, step: int, lr: float) -> Tensor:
        """Take one step.

        Args:
            ids: indices of the batch's images, int64[B] on the device.
            step: its number, counted from 0.

        Returns:
            The loss and its gradient's norm before clipping, float32[2] on the device, asynchronous. The next step
            overwrites it if the step is static.
        """
        try:
            self.model.train()
            set_learning_rate(self.optimizers, lr)
            weight = self.ema.next_weight()
            if not self.static:
                self._seed(step)
                return self._optimize(ids, weight)
            return self._static_step(ids, step, weight)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise batch_too_large(self, len(ids))

    def _static_step(self, ids: Tensor, step: int, weight: float) -> Tensor:
        """The same through tensors that stay in place, replayed as a CUDA graph if one could be captured."""
        self._ema_weight.fill_(weight)
        if len(ids) != len(self._ids):
            self._ids = ids.clone()
            self._prepare()
        self._ids.copy_(ids)
        self._seed(step)  # after the capture, whose steps have drawn
        if self._graph:
            self._graph.replay()
        else:
            self._metrics.copy_(self._optimize(self._ids, self._ema_weight))
        return self._metrics

    def _optimize(self, ids: Tensor, ema_weight: float | Tensor) -> Tensor:
        """Draw, forward, backward, clip, step, average: without host synchronization."""
        self.clear_gradients()
        loss = self._forward_backward(ids)
        parameters = list(self.model.parameters())
        if self.config.training.clip_norm:
            norm = nn.utils.clip_grad_norm_(parameters, self.config.training.clip_norm)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.lerp_(self.model, ema_weight)
        return torch.stack([loss, norm.detach()])

    def _forward_backward(self, ids: Tensor) -> Tensor:
        # Everything is drawn for the whole batch, so that sharding over processes or micro-batches changes
        # only the order of summation.
        group = self.execution.group
        shards = [group.shard(whole) for whole in self._draw(ids)]
        return group.all_reduce_sum(self.backward(self.wrapped, shards, len(ids)))

    def backward(self, network: nn.Module, drawn: Sequence[Tensor], count: int) -> Tensor:
        """Add the gradients of (a shard of) a batch of ``count`` images; returns its share of the mean loss."""
        total = torch.zeros((), dtype=torch.float32, device=self.execution.device)
        parts = list(zip(*(part.chunk(self.spec.accumulate) for part in drawn), strict=True))
        for number, (x0, t, epsilon, label) in enumerate(parts, 1):
            with self.execution.group.no_sync(network) if number < len(parts) else nullcontext():
                with self.autocast():
                    loss = self.objective.loss(network, x0, t, epsilon, label).sum() / count
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def gradients(self, ids: Tensor, step: int) -> Tensor:
        """Add the gradients of a step to those of the network; returns the loss, asynchronous."""
        self._seed(step)
        return self._forward_backward(ids)

    def warm_up_ddp(self) -> None:
        """Have DistributedDataParallel choose the order of its sums, as it does after a first pass.

        Otherwise a resumed run would start with sums in a different order than an uninterrupted one.
        """
        if self.execution.group.size == 1:
            return
        count = min(self.config.training.batch_size, len(self.train_set))
        try:
            self.gradients(torch.arange(count, device=self.execution.device), step=0)
            self.clear_gradients()
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise batch_too_large(self, count)

    def warm_up_compiler(self) -> None:
        """Have ``torch.compile`` build its kernels before the clock starts."""
        self.model.train()
        size = min(self.config.training.batch_size, len(self.train_set))
        count = size // self.execution.group.size
        try:
            self.backward(self.model, self.draw(torch.arange(count, device=self.execution.device), step=0), count)
        except Exception as error:
            if is_out_of_memory(error):
                raise batch_too_large(self, self.config.training.batch_size) from error
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DdpmctlError(f"torch.compile failed: {reason}", Setting("compile", False)) from error
        self.clear_gradients()

    def draw(self, ids: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images float32[B,C,S,S], timesteps int64[B], noise like the images and labels int64[B] of a step."""
        self._seed(step)
        return self._draw(ids)

    def _draw(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        settings, device, generator = self.config.training, self.execution.device, self.generator
        x0 = self.pixels(self.train_set.images[ids])
        label = self.train_set.labels[ids]
        count, timesteps = len(ids), len(self.timesteps)
        epsilon = torch.randn(x0.shape, generator=generator, dtype=torch.float32, device=device)
        if settings.stratified:
            t = stratified_timesteps(count, timesteps, generator, self.focus)
        else:
            different = 1 if settings.one_timestep else count
            t = torch.randint(timesteps, (different,), generator=generator, device=device).expand(count)
        t = self.timesteps[t]
        if settings.label_dropout:
            drawn = torch.rand(count, generator=generator, dtype=torch.float32, device=device)
            dropped = drawn < settings.label_dropout
            label = label.masked_fill(dropped, self.config.model.num_classes)
        if settings.flip:
            mirrored = torch.rand(count, generator=generator, dtype=torch.float32, device=device) < 0.5
            x0 = torch.where(mirrored.view(-1, 1, 1, 1), x0.flip(-1), x0)
        return x0, t, epsilon, label

    def pixels(self, images: Tensor) -> Tensor:
        """uint8[N,C,S,S] in the network's range and memory format."""
        pixels = to_model_range(images, self.config.diffusion.pixel_range)
        return pixels.contiguous(memory_format=torch.channels_last)

    def autocast(self) -> torch.autocast:
        """The compute precision of the network."""
        # A graph must not depend on casts that were cached before its capture.
        kind, bf16 = self.execution.device.type, self.execution.precision == "bf16"
        return torch.autocast(kind, torch.bfloat16, enabled=bf16, cache_enabled=not self.static)

    def clear_gradients(self) -> None:
        """Set the gradients of all parameters to None."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def _seed(self, step: int) -> None:
        """Seed the generator from the run's seed and the step number alone."""
        self.generator.manual_seed(seed_of(self.spec.seed, "step", step))

    def _prepare(self) -> None:
        """Capture the step, once the size of its batch is known; steps stay eager if that fails."""
        self._graph, self.captured = None, False
        if not self._can_capture():
            return
        changed = self._changed()
        before = [tensor.clone() for tensor in changed]
        try:
            self._graph = self._capture()
            self.captured = True
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            log.warning("CUDA graph capture failed, training eagerly: %s", str(error).strip().splitlines()[0])
        finally:
            with torch.no_grad():
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value)

    def _can_capture(self) -> bool:
        return self.execution.device.type == "cuda"

    def _capture(self) -> "torch.cuda.CUDAGraph":
        """Run the step on a stream of its own, then record it with its static inputs."""
        device = self.execution.device
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._metrics.copy_(self._optimize(self._ids, self._ema_weight))
        torch.cuda.current_stream(device).wait_stream(side)
        self.clear_gradients()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            self._metrics.copy_(self._optimize(self._ids, self._ema_weight))
        return graph

    def _changed(self) -> list[Tensor]:
        """Every tensor that a step changes."""
        modules = [*self.model.state_dict().values(), *self.ema.module.state_dict().values()]
        return [*modules, *state_dict(self.optimizers).values()]

    def weights(self) -> dict[str, np.ndarray]:
        """The EMA weights by name, float32: used for sampling."""
        return {name: _copied(tensor) for name, tensor in self.ema.module.state_dict().items()}

    def state(self) -> dict[str, np.ndarray]:
        """What `load_state` needs in addition to the EMA weights: the trained ones and the optimizers' state."""
        trained = {f"model.{name}": _copied(tensor) for name, tensor in self.model.state_dict().items()}
        return trained | {name: _copied(tensor) for name, tensor in state_dict(self.optimizers).items()}

    @torch.no_grad()
    def load_state(self, weights: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray], step: int) -> None:
        """Copy back what `weights` and `state` returned after ``step`` steps; a captured graph stays valid.

        Raises a `ValueError` if they do not match the network; its own state is undefined then.
        """
        trained = {name.removeprefix("model."): array for name, array in state.items() if name.startswith("model.")}
        for module, arrays in ((self.ema.module, weights), (self.model, trained)):
            tensors = module.state_dict()
            if tensors.keys() != arrays.keys():
                raise ValueError("the weights do not match the network")
            for name, tensor in tensors.items():
                copy_into(tensor, arrays[name])
        load_state_dict(self.optimizers, {name: state[name] for name in state if not name.startswith("model.")})
        self.ema.updates = step

    def is_finite(self) -> bool:
        """Whether all weights and EMA weights are finite."""
        tensors = [*self.model.parameters(), *self.ema.module.parameters()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def seed_of(seed: int, purpose: str, number: int) -> int:
    """The seed of one use of randomness, 63 bits: a function of the run's seed, what it is for and a number."""
    key = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(key[:8], "little") >> 1


def _copied(tensor: Tensor) -> np.ndarray:
    """A copy that no later step changes, float32."""
    return np.array(tensor.detach().to("cpu", torch.float32).numpy(), order="C")
