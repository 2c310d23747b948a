"""SIGKILL or an error at each system call that changes the disk, injected by strace."""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .actions import ACTIONS, lost, prepare
from .process import again, run
from .tally import Tally

CALLS = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
)
ERRORS = ("ENOSPC", "EIO", "EROFS")
STRACE = ("strace", "-f", "-qq")


def why_not() -> str:
    """Why nothing can be thrown here; empty where it can."""
    if not shutil.which("strace"):
        return "there is no strace"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "strace may not trace here"


@dataclass(frozen=True)
class Throw:
    """A fault to be thrown: what at which call of which action, and how the process may end then."""

    action: str
    call: str
    fault: str
    expected: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.action}, {self.call} {self.fault}"


def killed(every: int = 1) -> Tally:
    """SIGKILL at every call; then the state must be the old or the new one, and the action go through again."""
    tally = Tally(f"SIGKILL at every system call of {', '.join(ACTIONS)}", skipped=why_not())
    if not tally.skipped:
        throws = [Throw(action, call, f"signal=SIGKILL:when={k}", (-9, 137)) for action, call, k in _calls()]
        _throw_all(tally, throws[::every])
    return tally


def refused(every: int = 1) -> Tally:
    """Errors of the disk at every call, or each at one of so many; then the same, and no trace of Python."""
    tally = Tally(f"{', '.join(ERRORS)} at every system call of {', '.join(ACTIONS)}", skipped=why_not())
    if not tally.skipped:
        throws = [
            Throw(action, call, f"error={error}:when={k}", (0, 1)) for action, call, k in _calls() for error in ERRORS
        ]
        _throw_all(tally, throws[::every])
    if every > 1:
        tally.fault += f", one in {every}"
    return tally


def _throw_all(tally: Tally, throws: list[Throw]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for problems in pool.map(_throw, throws):
            tally.trials += 1
            tally.failures += problems


def _calls() -> Iterator[tuple[str, str, int]]:
    """The calls of every action but for what it prints, each with its number among those of its name."""
    for action in ACTIONS:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            prepare(action, home)
            log = home / "strace.log"
            ran = run(action, home, *STRACE, "-e", f"trace={','.join(CALLS)}", "-o", str(log))
            assert ran.returncode == 0, ran.stderr
            made = re.findall(r"^(?:\d+ +)?(\w+)\((\w*)", log.read_text(), re.MULTILINE)
        counts: Counter[str] = Counter()
        for call, first in made:
            counts[call] += 1
            if call != "write" or first not in ("1", "2"):
                yield action, call, counts[call]


def _throw(throw: Throw) -> list[str]:
    """What is wrong after a fault."""
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("r") as log:
        home, action = Path(folder), throw.action
        prepare(action, home)
        inject = ("-e", f"trace={throw.call}", "-e", f"inject={throw.call}:{throw.fault}")
        ran = run(action, home, *STRACE, *inject, "-o", log.name)
        problems = lost(action, home)
        if not re.search("INJECTED|killed by SIGKILL", log.read()):
            problems.append("it was not thrown")
        if ran.returncode not in throw.expected:
            problems.append(f"ended with {ran.returncode}: {ran.stderr[-300:]}")
        # The command line has words for everything; what saves a training is called by it.
        if "Traceback" in ran.stderr and action not in ("first", "save", "best"):
            problems.append(ran.stderr[-500:])
        problems += again(action, home)
    return [f"{throw}: {problem}" for problem in problems]
