"""What a step changes: the network, its average and the optimizers."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from ddpmctl import assembly
from ddpmctl.chain import Images, run_chain, to_pixels
from ddpmctl.config import Config, strip_sampling
from ddpmctl.core.diffusion import stratified_timesteps
from ddpmctl.core.ema import EMA
from ddpmctl.data.dataset import Dataset, to_model_range
from ddpmctl.devices import is_out_of_memory
from ddpmctl.distributed import ALONE, Team
from ddpmctl.errors import DdpmctlError
from ddpmctl.plan import Plan

from .optimizers import fill, make_optimizers, memories, remember
from .run import Run
from .strips import COUNT

JUDGED_TOGETHER = 250
"""Held-out images a pass: a wish to stop is heard between two of them."""


class Learner:
    """Learns from batches. What a step does is a function of what was learnt so far, the seed and the step's number.

    Args:
        config: all settings.
        train_set: the images to learn from, on the device.
        run: the circumstances.
        team: the processes that learn together, all with the same settings and images.
    """

    def __init__(self, config: Config, train_set: Dataset, run: Run, team: Team = ALONE) -> None:
        self.config = config
        self.train_set = train_set
        self.run = run
        self.team = team
        torch.manual_seed(run.seed)
        self.diffusion = assembly.build_diffusion(config.diffusion).to(run.device)
        network = assembly.build_network(config.model)
        self.model: nn.Module = network.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if run.compiled:
            self.model.compile()
        self.shared = team.wrapped(self.model)
        self.ema = EMA(self.model, config.training.ema_lag)
        self.optimizers = make_optimizers(self.model, config.training)

    def step(self, ids: Tensor, step: int, lr: float) -> Tensor:
        """One step of Ho et al. 2020, algorithm 1.

        Args:
            ids: which images, int64[B].
            step: its number, counted from 0.
            lr: the learning rate.

        Returns:
            The loss and the norm of its gradient, float32[2], not awaited.

        Raises:
            DdpmctlError: where there is too little memory, with a batch that fits.
        """
        try:
            return self._step(ids, step, lr)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_large(len(ids))

    def _step(self, ids: Tensor, step: int, lr: float) -> Tensor:
        self.model.train()
        self._forget_gradients()
        loss = self.gradients(ids, step)
        if self.config.training.clip_norm:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.training.clip_norm)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        self.ema.update(self.model)
        return torch.stack([loss, norm.detach()])

    def gradients(self, ids: Tensor, step: int) -> Tensor:
        """Add the gradients of a step to those of the network; returns the loss, not awaited."""
        # Everything is drawn for the whole batch, so that its parts change nothing but the order of a sum: neither
        # those that processes compute nor those that one computes one after the other.
        drawn = [self.team.part(whole) for whole in self.draw(ids, step)]
        return self.team.summed(self._backward(self.shared, drawn, len(ids)))

    def _backward(self, network: nn.Module, drawn: Sequence[Tensor], count: int) -> Tensor:
        """Add the gradients of what was drawn, of a batch of so many images; returns its share of the loss."""
        total = torch.zeros((), device=self.run.device)
        parts = list(zip(*(part.chunk(self.run.accumulate) for part in drawn), strict=True))
        for number, (x0, t, epsilon, label) in enumerate(parts, 1):
            with self.team.put_off(network) if number < len(parts) else nullcontext():
                with self._autocast():
                    loss = self.diffusion.loss(network, x0, t, epsilon, label).sum() / count
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def settle(self) -> None:
        """Have DistributedDataParallel choose the order of its sums, as it does after a first pass.

        Else a run that goes on would begin with sums in another order than one that was never cut.
        """
        if self.team.size == 1:
            return
        count = min(self.config.training.batch_size, len(self.train_set))
        try:
            self.gradients(torch.arange(count, device=self.run.device), step=0)
            self._forget_gradients()
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_large(count)

    def seconds_per_step(self, plan: Plan, seconds: float, clock: Callable[[], float]) -> float:
        """The median time of real steps, taken for so long; what was learnt before is lost by it."""
        ids = torch.arange(plan.batch_size, device=self.run.device)
        durations: list[float] = []
        # The first step sets things up and is slower than all that follow.
        while self.team.any(self.team.is_first and (len(durations) < 4 or sum(durations) < seconds))[0]:
            started = clock()
            self.step(ids, 0, plan.peak_lr).sum().item()
            durations.append(clock() - started)
        return sorted(durations[1:])[len(durations[1:]) // 2]

    def most_that_fit(self, most: int) -> int:
        """How many images can be learnt from together, ``most`` or a half of it or a quarter and so on; 0 for none."""
        count = most
        # A copy has none of the hooks by which DistributedDataParallel would ask the others for their gradients.
        network = copy.deepcopy(self.model) if self.team.size > 1 else self.model
        while count:
            self._forget_gradients()
            try:
                self._backward(network, self.draw(torch.arange(count, device=self.run.device), step=0), count)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                count //= 2
            else:
                break
        self._forget_gradients()
        return count

    def compile(self) -> None:
        """Have the kernels made before the clock runs.

        Raises:
            DdpmctlError: where they cannot be made.
        """
        self.model.train()
        try:
            count = min(self.config.training.batch_size, len(self.train_set)) // self.team.size
            self._backward(self.model, self.draw(torch.arange(count), step=0), count)
        except Exception as error:
            if is_out_of_memory(error):
                raise self._too_large(self.config.training.batch_size) from error
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DdpmctlError(f"torch.compile does not work here: {reason}", "--no-compile") from error
        self._forget_gradients()

    @torch.no_grad()
    def judge(self, heldout: Dataset, should_stop: Callable[[], bool]) -> float | None:
        """MSE of the averaged weights on held-out images, at timesteps and noise that are always the same.

        Returns:
            The mean over images, timesteps and pixels; None when told to stop in between.
        """
        device, count = self.run.device, len(heldout)
        generator = torch.Generator().manual_seed(0)
        timesteps = stratified_timesteps(count, self.config.diffusion.timesteps, generator).to(device)
        passes = torch.split(torch.arange(count, device=device), JUDGED_TOGETHER)
        totals = torch.zeros(len(passes), device=device)
        for number, ids in enumerate(passes):
            turn = number % self.team.size
            if turn == 0 and self.team.any(should_stop())[0]:
                return None
            x0 = self._pixels(heldout.images[ids])
            epsilon = torch.randn(x0.shape, generator=generator).to(device)
            if turn == self.team.rank:
                with self._autocast():
                    losses = self.diffusion.loss(self.ema.module, x0, timesteps[ids], epsilon, heldout.labels[ids])
                totals[number] = losses.sum()
        return self.team.summed(totals).sum().item() / count

    def strip(self) -> Images:
        """What the averaged weights make of noise that is always the same: uint8[K,S,S] or [K,S,S,3]."""
        model, way = self.config.model, strip_sampling(self.config)
        labels = [k % model.num_classes for k in range(COUNT)]
        chain = run_chain(
            self.ema.module, self.diffusion, model, way, labels, range(COUNT), self.run.device, self.run.precision
        )
        *_, last = chain
        return to_pixels(last.x0, self.diffusion.pixel_range)

    def wait(self) -> None:
        """Wait until all that was issued is done, so that clocks measure what comes next alone."""
        if self.run.device.type == "cuda":
            torch.cuda.synchronize(self.run.device)
        elif self.run.device.type == "mps":
            torch.mps.synchronize()

    def noise(self) -> Images:
        """That noise."""
        model = self.config.model
        shape = (model.channels, model.image_size, model.image_size)
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(k)) for k in range(COUNT)]
        return to_pixels(torch.stack(drawn), self.diffusion.pixel_range)

    def order(self, epoch: int) -> Tensor:
        """The order in which an epoch, counted from 1, shows the images: int64[N] on the device."""
        cpu = torch.device("cpu")
        order = torch.randperm(len(self.train_set), generator=self._generator("order", epoch, cpu))
        return order.to(self.run.device)

    def weights(self) -> dict[str, np.ndarray]:
        """The averaged weights by name, float32: what samples are made with."""
        return {name: _copied(tensor) for name, tensor in self.ema.module.state_dict().items()}

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs beside the averaged weights: the trained ones and the optimizers' memories."""
        trained = {f"model.{name}": _copied(tensor) for name, tensor in self.model.state_dict().items()}
        return trained | {name: _copied(tensor) for name, tensor in memories(self.optimizers).items()}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray], step: int) -> None:
        """Become what `weights` and `state` tell, after so many steps.

        Raises:
            ValueError: when they are not those of such a learner; nothing can be said of this one then.
        """
        trained = {name.removeprefix("model."): array for name, array in state.items() if name.startswith("model.")}
        for module, arrays in ((self.ema.module, weights), (self.model, trained)):
            tensors = module.state_dict()
            if tensors.keys() != arrays.keys():
                raise ValueError("it holds other weights than this network has")
            for name, tensor in tensors.items():
                fill(tensor, arrays[name])
        remember(self.optimizers, {name: state[name] for name in state if not name.startswith("model.")}, step)
        self.ema.updates = step
        self._forget_gradients()

    def is_finite(self) -> bool:
        """Whether every number that is learnt and averaged is one."""
        tensors = [*self.model.parameters(), *self.ema.module.parameters()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def _too_large(self, size: int) -> DdpmctlError:
        """What to say when a batch does not fit in memory: which one would."""
        fits = self.most_that_fit(-(-size // self.team.size) // 2) * self.team.size
        if not fits:
            return DdpmctlError("there is not enough memory for a single image", "--preset quick takes less")
        parts = -(-size // fits) * self.run.accumulate
        in_parts = f", or --accumulate {parts} for the same steps in parts" if self.config.model.norm == "group" else ""
        return DdpmctlError(
            f"a batch of {size} does not fit in memory; one of {fits} does", f"--batch-size {fits}{in_parts}"
        )

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def draw(self, ids: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, timesteps, noise and labels of a step."""
        settings, device = self.config.training, self.run.device
        generator = self._generator("step", step, device)
        x0 = self._pixels(self.train_set.images[ids])
        label = self.train_set.labels[ids]
        count, timesteps = len(ids), self.config.diffusion.timesteps
        epsilon = torch.randn(x0.shape, generator=generator, device=device)
        if settings.stratified:
            t = stratified_timesteps(count, timesteps, generator)
        else:
            different = 1 if settings.one_timestep else count
            t = torch.randint(timesteps, (different,), generator=generator, device=device).expand(count)
        if settings.label_dropout:
            dropped = torch.rand(count, generator=generator, device=device) < settings.label_dropout
            label = label.masked_fill(dropped, self.config.model.num_classes)
        if settings.flip:
            mirrored = torch.rand(count, generator=generator, device=device) < 0.5
            x0 = torch.where(mirrored.view(-1, 1, 1, 1), x0.flip(-1), x0)
        return x0, t, epsilon, label

    def _pixels(self, images: Tensor) -> Tensor:
        pixels = to_model_range(images, self.config.diffusion.pixel_range)
        return pixels.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.run.device.type, torch.bfloat16, enabled=self.run.precision == "bf16")

    def _generator(self, purpose: str, number: int, device: torch.device) -> torch.Generator:
        """Randomness as a function of seed, purpose and number alone, whatever ran before."""
        key = hashlib.sha256(f"{self.run.seed}/{purpose}/{number}".encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(key[:8], "little") >> 1)


def _copied(tensor: Tensor) -> np.ndarray:
    """A copy that no later step changes, float32."""
    return np.array(tensor.detach().to("cpu", torch.float32).numpy(), order="C")
