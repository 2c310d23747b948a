"""Concurrent processes on one registry: no update is lost, and readers never see a partial one.

python -m tests.faults.crowd HOME OPERATIONS SEED
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ddpmctl.errors import CheckpointError
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.registry.checkpoint import CheckpointRemoved
from tests.builders import commit
from tests.conftest import ROOT, clean_environment

from .actions import RESUME
from .tally import Tally

NAMES = ("a", "b", "c")


def crowded(processes: int, operations: int, seed: int) -> Tally:
    """Processes that each read a model or add one to its number, at random."""
    tally = Tally(f"{processes} processes with {operations:,} operations each on one registry", seed)
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        for name in NAMES:
            with registry.writer(name, "") as writer:
                _write(writer, 0)
        command = [sys.executable, "-m", "tests.faults.crowd", folder, str(operations)]
        environment = clean_environment(Path(folder))
        running = [
            subprocess.Popen([*command, str(seed + k)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            for k in range(processes)
        ]
        added = dict.fromkeys(NAMES, 0)
        for process in running:
            said, _ = process.communicate(timeout=3600)
            tally.expect(process.returncode == 0, f"a process ended with {process.returncode}")
            told = json.loads(said or "{}")
            tally.trials += told.get("operations", 0)
            tally.failures += told.get("failures", [])
            for name, count in told.get("added", {}).items():
                added[name] += count
        for name in NAMES:
            step = registry.checkpoints(name)[-1].manifest.run.step
            tally.expect(step == added[name], f"{name}: {added[name]} additions, but it stands at {step}")
        tally.expect(not list(registry.leftovers()), "something was left behind")
    return tally


def _write(writer: object, step: int) -> None:
    numbers = {"layer": np.full((2, 3), step, np.float32)}
    commit(writer, step, weights=numbers, state={"progress": numbers["layer"]}, resume=RESUME)  # type: ignore[arg-type]


def _read(checkpoint: Checkpoint) -> str:
    checkpoint.verify()
    step, number = checkpoint.manifest.run.step, float(checkpoint.weights()["layer"][0, 0])
    return "" if step == number else f"{checkpoint.path} says {step} and holds {number}"


def take_part(home: Path, operations: int, seed: int) -> dict[str, object]:
    """What one of the processes does."""
    registry, generator = Registry(home), random.Random(seed)
    added, failures, done = dict.fromkeys(NAMES, 0), [], 0
    while done < operations:
        name = generator.choice(NAMES)
        try:
            if generator.random() < 0.5:
                for checkpoint in registry.checkpoints(name):
                    if problem := _read(checkpoint):
                        failures.append(problem)
            else:
                writer, last = registry.resume(name)
                with writer:
                    _write(writer, last.manifest.run.step + 1)
                added[name] += 1
        except CheckpointRemoved:
            continue  # a newer one took its place: whoever reads tries again
        except CheckpointError as error:
            if "another process" not in error.message:
                failures.append(error.message)
            time.sleep(generator.uniform(0, 0.01))
            continue
        done += 1
    return {"operations": done, "added": added, "failures": failures}


if __name__ == "__main__":
    print(json.dumps(take_part(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
