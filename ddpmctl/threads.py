"""The number of CPU threads, and how they wait. Without torch, which reads both settings when it is imported."""

import math
import os
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which users choose how OpenMP's threads wait."""

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class UsableCpus:
    """The CPUs that this process may use."""

    host: int
    """CPUs of the machine."""
    affinity: int
    """CPUs that the scheduler may place the process on."""
    quota: float | None
    """CPU quota of the cgroup, in CPUs, such as 1.5 in a container; None for no limit."""

    @property
    def threads(self) -> int:
        """The number of threads that keep the CPUs busy: two for a quota of 1.5."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, math.ceil(self.quota)))

    def __str__(self) -> str:
        limits = [f"{self.affinity} of {self.host} CPUs"]
        if self.quota is not None and self.quota < self.affinity:
            limits.append(f"a quota of {self.quota:g} CPUs")
        return " with ".join(limits)


def usable_cpus(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> UsableCpus:
    """Count the CPUs by affinity and by the quotas of the cgroups (versions 1 and 2)."""
    host = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    quotas = [quota for folder in _groups(cgroups, own) if (quota := _quota(folder)) is not None]
    return UsableCpus(host, affinity, min(quotas, default=None))


def configure_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that OpenMP reads when torch is imported, unless the user has; no effect after that.

    Threads that wait by spinning take time slices from those they wait for: next to another busy process on two cores,
    training runs at a tenth of its speed, and at more than half of it with passive waiting.
    """
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in WAIT_SETTINGS):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    cpus = usable_cpus()
    if "OMP_NUM_THREADS" not in environment and cpus.threads < cpus.affinity:
        environment["OMP_NUM_THREADS"] = str(cpus.threads)


def wait_policy(environment: MutableMapping[str, str] = os.environ) -> str:
    """How OpenMP's threads wait, as a phrase."""
    found = [f"{name}={environment[name]}" for name in WAIT_SETTINGS if name in environment]
    return ", ".join(found) or "OpenMP's default"


def _groups(cgroups: Path, own: Path) -> list[Path]:
    """The folders of this process's cgroups and of their parents."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    folders = []
    for line in lines:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
        path = Path(group.lstrip("/"))
        folders += [root / parent for parent in (path, *path.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    """CPU quota of one cgroup, in CPUs; None if it sets no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    try:
        allowed = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max" in version 2
        return None
    return allowed if allowed > 0 else None  # -1 in version 1
