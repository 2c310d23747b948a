"""An action in its own process, with a fault and then without."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT, clean_environment

from .actions import done


def run(
    action: str, home: Path, *tracing: str, limit: Callable[[], None] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Do it, under a tracer where one is given, and with ``limit`` called in the process before."""
    return subprocess.run(
        [*tracing, sys.executable, "-B", "-m", "tests.faults.actions", action, str(home)],
        cwd=ROOT, env=clean_environment(home), capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=limit,
    )  # fmt: skip


def again(action: str, home: Path) -> list[str]:
    """What is wrong after the action was done once more, undisturbed; nothing where it had gone through."""
    there = (home / "models" / "tiny" / "best").exists()
    if (action in ("first", "import") and there) or (action == "rm" and not there):
        return []
    ran = run(action, home)
    if ran.returncode:
        return [f"and then it ended with {ran.returncode}: {ran.stderr[-300:]}"]
    return [f"and then {problem}" for problem in done(action, home)]
