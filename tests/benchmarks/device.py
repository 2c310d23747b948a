"""Training and sampling on one device, before and now, in one run of at most five minutes: for a GPU.

python -m tests.benchmarks device --data-dir DATA --device cuda
python -m tests.benchmarks device --data-dir DATA --device cuda --full
"""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpmctl.config import Config, for_device, load_preset
from ddpmctl.data import default_sample_size, load_dataset
from ddpmctl.devices import choose_device, choose_precision, describe_device
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.train_step import TrainStep
from ddpmctl.training.trainer import Trainer
from tests.builders import register_random

from .before import StepBefore, config_before, sample_before
from .contenders import PlainLoop
from .machine import about_this_machine, ddpmctl, markdown
from .speed import Clock

STEPS = {"cuda": 400, "mps": 60, "cpu": 4}
"""Of an epoch: the first warms up, the second is measured."""

AGREEING_STEPS = 10
"""Steps that are compared: later ones differ more and more, as rounding grows."""

SAMPLES = {"cuda": 20_000, "mps": 1_000, "cpu": 32}


def device(data_dir: Path, name: str) -> None:
    """Every row of the table of speeds but the 150 epochs: before, now, and their ratio."""
    print(about_this_machine(), flush=True)
    where = choose_device(name)
    print(describe_device(where), flush=True)
    steps, peak = STEPS[where.type], _peak(where)
    plain, plain_busy = _plain(data_dir, where, steps)
    rows = [["plain loop (float32, DataLoader), images/s", f"{plain:,.0f}", "", "", plain_busy]]
    for preset in ("classic", "standard", "quick"):
        then = _train(config_before(preset), data_dir, where, steps, StepBefore)
        now = _train(config_now(preset, where.type), data_dir, where, steps, TrainStep)
        flops = _flops(config_now(preset, where.type), data_dir)
        more = f", {now[0] / plain:.1f} times the plain loop" if preset == "classic" else ""
        share = f"{now[1]} busy, {now[0] * flops / peak:.1%} of the bf16 peak{more}"
        rows.append([f"`{preset}` training, images/s", f"{then[0]:,.0f} ({then[1]} busy)", f"{now[0]:,.0f}",
                     f"{now[0] / then[0]:.1f}", share])  # fmt: skip
        print(f"{preset} measured", flush=True)
    print(_agreement(data_dir, where), flush=True)
    then_rate, now_rate = _sample(where, SAMPLES[where.type])
    rows.append(
        ["`standard` sampling, images/s", f"{then_rate:,.0f}", f"{now_rate:,.0f}", f"{now_rate / then_rate:.1f}", ""]
    )
    print(markdown(["", "before", "now", "ratio", "the device now"], rows))
    print(f"\nbf16 peak: {peak / 1e12:.2f} TFLOP/s, the best of large matrix products on this device")


def _agreement(data_dir: Path, where: torch.device) -> str:
    """How far the losses and gradient norms of captured steps are from those of eager ones, in float32."""
    config = config_now("quick", where.type)
    data = load_dataset("mnist", config.model.sample_size, data_dir).to(where)
    execution = Execution(device=where, precision="fp32")
    captured, eager = (TrainStep(config, data, RunSpec(), execution, static=static) for static in (True, False))
    batches = torch.arange(64 * AGREEING_STEPS, device=where).split(64)
    figures = [[step(ids, k, 1e-3).tolist() for k, ids in enumerate(batches)] for step in (captured, eager)]
    apart = (torch.tensor(figures[0]) / torch.tensor(figures[1]) - 1).abs()
    return (
        f"captured: {captured.captured}; relative difference to eager steps: first {apart[0].max():.1e}, "
        f"largest of {AGREEING_STEPS} {apart.max():.1e}"
    )


def with_compile(data_dir: Path, name: str) -> None:
    """Training with `--compile`, whose kernels the captured graph holds then; half a minute to start on a GPU."""
    print(about_this_machine(), flush=True)
    where = choose_device(name)
    print(describe_device(where), flush=True)
    rows = []
    for preset in ("standard", "classic"):
        started = time.perf_counter()
        rate, busy = _train(
            config_now(preset, where.type), data_dir, where, STEPS[where.type], TrainStep, compiled=True
        )
        rows.append([f"`{preset}`", f"{rate:,.0f}", busy, f"{time.perf_counter() - started:.0f} s in all"])
        print(markdown(["with --compile", "images/s", "the device is busy", ""], rows[-1:]), flush=True)


