"""Helpers for the tests of the registry."""

from pathlib import Path

import numpy as np

from ddpmctl.registry import Checkpoint, Registry, last_of
from tests.builders import WEIGHTS


def tree(folder: Path) -> list[str]:
    """Every file and folder under a folder, but for the locks, which stay where they were."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


def commits(registry: Registry, name: str) -> list[str]:
    return sorted(path.name for path in (registry.models / name).iterdir() if path.is_dir())


def both(registry: Registry, name: str) -> tuple[Checkpoint, Checkpoint]:
    """The best commit and the last."""
    best = registry.open(name)
    return best, last_of(best)


def check_whole(registry: Registry, name: str, *steps: int) -> None:
    """See that both pointers of a model name a commit of one of these steps, and that it is whole."""
    for opened in both(registry, name):
        assert opened.manifest.run.step in steps
        assert np.array_equal(opened.weights()["layer"], WEIGHTS["layer"])


def tree_of_one_commit(name: str, step: int) -> list[str]:
    files = ("", "/history.csv", "/manifest.json", "/weights.safetensors")
    return [name, *(f"{name}/{step:08d}{file}" for file in files), f"{name}/best", f"{name}/last"]


class Full(OSError):
    """The disk is full."""
