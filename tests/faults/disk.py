"""A disk that is really full, a limit on the size of files, a disk that cannot be written."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT, clean_environment

from .actions import done, lost, prepare
from .tally import Tally

WRITING = ("first", "save", "best", "import", "export")
SIZE = 512 * 1024


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A tmpfs of half a megabyte; None where none can be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def full(rooms: range) -> Tally:
    """So many bytes are left on a real file system."""
    tally = Tally(f"a full disk with {rooms[0]:,} to {rooms[-1]:,} bytes left")
    for action in WRITING:
        for room in rooms:
            with small_disk() as disk:
                if disk is None:
                    tally.skipped = "no tmpfs can be mounted here"
                    return tally
                home = disk / "home"
                home.mkdir()
                prepare(action, home)
                ballast = disk / "ballast"
                free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                ballast.write_bytes(bytes(max(0, free - room)))
                _attempt(tally, f"{action} with {room} bytes left", action, home)
                ballast.unlink()
                _finish(tally, f"{action} with {room} bytes left", action, home)
    return tally


def limited(sizes: range) -> Tally:
    """No file may grow beyond so many bytes."""
    tally = Tally(f"RLIMIT_FSIZE of {sizes[0]:,} to {sizes[-1]:,} bytes")
    for action in WRITING:
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                prepare(action, home)

                def limit(size: int = size) -> None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

                _attempt(tally, f"{action} with files of {size} bytes", action, home, limit)
                _finish(tally, f"{action} with files of {size} bytes", action, home)
    return tally


def read_only() -> Tally:
    """A disk that was mounted read-only meanwhile."""
    tally = Tally("a disk that cannot be written")
    for action in ("first", "save", "best", "rm", "prune", "import", "export"):
        with small_disk() as disk:
            if disk is None:
                tally.skipped = "no tmpfs can be mounted here"
                return tally
            home = disk / "home"
            home.mkdir()
            prepare(action, home)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            _attempt(tally, f"{action} on a read-only disk", action, home)
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            _finish(tally, f"{action} on a read-only disk", action, home)
    return tally


def _act(action: str, home: Path, limit: Callable[[], None] | None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-B", "-m", "tests.faults.actions", action, str(home)],
        cwd=ROOT, env=clean_environment(home), capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=limit,
    )  # fmt: skip


def _attempt(tally: Tally, where: str, action: str, home: Path, limit: Callable[[], None] | None = None) -> None:
    ran = _act(action, home, limit)
    tally.trials += 1
    tally.expect(ran.returncode in (0, 1), f"{where}: ended with {ran.returncode}: {ran.stderr[-300:]}")
    tally.failures += [f"{where}: {problem}" for problem in lost(action, home)]


def _finish(tally: Tally, where: str, action: str, home: Path) -> None:
    """Once the fault is over, the action goes through."""
    there = (home / "models" / "tiny" / "best").exists()
    if (action in ("first", "import") and there) or (action == "rm" and not there):
        return
    ran = _act(action, home, None)
    tally.expect(ran.returncode == 0, f"{where}: and then it ended with {ran.returncode}: {ran.stderr[-300:]}")
    tally.failures += [f"{where}: and then {problem}" for problem in done(action, home)]
