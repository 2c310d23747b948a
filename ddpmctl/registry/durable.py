"""Writing so that a crash leaves the old state or the new one, never half of either."""

import errno
import os
import re
import shutil
import sys
import time
from pathlib import Path
from uuid import uuid4

PATIENCE = 40
"""Attempts at a rename where readers may hold what is renamed."""

LONGEST_KEPT = 100
"""Bytes of a name that its temporary name repeats."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")


def fsync_dir(path: Path) -> None:
    """Make renames inside a directory survive a power loss, where the platform and the file system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and force it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        if sys.platform == "darwin":
            # There, fsync stops at the drive's cache.
            import fcntl

            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
        else:
            os.fsync(file.fileno())


def moved(source: Path, target: Path) -> None:
    """Rename, taking the place of a file; on Windows once no reader holds it open any more."""
    for left in reversed(range(PATIENCE if os.name == "nt" else 1)):
        try:
            source.replace(target)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(0.05)


def replace_file(path: Path, data: bytes) -> None:
    """Put ``data`` in place of a file: readers see the old bytes or the new ones."""
    temporary = temporary_beside(path)
    try:
        write_file(temporary, data)
        moved(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def put_directory(path: Path, files: dict[str, bytes]) -> None:
    """Make a directory of files, written in this order; it comes into sight whole. None of that name may be there."""
    temporary = temporary_beside(path)
    try:
        temporary.mkdir()
        for name, data in files.items():
            write_file(temporary / name, data)
        fsync_dir(temporary)
        moved(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_dir(path.parent)


def temporary_beside(path: Path) -> Path:
    """A hidden name on the same file system, which no reader looks at and `sweep` recognises.

    It fits wherever the name itself does: only names that are much longer than those in the registry are replaced.
    """
    name = path.name if len(os.fsencode(path.name)) <= LONGEST_KEPT else "file"
    return path.with_name(f".{name}.{uuid4().hex[:8]}.tmp")


def remove_tree(path: Path) -> None:
    """Delete a directory: first out of sight by one rename, then piece by piece."""
    trash = temporary_beside(path)
    moved(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def name_of_temporary(path: Path) -> str | None:
    """What a temporary name was made beside; None for any other name."""
    match = _TEMPORARY.fullmatch(path.name)
    return match["name"] if match else None


def temporaries(parent: Path, name: str | None = None) -> list[Path]:
    """What crashes left under temporary names: those for ``name``, or all of them."""
    found = ((path, name_of_temporary(path)) for path in parent.glob(".*.tmp"))
    return sorted(path for path, made_for in found if made_for and name in (None, made_for))


def sweep(parent: Path, name: str | None = None) -> None:
    """Remove what `temporaries` finds."""
    for leftover in temporaries(parent, name):
        discard(leftover)


def discard(path: Path) -> None:
    """Remove a file or a directory that nobody looks at, as far as that goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes in a file, or in all files under a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
