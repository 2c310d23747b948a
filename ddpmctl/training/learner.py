"""What a training does beside its steps: the order of the images, validation, previews, and batches that fit."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from ddpmctl.config import Config, preview_sampling
from ddpmctl.core.diffusion import stratified_timesteps
from ddpmctl.core.noise import normal
from ddpmctl.data.dataset import Dataset
from ddpmctl.devices import is_out_of_memory
from ddpmctl.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from ddpmctl.errors import DdpmctlError
from ddpmctl.sampling.loop import Images, SamplingStep, run_chain, to_pixels
from ddpmctl.training.run import Run
from ddpmctl.training.strips import COUNT
from ddpmctl.training.train_step import TrainStep, seed_of

VALIDATION_BATCH = {"cpu": 250, "mps": 500, "cuda": 2500}
"""Validation images a pass, by kind of device: a request to stop is heard between two passes."""


CONSTANT_OVER = 5000
"""Images that are enough for the variance of their pixels."""


class Learner:
    """A training step with what surrounds it.

    Args:
        config: all settings.
        train_set: the training images, on the device.
        run: device, precision and seed.
        group: the processes that train together, all with the same settings and images.

    Attributes:
        train_step: the step, and all the tensors that it changes.
    """

    def __init__(self, config: Config, train_set: Dataset, run: Run, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self.config = config
        self.train_set = train_set
        self.run = run
        self.group = group
        self.train_step = TrainStep(config, train_set, run, group)
        self.diffusion = self.train_step.diffusion
        self._validation_noise: tuple[Tensor, Tensor] | None = None

    def step(self, ids: Tensor, step: int, lr: float) -> Tensor:
        """One step, as `TrainStep`.

        Raises:
            DdpmctlError: where there is too little memory, with a batch that fits.
        """
        try:
            return self.train_step(ids, step, lr)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_large(len(ids))

    def settle(self) -> None:
        """Have DistributedDataParallel choose the order of its sums, as it does after a first pass.

        Else a run that goes on would begin with sums in another order than one that was never cut.
        """
        if self.group.size == 1:
            return
        count = min(self.config.training.batch_size, len(self.train_set))
        try:
            self.train_step.gradients(torch.arange(count, device=self.run.device), step=0)
            self.train_step.clear_gradients()
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_large(count)

    def most_that_fit(self, most: int) -> int:
        """How many images can be learnt from together, ``most`` or a half of it or a quarter and so on; 0 for none."""
        count = most
        # A copy has none of the hooks by which DistributedDataParallel would ask the others for their gradients.
        network = copy.deepcopy(self.train_step.model) if self.group.size > 1 else self.train_step.model
        while count:
            self.train_step.clear_gradients()
            try:
                self.train_step.backward(
                    network, self.train_step.draw(torch.arange(count, device=self.run.device), step=0), count
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                count //= 2
            else:
                break
        self.train_step.clear_gradients()
        return count

    def compile(self) -> None:
        """Have the kernels made before the clock runs.

        Raises:
            DdpmctlError: where they cannot be made.
        """
        step = self.train_step
        step.model.train()
        try:
            count = min(self.config.training.batch_size, len(self.train_set)) // self.group.size
            ids = torch.arange(count, device=self.run.device)
            step.backward(step.model, step.draw(ids, step=0), count)
        except Exception as error:
            if is_out_of_memory(error):
                raise self._too_large(self.config.training.batch_size) from error
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DdpmctlError(f"torch.compile does not work here: {reason}", "--no-compile") from error
        step.clear_gradients()

    @torch.no_grad()
    def validate(self, images: Dataset, should_stop: Callable[[], bool]) -> float | None:
        """MSE of the averaged weights on validation images, at timesteps and noise that are always the same.

        Returns:
            The mean over images, timesteps and pixels; None where it was asked to stop in between.
        """
        device, step = self.run.device, self.train_step
        timesteps, noise = self._fixed_noise(images)
        passes = torch.split(torch.arange(len(images), device=device), VALIDATION_BATCH[device.type])
        totals = torch.zeros(len(passes), dtype=torch.float32, device=device)
        for number, ids in enumerate(passes):
            turn = number % self.group.size
            if turn == 0 and self.group.any_rank(should_stop())[0]:
                return None
            if turn == self.group.rank:
                x0, epsilon = step.pixels(images.images[ids]), noise[ids].contiguous(memory_format=torch.channels_last)
                with step.autocast():
                    losses = self.diffusion.loss(step.ema.module, x0, timesteps[ids], epsilon, images.labels[ids])
                totals[number] = losses.sum()
        return self.group.all_reduce_sum(totals).sum().item() / len(images)

    def _fixed_noise(self, images: Dataset) -> tuple[Tensor, Tensor]:
        """Timesteps int64[N] and noise float32[N,C,S,S] of the validation, drawn once: they are the same each time."""
        if self._validation_noise is None:
            generator, count = torch.Generator().manual_seed(0), len(images)
            timesteps = stratified_timesteps(count, self.config.diffusion.timesteps, generator)
            noise = torch.randn(tuple(images.images.shape), generator=generator, dtype=torch.float32, device="cpu")
            self._validation_noise = timesteps.to(self.run.device), noise.to(self.run.device)
        return self._validation_noise

    def constant_mse(self, data: Dataset) -> float:
        """MSE of the best constant prediction on (some of) these images: see `Diffusion.constant_mse`."""
        return self.diffusion.constant_mse(self.train_step.pixels(data.images[:CONSTANT_OVER]))

    def strip(self) -> Images:
        """What the averaged weights make of noise that is always the same: uint8[K,S,S] or [K,S,S,3]."""
        model, way = self.config.model, preview_sampling(self.config)
        labels = [k % model.num_classes for k in range(COUNT)]
        network = self.train_step.ema.module
        step = SamplingStep(network, model.num_classes, self.run.device, self.run.precision)
        *_, last = run_chain(step, self.diffusion, model, way, labels, range(COUNT))
        return to_pixels(last.x0, self.diffusion.pixel_range, model.image_size)

    def wait(self) -> None:
        """Wait until all that was issued is done, so that clocks measure what comes next alone."""
        if self.run.device.type == "cuda":
            torch.cuda.synchronize(self.run.device)
        elif self.run.device.type == "mps":
            torch.mps.synchronize()

    def noise(self) -> Images:
        """That noise."""
        model = self.config.model
        shape = (model.channels, model.sample_size, model.sample_size)
        return to_pixels(normal(range(COUNT), 0, shape), self.diffusion.pixel_range, model.image_size)

    def order(self, epoch: int) -> Tensor:
        """The order in which an epoch, counted from 1, shows the images: int64[N] on the device."""
        generator = torch.Generator().manual_seed(seed_of(self.run.seed, "order", epoch))
        return torch.randperm(len(self.train_set), generator=generator, device="cpu").to(self.run.device)

    def _too_large(self, size: int) -> DdpmctlError:
        """What to say when a batch does not fit in memory: which one would."""
        fits = self.most_that_fit(-(-size // self.group.size) // 2) * self.group.size
        if not fits:
            return DdpmctlError("there is not enough memory for a single image", "--preset quick takes less")
        parts = -(-size // fits) * self.run.accumulate
        in_parts = f", or --accumulate {parts} for the same steps in parts" if self.config.model.norm == "group" else ""
        return DdpmctlError(
            f"a batch of {size} does not fit in memory; one of {fits} does", f"--batch-size {fits}{in_parts}"
        )
