"""Writing so that a crash leaves the old state or the new one, never half of either."""

import os
import re
import shutil
from pathlib import Path
from uuid import uuid4

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")


def fsync_dir(path: Path) -> None:
    """Make renames inside a directory survive a power loss, where the platform can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and force it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Put ``data`` in place of a file: readers see the old bytes or the new ones."""
    temporary = temporary_beside(path)
    try:
        write_file(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def put_directory(path: Path, files: dict[str, bytes]) -> None:
    """Make a directory of files, written in this order; it comes into sight whole, in place of an older one."""
    temporary = temporary_beside(path)
    try:
        temporary.mkdir()
        for name, data in files.items():
            write_file(temporary / name, data)
        fsync_dir(temporary)
        if path.exists():
            remove_tree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_dir(path.parent)


def temporary_beside(path: Path) -> Path:
    """A hidden name on the same file system, which no reader looks at and `sweep` recognises."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")


def remove_tree(path: Path) -> None:
    """Delete a directory: first out of sight by one rename, then piece by piece."""
    trash = temporary_beside(path)
    path.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def sweep(parent: Path, name: str | None = None) -> None:
    """Remove what crashes left under temporary names: those for ``name``, or all of them."""
    for leftover in parent.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(leftover.name)
        if not match or name not in (None, match["name"]):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
