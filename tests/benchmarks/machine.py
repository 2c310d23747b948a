"""Helpers for benchmarks: description of the machine, child processes with time and memory, Markdown."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from ddpmctl.devices import choose_precision, describe_device


@dataclass(frozen=True, slots=True)
class Ran:
    """A process that ended.

    Attributes:
        seconds: wall time.
        peak: most memory it held, in MiB.
        stdout: what it printed.
    """

    seconds: float
    peak: float
    stdout: str


# A process begins with the peak of the one that started it, so each is started by a tiny one.
LAUNCHER = """
import json, os, subprocess, sys, time
before = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
told = [os.waitstatus_to_exitcode(status), time.perf_counter() - before, usage.ru_maxrss / 1024]
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
"""


def run(*command: object, **environment: str) -> Ran:
    """Run a process to its end; its stderr goes to ours."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, "-c", LAUNCHER, str(report), *map(str, command)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}, check=True,
        )  # fmt: skip
        code, seconds, peak = json.loads(report.read_text())
    if code:
        raise SystemExit(f"{command} ended with {code}")
    return Ran(seconds, peak, done.stdout)


def ddpmctl(home: Path, *arguments: object) -> Ran:
    """Run the tool with a home of its own."""
    return run(sys.executable, "-m", "ddpmctl", *arguments, DDPMCTL_HOME=str(home))


def band(values: Sequence[float], unit: str = "") -> str:
    """A median and the range around it."""
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def about_this_machine() -> str:
    """When and where: a line above every table."""
    cpu = torch.device("cpu")
    precision, why = choose_precision("auto", cpu)
    now = datetime.now(UTC).date().isoformat()
    return f"{now}, {describe_device(cpu)}, {precision} ({why}), torch {torch.__version__}, {platform.platform()}"
