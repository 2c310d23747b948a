"""Atomic file operations: a crash leaves the old state or the new one."""

import errno
import os
import re
import shutil
import sys
import time
from pathlib import Path
from uuid import uuid4

RENAME_ATTEMPTS = 40
"""On Windows, where a reader may hold the target open."""

MAX_REPEATED_NAME = 100
"""Bytes of a file name that its temporary name repeats; file systems limit names to 255 bytes, and some to 143."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")


def fsync_dir(path: Path) -> None:
    """Make renames inside a directory survive a power loss, if platform and file system support it."""
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


def write_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a new file and, with ``sync``, fsync it."""
    with path.open("xb") as file:
        file.write(data)
        if not sync:
            return
        file.flush()
        if sys.platform == "darwin":
            # There, fsync stops at the drive's cache.
            import fcntl

            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
        else:
            os.fsync(file.fileno())


def rename(source: Path, target: Path) -> None:
    """Rename, replacing a file; on Windows, once no reader holds it open any more."""
    for left in reversed(range(RENAME_ATTEMPTS if os.name == "nt" else 1)):
        try:
            source.replace(target)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(0.05)


def replace_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that readers see its old bytes or the new ones.

    With ``sync`` it survives a power loss; without, only a crash of the process.
    """
    temporary = temporary_beside(path)
    try:
        write_file(temporary, data, sync=sync)
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        fsync_dir(path.parent)


def create_directory_atomically(path: Path, files: dict[str, bytes]) -> None:
    """Create a directory of files, written in this order, that appears atomically; ``path`` must not exist."""
    temporary = temporary_beside(path)
    try:
        temporary.mkdir()
        for name, data in files.items():
            write_file(temporary / name, data)
        fsync_dir(temporary)
        rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_dir(path.parent)


def temporary_beside(path: Path) -> Path:
    """A hidden name on the same file system, which readers ignore and `remove_temporaries` recognizes."""
    name = path.name if len(os.fsencode(path.name)) <= MAX_REPEATED_NAME else "file"
    return path.with_name(f".{name}.{uuid4().hex[:8]}.tmp")


def remove_tree(path: Path) -> None:
    """Delete a directory; renamed first, so that it disappears atomically."""
    trash = temporary_beside(path)
    rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def name_of_temporary(path: Path) -> str | None:
    """The name that a temporary name was derived from; None for any other name."""
    match = _TEMPORARY.fullmatch(path.name)
    return match["name"] if match else None


def temporaries(parent: Path, name: str | None = None) -> list[Path]:
    """Temporary files and directories left by crashes: those for ``name``, or all of them."""
    found = ((path, name_of_temporary(path)) for path in parent.glob(".*.tmp"))
    return sorted(path for path, original in found if original and name in (None, original))


def remove_temporaries(parent: Path, name: str | None = None) -> None:
    """Remove what `temporaries` finds."""
    for leftover in temporaries(parent, name):
        discard(leftover)


def discard(path: Path) -> None:
    """Remove a file or a directory that nothing refers to, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes in a file, or in all files below a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
