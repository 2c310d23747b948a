"""A checkpoint of the original scripts, sampled by the original code and by this project, all 1000 steps.

python -m tests.benchmarks original --data-dir DATA
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from ddpmctl.original import import_original
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.original import predict, sample, save

from .machine import about_this_machine, markdown

LABELS = [3, 8]
SEED = 7


def original(data_dir: Path, minutes: float, home: Path | None = None, name: str = "trained") -> None:
    """Train a `classic` network, write it down as the original scripts do, and compare the chains.

    Args:
        data_dir: holds MNIST/raw.
        minutes: of training.
        home: a registry that has such a model already, in place of training one.
        name: of the model.
    """
    print(about_this_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = home or Path(folder)
        if home is None:
            typed = ["train", "--preset", "classic", "--max-time", f"{minutes}m", "--name", name]
            command = [sys.executable, "-m", "ddpmctl", *typed, "--data-dir", str(data_dir)]
            subprocess.run(command, env={**os.environ, "DDPMCTL_HOME": folder}, check=True)
        weights = Registry(place).open(name).weights()
        # The networks have the same names; what they compute with them is what is compared.
        state = {key: torch.from_numpy(array) for key, array in weights.items()}
        path = save(Path(folder) / "best_mnist_ddpm.pt", state)
        registry = Registry(Path(folder) / "imported")
        engine = Engine(registry.open(import_original(registry, path, "original")), "cpu", "fp32")
    expected = sample(partial(predict, state), LABELS, SEED, 1000)
    steps = list(engine.steps(engine.request(LABELS, SEED, sampler="ddpm", steps=1000)))
    rows = []
    for number in (0, 99, 499, 899, 999):
        before, now = expected[number], steps[number].x
        apart, seen = (before - now).abs().max(), (before.clamp(-1, 1) - now.clamp(-1, 1)).abs().max()
        rows.append([str(999 - number), f"{apart:.2e}", f"{before.abs().max():.2f}", f"{seen:.2e}"])
    print(markdown(["t", "largest difference", "largest value", "difference within -1..1, what a picture shows"], rows))
