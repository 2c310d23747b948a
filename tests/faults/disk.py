"""Full disks, file size limits, and read-only disks."""

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from .actions import ACTIONS, lost, prepare
from .process import again, run
from .tally import Tally

WRITING = ("first", "save", "best", "import", "export")
SIZE = 512 * 1024


@contextmanager
def small_disk() -> Iterator[Path]:
    """A tmpfs of half a megabyte.

    Raises:
        CalledProcessError: where none can be mounted.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
        subprocess.run(command, capture_output=True, check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def why_not() -> str:
    """Why no small disk can be had here; empty where it can."""
    try:
        with small_disk():
            return ""
    except (OSError, subprocess.CalledProcessError):
        return "no tmpfs can be mounted here"


@contextmanager
def prepared(action: str) -> Iterator[Path]:
    """A home on a small disk of its own, as it is before an action."""
    with small_disk() as disk:
        home = disk / "home"
        home.mkdir()
        prepare(action, home)
        yield home


def full(rooms: range) -> Tally:
    """So many bytes are left on a real file system."""
    tally = Tally(f"a full disk with {rooms[0]:,} to {rooms[-1]:,} bytes left", skipped=why_not())
    for action, room in () if tally.skipped else product(WRITING, rooms):
        with prepared(action) as home:
            ballast, free = home.parent / "ballast", shutil.disk_usage(home).free
            ballast.write_bytes(bytes(max(0, free - room)))
            problems = _attempt(action, home)
            ballast.unlink()
            _note(tally, f"{action} with {room} bytes left", problems + again(action, home))
    return tally


def limited(sizes: range) -> Tally:
    """No file may grow beyond so many bytes."""
    tally = Tally(f"RLIMIT_FSIZE of {sizes[0]:,} to {sizes[-1]:,} bytes")
    for action, size in product(WRITING, sizes):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            prepare(action, home)

            def limit(size: int = size) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

            problems = _attempt(action, home, limit)
            _note(tally, f"{action} with files of {size} bytes", problems + again(action, home))
    return tally


def read_only() -> Tally:
    """A disk that was mounted read-only meanwhile."""
    tally = Tally("a disk that cannot be written", skipped=why_not())
    for action in () if tally.skipped else ACTIONS:
        with prepared(action) as home:
            subprocess.run(["mount", "-o", "remount,ro", home.parent], check=True)
            problems = _attempt(action, home)
            subprocess.run(["mount", "-o", "remount,rw", home.parent], check=True)
            _note(tally, f"{action} on a read-only disk", problems + again(action, home))
    return tally


def _attempt(action: str, home: Path, limit: Callable[[], None] | None = None) -> list[str]:
    """What is wrong after the action under the fault."""
    ran = run(action, home, limit=limit)
    problems = lost(action, home)
    return problems if ran.returncode in (0, 1) else [*problems, f"ended with {ran.returncode}: {ran.stderr[-300:]}"]


def _note(tally: Tally, where: str, problems: list[str]) -> None:
    tally.trials += 1
    tally.failures += [f"{where}: {problem}" for problem in problems]
