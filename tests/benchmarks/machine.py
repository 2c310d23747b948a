"""What every benchmark needs: the machine in words, other processes with their time and memory, Markdown."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
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


def run(*command: object, **environment: str) -> Ran:
    """Run a process to its end; its stderr goes to ours."""
    before = time.perf_counter()
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stdout
        stdout = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - before
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return Ran(seconds, usage.ru_maxrss / 1024, stdout)


def ddpmctl(home: Path, *arguments: object) -> Ran:
    """Run the tool with a home of its own."""
    return run(sys.executable, "-m", "ddpmctl", *arguments, DDPMCTL_HOME=str(home))


def own_peak() -> float:
    """Most memory that this process or one of its children held, in MiB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def measured(what: Callable[[], float], rounds: int) -> list[float]:
    """Several measurements, sorted."""
    return sorted(what() for _ in range(rounds))


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
