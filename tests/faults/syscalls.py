"""A process killed, or refused, at each of its system calls that change the disk; strace throws the faults."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.conftest import ROOT, clean_environment

from .actions import ACTIONS, done, lost, prepare
from .tally import Tally

CALLS = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
)
ERRORS = ("ENOSPC", "EIO", "EROFS")


def why_not() -> str:
    """Why nothing can be thrown here; empty where it can."""
    if not shutil.which("strace"):
        return "there is no strace"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "strace may not trace here"


def killed(actions: tuple[str, ...] = ACTIONS) -> Tally:
    """SIGKILL at every call; then the state must be the old or the new one, and the action go through again."""
    tally = Tally(f"SIGKILL at every system call of {', '.join(actions)}", skipped=why_not())
    if tally.skipped:
        return tally
    for action in actions:
        for call, number in _calls(action):
            _throw(tally, action, call, f"signal=SIGKILL:when={number}", expected=(-9, 137))
    return tally


def refused(actions: tuple[str, ...] = ACTIONS, errors: tuple[str, ...] = ERRORS, *, each: bool = True) -> Tally:
    """Errors of the disk at every call, each kind or the next one; then the same, and a clear word and no trace."""
    tally = Tally(f"{', '.join(errors)} at every system call of {', '.join(actions)}", skipped=why_not())
    if tally.skipped:
        return tally
    place = 0
    for action in actions:
        for call, number in _calls(action):
            place += 1
            for error in errors if each else [errors[place % len(errors)]]:
                _throw(tally, action, call, f"error={error}:when={number}", expected=(0, 1))
    return tally


def _calls(action: str) -> list[tuple[str, int]]:
    """The calls that the action makes but for what it prints, each with its number among those of its name."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(action, home)
        log = home / "strace.log"
        ran = _run(action, home, "-e", f"trace={','.join(CALLS)}", "-o", str(log))
        assert ran.returncode == 0, ran.stderr
        made = re.findall(r"^(?:\d+ +)?(\w+)\((\w*)", log.read_text(), re.MULTILINE)
    counts: Counter[str] = Counter()
    found = []
    for call, first in made:
        counts[call] += 1
        if call != "write" or first not in ("1", "2"):
            found.append((call, counts[call]))
    return found


def _run(action: str, home: Path, *strace: str) -> "subprocess.CompletedProcess[str]":
    tracing = ["strace", "-f", "--seccomp-bpf", "-qq", *strace] if strace else []
    return subprocess.run(
        [*tracing, sys.executable, "-B", "-m", "tests.faults.actions", action, str(home)],
        cwd=ROOT, env=clean_environment(home), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _throw(tally: Tally, action: str, call: str, fault: str, expected: tuple[int, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(action, home)
        ran = _run(action, home, "-e", f"trace={call}", "-e", f"inject={call}:{fault}", "-o", "/dev/null")
        where = f"{action}, {call} {fault}"
        tally.trials += 1
        tally.expect(ran.returncode in expected, f"{where}: ended with {ran.returncode}: {ran.stderr[-300:]}")
        tally.expect(
            "Traceback" not in ran.stderr or action in ("first", "save", "best"), f"{where}: {ran.stderr[-500:]}"
        )
        for problem in lost(action, home):
            tally.failures.append(f"{where}: {problem}")
        again = _again(action, home)
        tally.expect(not again, f"{where}: and then {again}")


def _again(action: str, home: Path) -> str:
    """What is wrong after the action was done once more, undisturbed."""
    if action in ("first", "import") and (home / "models" / "tiny" / "best").exists():
        return ""  # it went through
    if action == "rm" and not (home / "models" / "tiny" / "best").exists():
        return ""
    ran = _run(action, home)
    if ran.returncode:
        return f"it ended with {ran.returncode}: {ran.stderr[-300:]}"
    return "; ".join(done(action, home))
