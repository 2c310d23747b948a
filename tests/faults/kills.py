"""Real training runs, killed at a random moment and resumed, end with the weights of an uninterrupted run."""

import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ddpmctl.registry import Registry
from tests.cli.support import Running
from tests.conftest import run_cli

from .tally import Tally

ONE_CORE: dict[str, Any] = {"OMP_NUM_THREADS": "1"}
TRAINING = (
    *("train", "--preset", "quick", "--device", "cpu", "--dataset", "strokes:200", "--batch-size", 30),
    *("--epochs", 10, "--checkpoint-every", "4steps"),
)


def killed(trials: int, seed: int) -> Tally:
    """``kill -9`` at a random moment after the name was printed, once a training or twice; two trainings at a time."""
    tally = Tally("kill -9 of a real training, then --resume: weights and optimizer bit for bit", seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        started = time.monotonic()
        assert run_cli(home, *TRAINING, "--name", "uncut", **ONE_CORE).returncode == 0
        length = time.monotonic() - started
        expected = _state(home, "uncut")

        def trial(number: int) -> list[str]:
            return _cut(home, f"cut-{number}", random.Random(f"{seed}/{number}"), length, expected)

        with ThreadPoolExecutor(2) as pool:
            for problems in pool.map(trial, range(trials)):
                tally.trials += 1
                tally.failures += problems
    return tally


def _cut(home: Path, name: str, generator: random.Random, length: float, expected: dict[str, bytes]) -> list[str]:
    """Train, kill, resume: what is wrong in the end."""
    for number in range(generator.choice((1, 1, 2))):
        how = ("train", "--resume", name, "--checkpoint-every", "4steps") if number else (*TRAINING, "--name", name)
        with Running(home, *how, **ONE_CORE) as running:
            running.wait_for(f"'{name}'")
            time.sleep(generator.uniform(0, 0.5 * length))
    resumed = run_cli(home, "train", "--resume", name, **ONE_CORE)
    if resumed.returncode:
        return [f"{name}: {resumed.stderr[-300:]}"]
    problems = [] if _state(home, name) == expected else [f"{name}: other weights"]
    return problems + [f"{name}: {path} was left" for path in Registry(home).leftovers() if name in str(path)]


def _state(home: Path, name: str) -> dict[str, bytes]:
    last = Registry(home).checkpoints(name)[-1]
    learnt = {name: array for name, array in last.state().items() if not name.startswith("previews.")}
    return {name: array.tobytes() for name, array in {**last.weights(), **learnt}.items()}
