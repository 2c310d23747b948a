"""The loop: one run from random weights to a registered model."""

import hashlib
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddpmctl import assembly
from ddpmctl.config import Config
from ddpmctl.core.diffusion import stratified_timesteps
from ddpmctl.core.ema import EMA
from ddpmctl.data.dataset import Dataset, to_model_range
from ddpmctl.devices import describe_device
from ddpmctl.errors import DdpmctlError
from ddpmctl.registry import DatasetRecord, FileRecord, Manifest, Metric, ModelWriter, RunRecord

from .history import EpochRow, to_csv
from .optimizers import make_optimizers
from .plan import Plan, lay_out, steps_that_fit

Stopped = Literal["running", "done", "early", "interrupted", "time"]

OVERTIME = 1.1
"""The clock ends a run that takes this much longer than the time it was fitted into."""

CHECK_EVERY = 50
"""Steps between looks at the loss on a GPU, each of which makes the host wait for it."""


class Observer(Protocol):
    """Whoever watches a run."""

    def started(self, plan: Plan) -> None:
        """The run is laid out and begins."""

    def stepped(self, step: int, images_per_second: float) -> None:
        """A step was issued."""

    def epoch_done(self, row: EpochRow, patience_left: int) -> None:
        """An epoch was judged and committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The circumstances of a run, beside its settings.

    Attributes:
        preset: the name that the settings came from.
        dataset: as given to ``--dataset``.
        device: where to compute.
        precision: ``fp32`` or ``bf16``.
        seed: of everything random.
        max_time: seconds to fit the training into; None for none.
        within_epochs: whether the time limit may not go beyond ``epochs``.
        accumulate: parts that a batch is computed in at most, one after the other, where memory is short.
        compiled: whether ``torch.compile`` makes the network's kernels.
    """

    preset: str
    dataset: str
    device: torch.device
    precision: str
    seed: int
    max_time: float | None = None
    within_epochs: bool = False
    accumulate: int = 1
    compiled: bool = False


