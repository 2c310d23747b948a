"""Training and sampling speed as ratios within one run.

python -m tests.benchmarks training --data-dir DATA
python -m tests.benchmarks sampling --data-dir DATA -n 500
python -m tests.benchmarks race --data-dir DATA
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from ddpmctl.config import Config, load_preset
from ddpmctl.core.diffusion import Diffusion
from ddpmctl.core.samplers import ddim, trailing_timesteps
from ddpmctl.core.schedule import linear
from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset, to_model_range
from ddpmctl.devices import choose_precision
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images, to_pixels
from ddpmctl.training.callbacks import Callback
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.trainer import Trainer
from tests import digit_classifier

from .contenders import PlainLoop
from .machine import about_this_machine, band, ddpmctl, markdown
from .side_by_side import labels_of, make_evaluator

ROUNDS = 5
STEPS_A_ROUND = 30
IMAGES_TO_COMPARE = 12_800
RIGHT = 0.98
BUDGETS = ("60s", "75s", "90s")
"""Of `quick`, tried until one is enough; the plain loop races against that one alone."""


class Clock(Callback):
    """Takes the time of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step(self, step: int, images_per_second: float) -> None:
        self.times.append(time.perf_counter())


def _median_gap(times: list[float]) -> float:
    return statistics.median(later - earlier for earlier, later in pairwise(times))


