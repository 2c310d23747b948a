"""Actions on a registry under fault injection, each in its own process.

python -m tests.faults.actions ACTION HOME
"""

import sys
from pathlib import Path

import numpy as np

from ddpmctl.cli.main import main as ddpmctl
from ddpmctl.errors import DdpmctlError
from ddpmctl.exports.api import export
from ddpmctl.plan import Plan, RateSegment
from ddpmctl.registry import Checkpoint, Registry, ResumeRecord
from ddpmctl.registry.archive import read_archive
from tests.builders import PLANNED, WEIGHTS, commit

NAME = "tiny"
OLD, NEW = 10, 20
RATES = RateSegment(start=0, end=PLANNED, level=1.0, warmup_steps=0, decay_steps=0)
PLAN = Plan(steps=PLANNED, steps_per_epoch=10, batch_size=8, peak_lr=0.1, limit=None, segments=(RATES,))
RESUME = ResumeRecord(plan=PLAN, device="cpu", within_epochs=False, epochs_without_better=0, rollbacks=0)
STATE = {"model.layer": np.ones((2, 3), np.float32)}

ACTIONS = ("first", "save", "best", "prune", "rm", "export", "import")


def prepare(action: str, home: Path) -> None:
    """The registry as it is before an action."""
    registry = Registry(home)
    if action in ("first", "import"):
        with registry.writer("kept", "") as writer:
            commit(writer, OLD)
        if action == "import":
            export(registry.open("kept"), home / "tiny.zip")
        return
    with registry.writer(NAME, "") as writer:
        commit(writer, OLD, state=STATE, resume=RESUME)
    if action == "prune":
        for leftover in (f"models/{NAME}/00000005", f"models/.{NAME}.01234567.tmp", f"models/{NAME}/.x.01234567.tmp"):
            (home / leftover).mkdir()
            (home / leftover / "weights.safetensors").write_bytes(bytes(100))


def act(action: str, home: Path) -> None:
    """Do it, as the tool does."""
    if action in ("first", "save", "best"):
        writer = Registry(home).writer(NAME, "") if action == "first" else Registry(home).resume(NAME)[0]
        with writer:
            commit(writer, NEW, best=action != "save", state=STATE, resume=RESUME)
        return
    typed = {
        "prune": ["models", "prune"],
        "rm": ["models", "rm", NAME, "--yes"],
        "export": ["export", NAME, str(home / "tiny.zip")],
        "import": ["models", "import", str(home / "tiny.zip")],
    }[action]
    sys.argv = ["ddpmctl", *typed]
    ddpmctl()


def lost(action: str, home: Path) -> list[str]:
    """What is not as it was before the action nor as it should be after it."""
    registry = Registry(home)
    if action == "export":
        try:
            read_archive(home / "tiny.zip")
        except DdpmctlError as error:
            return [] if not (home / "tiny.zip").exists() else [f"the archive: {error.message}"]
        return []
    may_be_missing = action in ("first", "import", "rm")
    names = {*registry.names(), *registry.names("last")}
    wanted = {"kept"} if action in ("first", "import") else {NAME}
    if not wanted <= names and not may_be_missing:
        return [f"only {sorted(names)} is left"]
    return [problem for name in sorted(names) for problem in _broken(registry, name)]


def _broken(registry: Registry, name: str) -> list[str]:
    found = []
    try:
        for checkpoint in registry.checkpoints(name):
            checkpoint.verify()
            found += _strange(checkpoint)
    except DdpmctlError as error:
        found.append(f"{name}: {error.message}")
    return found


def _strange(checkpoint: Checkpoint) -> list[str]:
    step = checkpoint.manifest.run.step
    if step not in (OLD, NEW) or checkpoint.weights()["layer"].tobytes() != WEIGHTS["layer"].tobytes():
        return [f"{checkpoint.path} holds something else"]
    return []


def done(action: str, home: Path) -> list[str]:
    """What is not as it should be once the action went through undisturbed, after whatever came before."""
    registry = Registry(home)
    problems = lost(action, home)
    if action == "rm":
        problems += [f"{name} is still there" for name in registry.names()]
    elif action == "export":
        problems += [] if (home / "tiny.zip").exists() else ["there is no archive"]
    elif action != "prune":
        step = registry.checkpoints(NAME)[-1].manifest.run.step
        problems += [] if step == (OLD if action == "import" else NEW) else [f"it is at step {step}"]
    left = [str(path) for path in registry.leftovers()] if action != "rm" else []
    return problems + [f"{path} was left" for path in left]


if __name__ == "__main__":
    act(sys.argv[1], Path(sys.argv[2]))
