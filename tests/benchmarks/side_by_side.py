"""The same machine, the same minutes of training, the same digits, the same evaluator.

python -m tests.benchmarks side-by-side --data-dir DATA --minutes 5 -n 100
"""

import json
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ddpmctl.data import load_dataset
from ddpmctl.evaluation.cache import cached_classifier
from ddpmctl.evaluation.evaluator import Evaluator

from .contenders import CONTENDERS, in_batches
from .machine import about_this_machine, markdown, run


def compare(data_dir: Path, minutes: float, count: int, names: list[str]) -> None:
    """Train and score each in a process of its own, and print a table as it fills."""
    print(about_this_machine())
    print(f"{minutes:g} minutes of training each, {count} digits each\n", flush=True)
    for library in ("diffusers", "denoising_diffusion_pytorch"):
        if find_spec(library) is None:
            raise SystemExit(f"{library} is not installed: pip install '.[bench]'")
    evaluator = make_evaluator(data_dir)
    header = [
        "", "images/s trained", "label accuracy", "Frechet", "over the floor", "sampler", "images/s made", "peak MiB",
    ]  # fmt: skip
    print(markdown(header, []), flush=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "digits.npz"
            command = [sys.executable, "-m", "tests.benchmarks", "one", "--data-dir", data_dir, "--name", name]
            ran = run(*command, "--minutes", minutes, "-n", count, "-o", archive)
            told = json.loads(ran.stdout.splitlines()[-1])
            images = np.load(archive)["images"]
        report = evaluator.measure(images, evaluator.train.proportional_labels(count))
        row = [
            name, f"{told['trained'] / told['seconds']:.0f}", f"{report.accuracy:.1%}", f"{report.frechet.value:.3g}",
            f"{report.frechet.ratio:.2f}", told["sampler"], f"{told['sampled_per_second']:.3g}", f"{ran.peak:,.0f}",
        ]  # fmt: skip
        print(f"| {' | '.join(row)} |", flush=True)
        print(f"{name}: {told} {report}", file=sys.stderr, flush=True)


def one(data_dir: Path, name: str, minutes: float, count: int, archive: Path) -> None:
    """Train one contender, keep its digits, and print what it took."""
    contender = CONTENDERS[name](data_dir)
    labels = load_dataset("mnist", 32, data_dir).proportional_labels(count)
    trained, seconds = contender.train(60 * minutes)
    started = time.perf_counter()
    images = in_batches(contender, labels)
    per_second = count / (time.perf_counter() - started)
    np.savez(archive, images=images)
    told = {"trained": trained, "seconds": seconds, "sampled_per_second": per_second, "sampler": contender.sampler}
    print(json.dumps(told))


def labels_of(count: int) -> list[int]:
    """0 to 9 in turn."""
    return [k % 10 for k in range(count)]


def make_evaluator(data_dir: Path) -> Evaluator:
    """The evaluator of the real MNIST."""
    train, test = (load_dataset("mnist", 32, data_dir, train=which) for which in (True, False))
    trained = cached_classifier(train, test, torch.device("cpu"), lambda done, total: None)
    print(f"classifier: {trained.accuracy:.2%} of real test images", file=sys.stderr)
    return Evaluator(trained.classifier, train, test)