def training(data_dir: Path) -> None:
    """The classic network: this project's loop beside the plain one, images a second and error after as many images."""
    print(about_this_machine(), flush=True)
    data = load_dataset("mnist", 32, data_dir)
    classic = load_preset("classic").config
    loop = PlainLoop(data_dir)
    batch = loop.loader.batch_size or 0
    steps = loop.steps()
    next(steps)  # starts its workers
    plain, ours = [], []
    for _ in range(ROUNDS):
        times = [time.perf_counter() for _ in islice(steps, STEPS_A_ROUND)]
        plain.append(batch / _median_gap(times))
        ours.append(one_epoch(classic, data, STEPS_A_ROUND * batch)[1])
    rows = [
        ["plain loop", band(plain), "1.00"],
        ["ddpmctl classic", band(ours), band([a / b for a, b in zip(ours, plain, strict=True)])],
    ]
    print(markdown(["", "images/s", "ratio"], rows), flush=True)

    test = load_dataset("mnist", 32, data_dir, train=False)
    loop = PlainLoop(data_dir)
    assert isinstance(loop.loader.dataset, torch.utils.data.Dataset)
    loop.loader = DataLoader(
        Subset(loop.loader.dataset, range(IMAGES_TO_COMPARE)), batch, shuffle=True, num_workers=2, drop_last=True
    )
    list(islice(loop.steps(), IMAGES_TO_COMPARE // batch))
    mine, _ = one_epoch(classic, data, IMAGES_TO_COMPARE)
    errors = [_error(model, test) for model in (loop.model, mine)]
    print(
        f"\nMSE on test images after {IMAGES_TO_COMPARE:,}: plain {errors[0]:.5f}, "
        f"ddpmctl {errors[1]:.5f}, {errors[1] / errors[0] - 1:+.1%}"
    )


def one_epoch(config: Config, data: Dataset, images: int) -> tuple[nn.Module, float]:
    """Train on the first so many images once: the network and images a second, by the median step."""
    few = replace(data, images=data.images[:images], labels=data.labels[:images])
    once = replace(config, training=replace(config.training, epochs=1, validation_images=0))
    watcher = Clock()
    device = torch.device("cpu")
    precision, _ = choose_precision("auto", device)
    spec, execution = RunSpec(preset="quick"), Execution(device=device, precision=precision)
    with tempfile.TemporaryDirectory() as folder, Registry(Path(folder)).writer("it", "") as writer:
        trainer = Trainer(once, few, spec, execution, writer, callbacks=watcher)
        trainer.train()
    return trainer.train_step.model, trainer.state.plan.batch_size / _median_gap(watcher.times)


@torch.no_grad()
def _error(model: nn.Module, test: Dataset, count: int = 2000) -> float:
    """Mean squared error in float32 on test images, at timesteps and noise that are always the same."""
    diffusion, generator = Diffusion(linear(1000), "epsilon"), torch.Generator().manual_seed(0)
    model.eval()
    total = 0.0
    for start in range(0, count, 100):
        x0, label = to_model_range(test.images[start : start + 100]), test.labels[start : start + 100]
        t, epsilon = torch.randint(1000, (100,), generator=generator), torch.randn(x0.shape, generator=generator)
        total += float(diffusion.loss(model, x0, t, epsilon, label).sum())
    return total / count


def sampling(data_dir: Path, count: int) -> None:
    """`quick` at its recommended sampler beside the full chain of the same network in float32."""
    print(about_this_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ddpmctl(
            Path(folder), "train", "--preset", "quick", "--data-dir", data_dir, "--max-time", "90s", "--device", "cpu"
        )
        checkpoint = Registry(Path(folder)).open(None)
        fast, full = Engine(checkpoint, "cpu"), Engine(checkpoint, "cpu", "fp32")
        evaluator = make_evaluator(data_dir)
        labels = evaluator.train.proportional_labels(count)
        way = fast.request([0]).sampling
        chain = full.request([0], sampler="ddpm", steps=1000).sampling
        rows, rates = [], []
        for engine, name, settings in ((fast, "recommended", way), (full, "full chain, float32", chain)):
            started = time.perf_counter()
            images = engine.generate(labels, sampler=settings.sampler, steps=settings.steps)
            rates.append(count / (time.perf_counter() - started))
            report = evaluator.measure(images, labels)
            spread = report.frechet.floor_std or 0.0
            rows.append(
                [
                    f"{name}: {settings.sampler}, {settings.steps} steps", f"{rates[-1]:.3g}",
                    f"{report.frechet.value:.3f}", f"{spread:.3f}", f"{report.accuracy:.1%}",
                ]
            )  # fmt: skip
        print(markdown(["", "images/s", "Frechet", "spread of the floor", "accuracy"], rows))
        print(f"\n{rates[0] / rates[1]:.0f} times as fast, n = {count}")


def race(data_dir: Path, count: int, most: float) -> None:
    """From start to 98 % of the labels right: `quick`, then the plain loop for ``most`` times that."""
    print(about_this_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for limit in BUDGETS:
            arguments = ("--preset", "quick", "--data-dir", data_dir, "--max-time", limit, "--device", "cpu")
            ran = ddpmctl(Path(folder), "train", *arguments, "--name", limit)
            images = Engine(Registry(Path(folder)).open(limit), "cpu").generate(labels_of(count))
            share = digit_classifier.accuracy(images, labels_of(count))
            print(f"quick: {share:.1%} right of {count} after {ran.seconds:.0f} s, the whole process", flush=True)
            if share >= RIGHT:
                break
        else:
            raise SystemExit(f"quick did not reach {RIGHT:.0%}")
    parts = [part for part in (1, 2, 4, 8, 15, 22) if part < most] + [most]
    loop, clock = PlainLoop(data_dir), time.perf_counter
    steps, spent, shown = loop.steps(), 0.0, 0
    for part in parts:
        until = part * ran.seconds
        while spent < until:
            started = clock()
            next(steps)
            spent += clock() - started
            shown += 1
        share = digit_classifier.accuracy(_ddim(loop.model, 200), labels_of(200))
        print(f"plain loop: {share:.1%} right of 200 after {spent:.0f} s, {shown:,} steps", flush=True)
        if share >= RIGHT:
            print(f"{spent / ran.seconds:.0f} times as long")
            return
    print(f"more than {most:g} times as long")


@torch.no_grad()
def _ddim(model: nn.Module, count: int) -> Images:
    diffusion, label = Diffusion(linear(1000), "epsilon"), torch.tensor(labels_of(count))

    def predict_x0(x: torch.Tensor, t: int) -> torch.Tensor:
        times = torch.full((len(x),), t)
        return diffusion.predict_x0(x, times, model(x, times, label))

    noise: Callable[[], torch.Tensor] = lambda: torch.randn(count, 1, 32, 32)  # noqa: E731
    *_, last = ddim(predict_x0, diffusion.schedule, noise(), trailing_timesteps(1000, 50), noise)
    return to_pixels(last.x0)
