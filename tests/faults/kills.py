"""Real trainings, killed at a random moment and resumed: they end with the weights of one that never was."""

import random
import tempfile
import time
from pathlib import Path

from ddpmctl.registry import Registry
from tests.commands.support import Running
from tests.conftest import run_cli

from .tally import Tally

TRAINING = (
    *("train", "--preset", "quick", "--device", "cpu", "--dataset", "strokes:200", "--batch-size", 30),
    *("--epochs", 10, "--checkpoint-every", "4steps"),
)


def killed(trials: int, seed: int) -> Tally:
    """``kill -9`` at a random moment after the name was printed, once a training or twice."""
    tally = Tally("kill -9 of a real training, then --resume: weights and optimizer bit for bit", seed)
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        started = time.monotonic()
        assert run_cli(home, *TRAINING, "--name", "uncut").returncode == 0
        length = time.monotonic() - started
        expected = _state(home, "uncut")
        for trial in range(trials):
            name = f"cut-{trial}"
            kills = generator.choice((1, 1, 2))
            for number in range(kills):
                how = (
                    ("train", "--resume", name, "--checkpoint-every", "4steps")
                    if number
                    else (*TRAINING, "--name", name)
                )
                with Running(home, *how) as running:
                    running.wait_for(f"'{name}'")
                    time.sleep(generator.uniform(0, 0.5 * length))
                    running.process.kill()
                    running.process.wait()
            resumed = run_cli(home, "train", "--resume", name)
            tally.trials += 1
            tally.expect(resumed.returncode == 0, f"{name}: {resumed.stderr[-300:]}")
            if not resumed.returncode:
                tally.expect(_state(home, name) == expected, f"{name}: other weights")
            run_cli(home, "models", "rm", name, "--yes")
    return tally


def _state(home: Path, name: str) -> dict[str, bytes]:
    last = Registry(home).commits(name)[-1]
    return {name: array.tobytes() for name, array in {**last.weights(), **last.state()}.items()}