def full(data_dir: Path, name: str) -> None:
    """The wall time of all 150 epochs of `standard`, and what comes of them."""
    print(about_this_machine(), flush=True)
    print(describe_device(choose_device(name)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        typed = ["train", "--epochs", 150, "--patience", 150, "--device", name, "--name", "full"]
        ran = ddpmctl(home, *typed, "--data-dir", data_dir)
        print(f"ddpmctl {' '.join(map(str, typed))}: {ran.seconds:,.0f} s wall time", flush=True)
        print(ddpmctl(home, "evaluate", "full", "-n", 10_000, "--device", name, "--data-dir", data_dir).stdout)


def config_now(preset: str, kind: str) -> Config:
    """The settings of a preset on MNIST and a kind of device."""
    loaded = load_preset(preset)
    model = replace(loaded.config.model, sample_size=default_sample_size(loaded.config.model, "mnist", kind, "bf16"))
    return for_device(replace(loaded.config, model=model), loaded.by_device, kind, images=60_000)


def _sample(where: torch.device, count: int) -> tuple[float, float]:
    """Images a second into arrays by the recommended sampler of `standard`, before and now."""
    rates = []
    for config, now in ((config_before("standard"), False), (config_now("standard", where.type), True)):
        with tempfile.TemporaryDirectory() as folder:
            register_random(Registry(Path(folder)), "it", config)
            engine = Engine(Registry(Path(folder)).open("it"), where.type)
        labels = [k % 10 for k in range(count)]
        (engine.generate(labels) if now else sample_before(engine, count))  # captures, libraries, caches
        started = time.perf_counter()
        made = engine.generate(labels) if now else sample_before(engine, count)
        rates.append(len(made) / (time.perf_counter() - started))
    return rates[0], rates[1]


def _plain(data_dir: Path, where: torch.device, steps: int) -> tuple[float, str]:
    loop = PlainLoop(data_dir, device=where)
    batch, taken = loop.loader.batch_size or 0, loop.steps()
    list(islice(taken, 5))
    with _watched(where) as busy:
        started = time.perf_counter()
        list(islice(taken, steps))  # each ends with .item(), which waits for the device
        seconds = time.perf_counter() - started
    return steps * batch / seconds, _told(busy)


def _train(
    config: Config, data_dir: Path, where: torch.device, steps: int, kind: type[TrainStep], *, compiled: bool = False
) -> tuple[float, str]:
    """Images a second of the second of two epochs, by the whole training loop, and how busy the device is."""
    data = load_dataset("mnist", config.model.sample_size, data_dir)
    ids = torch.arange(steps * config.training.batch_size) % len(data)
    twice = replace(data, images=data.images[ids], labels=data.labels[ids])
    config = replace(config, training=replace(config.training, epochs=2, validation_images=0))
    precision, _ = choose_precision("auto", where)
    spec = RunSpec(compile=compiled, checkpoint_every="999999s")
    with (
        tempfile.TemporaryDirectory() as folder,
        Registry(Path(folder)).writer("it", "") as writer,
        mock.patch("ddpmctl.training.trainer.TrainStep", kind),
    ):
        ends = _Epochs()
        trainer = Trainer(config, twice, spec, Execution(device=where, precision=precision), writer, callbacks=ends)
        trainer.previews.maybe_draw = lambda *_, **__: 0.0  # type: ignore[method-assign]
        with _watched(where) as busy:
            trainer.train()
    return steps * config.training.batch_size / (ends.times[1] - ends.times[0]), _told(busy)


class _Epochs(Clock):
    """Takes the time at the end of each epoch, when the device has done all that was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_step(self, step: int, images_per_second: float) -> None: ...

    def on_epoch_end(self, row: object, patience_left: int, step_metrics: object) -> None:
        self.times.append(time.perf_counter())


def _flops(config: Config, data_dir: Path) -> float:
    """Operations of a step for one image, forward and backward."""
    execution = Execution(device=torch.device("cpu"), precision="fp32")
    data = load_dataset("mnist", config.model.sample_size, data_dir)
    few = replace(data, images=data.images[:8], labels=data.labels[:8])
    step, counter = TrainStep(config, few, RunSpec(), execution), FlopCounterMode(display=False)
    with counter:
        step.gradients(torch.arange(8), step=0)
    return counter.get_total_flops() / 8


def _peak(where: torch.device) -> float:
    """Operations a second in the best of some large products of bf16 matrices."""
    side = 8192 if where.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=where, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


@contextmanager
def _watched(where: torch.device) -> Iterator[list[float]]:
    """What the driver says of the share of time in which the device computes, twice a second."""
    shares: list[float] = []
    ended = Event()

    def watch() -> None:
        while not ended.wait(0.5):
            asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
            told = subprocess.run(asked, capture_output=True, text=True, check=False)
            shares.extend([float(told.stdout)] if told.returncode == 0 else [])

    thread = Thread(target=watch, daemon=True)
    if where.type == "cuda" and shutil.which("nvidia-smi"):
        thread.start()
    yield shares
    ended.set()
    if thread.is_alive():
        thread.join()


def _told(shares: list[float]) -> str:
    # The first half is of the first epoch, in which libraries are loaded and the step is captured.
    return f"{statistics.median(shares[len(shares) // 2 :]):.0f} %" if shares else "not measured"