class Trainer:
    """Trains one model and commits it, an epoch at a time.

    Args:
        config: all settings.
        data: the images; divided here into training and held-out ones.
        run: the circumstances.
        writer: takes the commits.
        observer: is told what happens.
        should_stop: asked after each step whether to save and end.
        clock: seconds, for measuring.
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        run: Run,
        writer: ModelWriter,
        observer: Observer,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config = config
        self.run = run
        self.writer = writer
        self.observer = observer
        self.should_stop = should_stop
        self.clock = clock
        self.dataset_record = DatasetRecord(name=run.dataset, digest=data.digest(), count=len(data))
        self.classes = data.classes
        self.train_set, self.heldout_set = data.to(run.device).split(config.training.heldout)
        torch.manual_seed(run.seed)
        self.diffusion = assembly.build_diffusion(config.diffusion).to(run.device)
        self.model = self._network()
        self.ema = EMA(self.model, config.training.ema_lag)
        self.optimizers = make_optimizers(self.model, config.training)
        self.step = 0
        self.seconds = 0.0
        self.rows: list[EpochRow] = []
        self.best: Metric | None = None
        self.epochs_without_better = 0

    def train(self) -> Stopped:
        """Run to the end of the plan, to a lack of patience, or until told to stop.

        Returns:
            Why it ended.

        Raises:
            DdpmctlError: for a loss that is not finite; what was committed stays.
        """
        if self.run.compiled:
            self._compile()
        self.plan = self._lay_out()
        self.observer.started(self.plan)
        for epoch in range(1, self.plan.epochs + 1):
            train_mse, rate, stopped = self._run_epoch(epoch)
            if stopped == "running":
                stopped = self._judge(epoch, train_mse, rate)
            else:
                self._save_unjudged(epoch, train_mse, rate, stopped)
            if stopped != "running":
                return stopped
        raise AssertionError("the last epoch ends the run")

    def _network(self) -> nn.Module:
        """A network on the device, in the memory layout that convolutions like."""
        model: nn.Module = assembly.build_network(self.config.model)
        model = model.to(self.run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.run.compiled:
            model.compile()
        return model

    def _compile(self) -> None:
        """Have the kernels made before the clock runs.

        Raises:
            DdpmctlError: where they cannot be made.
        """
        self.model.train()
        try:
            self._backward(self.model, torch.arange(min(self.config.training.batch_size, len(self.train_set))), step=0)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DdpmctlError(f"torch.compile does not work here: {reason}", "--no-compile") from error
        self.model.zero_grad(set_to_none=True)

    def _lay_out(self) -> Plan:
        """Plan the run; a time limit takes the number of steps that fit, from the speed of the first seconds."""
        images, settings = len(self.train_set), self.config.training
        full = lay_out(settings, images)
        if self.run.max_time is None:
            return full
        started = self.clock()
        seconds_per_step = self._seconds_per_step(full, probe_seconds=min(5.0, 0.03 * self.run.max_time))
        self.seconds = self.clock() - started
        steps = steps_that_fit(self.run.max_time - self.seconds, seconds_per_step)
        if self.run.within_epochs:
            steps = min(steps, full.steps)
        return lay_out(settings, images, steps)

    def _seconds_per_step(self, plan: Plan, probe_seconds: float) -> float:
        """Time real steps on a copy that is thrown away, so that the run itself begins from the seed."""
        model = self._network()
        optimizers = make_optimizers(model, self.config.training)
        average = EMA(model, self.config.training.ema_lag)
        ids = torch.arange(plan.batch_size, device=self.run.device)
        durations: list[float] = []
        # The first step sets things up and is slower than all that follow.
        while len(durations) < 4 or sum(durations) < probe_seconds:
            started = self.clock()
            self._update(model, optimizers, ids, step=0).item()
            average.update(model)
            durations.append(self.clock() - started)
        return sorted(durations[1:])[len(durations[1:]) // 2]

    def _run_epoch(self, epoch: int) -> tuple[float, float, Stopped]:
        """Train for one epoch: its mean loss, images a second, and why it ended if it was cut."""
        plan = self.plan
        order = torch.randperm(len(self.train_set), generator=self._generator("order", epoch, torch.device("cpu")))
        length = min(plan.steps_per_epoch, plan.steps - self.step)
        batches = torch.split(order.to(self.run.device), plan.batch_size)[:length]
        losses = torch.zeros(len(batches), device=self.run.device)
        before, started = self.seconds, self.clock()
        checked = 0
        stopped: Stopped = "running"
        done = 0
        self.model.train()
        for done, ids in enumerate(batches, start=1):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = plan.lr(self.step)
            losses[done - 1] = self._update(self.model, self.optimizers, ids, self.step)
            self.ema.update(self.model)
            self.step += 1
            if self.run.device.type == "cpu" or done % CHECK_EVERY == 0 or done == len(batches):
                self._check_finite(losses, checked, done)
                checked = done
            self.seconds = before + self.clock() - started
            self.observer.stepped(self.step, done * plan.batch_size / (self.seconds - before))
            if self.should_stop():
                stopped = "interrupted"
            elif self.run.max_time and self.seconds > OVERTIME * self.run.max_time:
                stopped = "time"
            if stopped != "running":
                break
        mean = losses[:done].mean().item()
        self.seconds = before + self.clock() - started
        return mean, done * plan.batch_size / (self.seconds - before), stopped

    def _update(self, model: nn.Module, optimizers: list[Optimizer], ids: Tensor, step: int) -> Tensor:
        """One step of Ho et al. 2020, algorithm 1, on the images of these indices; returns the loss, not awaited."""
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self._backward(model, ids, step)
        if self.config.training.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), self.config.training.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        return loss

    def _backward(self, model: nn.Module, ids: Tensor, step: int) -> Tensor:
        """Add the gradients of a step to those of the network; returns the loss, not awaited."""
        total = torch.zeros((), device=self.run.device)
        # Everything is drawn for the whole batch, so that its parts change nothing but the order of a sum.
        parts = [drawn.chunk(self.run.accumulate) for drawn in self._draw(ids, step)]
        for x0, t, epsilon, label in zip(*parts, strict=True):
            with self._autocast():
                loss = self.diffusion.loss(model, x0, t, epsilon, label).sum() / len(ids)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _draw(self, ids: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, timesteps, noise and labels of a step."""
        settings, device = self.config.training, self.run.device
        generator = self._generator("step", step, device)
        x0 = to_model_range(self.train_set.images[ids]).contiguous(memory_format=torch.channels_last)
        label = self.train_set.labels[ids]
        count, timesteps = len(ids), self.config.diffusion.timesteps
        epsilon = torch.randn(x0.shape, generator=generator, device=device)
        if settings.stratified:
            t = stratified_timesteps(count, timesteps, generator)
        else:
            t = torch.randint(timesteps, (count,), generator=generator, device=device)
        if settings.label_dropout:
            dropped = torch.rand(count, generator=generator, device=device) < settings.label_dropout
            label = label.masked_fill(dropped, self.config.model.num_classes)
        return x0, t, epsilon, label

    def _judge(self, epoch: int, train_mse: float, rate: float) -> Stopped:
        """Measure, compare with the best, commit; says whether the run ends here."""
        heldout_mse = self._heldout_mse() if len(self.heldout_set) else None
        name, value = ("train_mse", train_mse) if heldout_mse is None else ("heldout_mse", heldout_mse)
        if not math.isfinite(value):
            raise self._not_finite("the held-out loss", self.step)
        metric = Metric(name=name, target=self.config.diffusion.target, value=value, epoch=epoch, step=self.step)
        better = self.best is None or value < self.best.value
        self.epochs_without_better = 0 if better else self.epochs_without_better + 1
        patience_left = self.config.training.patience - self.epochs_without_better
        stopped: Stopped = "running"
        if self.step >= self.plan.steps:
            stopped = "done"
        elif patience_left <= 0:
            stopped = "early"
        row = self._remember(epoch, train_mse, heldout_mse, rate, best=better)
        self._commit(metric, stopped, best=better)
        self.observer.epoch_done(row, patience_left)
        return stopped

    def _save_unjudged(self, epoch: int, train_mse: float, rate: float, stopped: Stopped) -> None:
        """Keep the state of a cut epoch as the last one; as the best only where there is none yet."""
        metric = Metric(
            name="train_mse", target=self.config.diffusion.target, value=train_mse, epoch=epoch, step=self.step
        )
        first = self.best is None
        self._remember(epoch, train_mse, None, rate, best=first)
        self._commit(metric, stopped, best=first)

    @torch.no_grad()
    def _heldout_mse(self) -> float:
        """MSE of the averaged weights on the held-out images, at timesteps and noise that are always the same."""
        device, count = self.run.device, len(self.heldout_set)
        generator = torch.Generator().manual_seed(0)
        timesteps = stratified_timesteps(count, self.config.diffusion.timesteps, generator).to(device)
        total = torch.zeros((), device=device)
        for ids in torch.split(torch.arange(count, device=device), 500):
            x0 = to_model_range(self.heldout_set.images[ids]).contiguous(memory_format=torch.channels_last)
            epsilon = torch.randn(x0.shape, generator=generator).to(device)
            with self._autocast():
                losses = self.diffusion.loss(self.ema.module, x0, timesteps[ids], epsilon, self.heldout_set.labels[ids])
            total += losses.sum()
        return total.item() / count

    def _remember(self, epoch: int, train_mse: float, heldout: float | None, rate: float, *, best: bool) -> EpochRow:
        row = EpochRow(
            epoch=epoch,
            step=self.step,
            train_mse=train_mse,
            heldout_mse=heldout,
            lr=self.plan.lr(self.step - 1),
            images_per_second=rate,
            seconds=self.seconds,
            best=best,
        )
        self.rows.append(row)
        return row

    def _commit(self, metric: Metric, stopped: Stopped, *, best: bool) -> None:
        if best or self.best is None:
            self.best = metric
        weights = {
            name: tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            for name, tensor in self.ema.module.state_dict().items()
        }
        self.writer.commit(weights, to_csv(self.rows), lambda files: self._describe(metric, stopped, files), best=best)

    def _describe(self, metric: Metric, stopped: Stopped, files: dict[str, FileRecord]) -> Manifest:
        return Manifest(
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            preset=self.run.preset,
            config=self.config,
            classes=self.classes,
            dataset=self.dataset_record,
            run=self._run_record(stopped),
            metric=metric,
            best=self.best or metric,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            versions=versions(),
            files=files,
        )

    def _run_record(self, stopped: Stopped) -> RunRecord:
        return RunRecord(
            step=self.step,
            planned_steps=self.plan.steps,
            epochs=self.rows[-1].epoch,
            images=self.step * self.plan.batch_size,
            seconds=round(self.seconds, 3),
            seed=self.run.seed,
            device=describe_device(self.run.device),
            precision=self.run.precision,
            threads=torch.get_num_threads(),
            stopped=stopped,
            max_time=self.run.max_time or 0.0,
            accumulate=self.run.accumulate,
            compiled=self.run.compiled,
        )

    def _check_finite(self, losses: Tensor, start: int, end: int) -> None:
        bad = (~losses[start:end].isfinite()).nonzero()
        if len(bad):
            raise self._not_finite("the loss", self.step - (end - start) + int(bad[0]) + 1)

    def _not_finite(self, what: str, step: int) -> DdpmctlError:
        return DdpmctlError(
            f"{what} is not finite at step {step}, with a learning rate of {self.plan.lr(step - 1):.3g}",
            f"train again with a lower one, such as --lr {self.plan.peak_lr / 4:.1g}",
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.run.device.type, torch.bfloat16, enabled=self.run.precision == "bf16")

    def _generator(self, purpose: str, number: int, device: torch.device) -> torch.Generator:
        """Randomness as a function of seed, purpose and number alone, whatever ran before."""
        key = hashlib.sha256(f"{self.run.seed}/{purpose}/{number}".encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(key[:8], "little") >> 1)


def versions() -> dict[str, str]:
    """What made a model: versions by name."""
    packages = ("ddpmctl", "torch", "torchvision", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
