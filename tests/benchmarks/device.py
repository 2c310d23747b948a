"""Training on one device beside the plain loop on the same: for a GPU; a CPU shows that it runs.

python -m tests.benchmarks device --data-dir DATA --device cuda
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

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpmctl.config import Config, load_preset
from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.devices import choose_device, choose_precision, describe_device
from ddpmctl.registry import Registry, last_of
from ddpmctl.training.learner import Learner
from ddpmctl.training.run import Run
from ddpmctl.training.trainer import Trainer

from .contenders import PlainLoop
from .machine import about_this_machine, markdown
from .speed import Clock

STEPS = {"cuda": 500, "mps": 100, "cpu": 10}
"""Of an epoch: the first warms up, the second is measured."""


def device(data_dir: Path, name: str) -> None:
    """Images a second of `classic` beside the plain loop, of `standard` and `quick`; how busy the device is."""
    print(about_this_machine(), flush=True)
    where = choose_device(name)
    print(describe_device(where), flush=True)
    data, steps = load_dataset("mnist", 32, data_dir), STEPS[where.type]
    plain, plain_busy = _plain(data_dir, where, steps)
    rows = [["plain loop, float32, DataLoader", f"{plain:,.0f}", "1.0", plain_busy, ""]]
    peak = _peak(where)
    for preset in ("classic", "standard", "quick"):
        config = load_preset(preset).config
        rate, busy = _ours(config, data, where, steps)
        share = f"{rate * _flops(config, data) / peak:.1%}"
        rows.append([f"`{preset}`", f"{rate:,.0f}", f"{rate / plain:.1f}" if preset == "classic" else "", busy, share])
    print(markdown(["training", "images/s", "ratio", "the device is busy", "of its bf16 peak"], rows))
    print(f"\nbf16 peak: {peak / 1e12:.2f} TFLOP/s, the best of large products of matrices here")


def _plain(data_dir: Path, where: torch.device, steps: int) -> tuple[float, str]:
    loop = PlainLoop(data_dir, device=where)
    batch, taken = loop.loader.batch_size or 0, loop.steps()
    list(islice(taken, 5))
    with _watched(where) as busy:
        started = time.perf_counter()
        list(islice(taken, steps))  # each ends with .item(), which waits for the device
        seconds = time.perf_counter() - started
    return steps * batch / seconds, _told(busy)


def _ours(config: Config, data: Dataset, where: torch.device, steps: int) -> tuple[float, str]:
    images = steps * config.training.batch_size
    ids = torch.arange(images) % len(data)
    twice = replace(data, images=data.images[ids], labels=data.labels[ids])
    config = replace(config, training=replace(config.training, epochs=2, heldout=0))
    precision, _ = choose_precision("auto", where)
    run = Run(preset="it", dataset="mnist", device=where, precision=precision, seed=0)
    with tempfile.TemporaryDirectory() as folder, Registry(Path(folder)).writer("it", "") as writer:
        trainer = Trainer(config, twice, run, writer, Clock())
        trainer.strips.offer = lambda *_, **__: 0.0  # type: ignore[method-assign]
        with _watched(where) as busy:
            trainer.train()
        second = last_of(Registry(Path(folder)).open("it")).history[-1]
    return float(second["images_per_second"]), _told(busy)


def _flops(config: Config, data: Dataset) -> float:
    """Of a step for one image, forward and backward."""
    run = Run(preset="it", dataset="mnist", device=torch.device("cpu"), precision="fp32", seed=0)
    few = replace(data, images=data.images[:8], labels=data.labels[:8])
    learner, counter = Learner(config, few, run), FlopCounterMode(display=False)
    with counter:
        learner.train_step.gradients(torch.arange(8), step=0)
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
    return f"{statistics.median(shares):.0f} %" if shares else "not measured"
