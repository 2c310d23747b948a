"""Pictures as files: checked before the work, written whole or not at all."""

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from PIL import Image

from ddpmctl.errors import DdpmctlError, UsageError

from .provenance import KEY, Provenance, saved_with
from .upscale import Images


def check_target(path: Path, suffixes: Iterable[str]) -> None:
    """See that a file can be written, before the work that fills it.

    Args:
        path: the file.
        suffixes: those that are known, with their dots.

    Raises:
        UsageError: for another suffix.
        DdpmctlError: for a directory that is missing or cannot be written to.
    """
    known = list(suffixes)
    if path.suffix.lower() not in known:
        raise UsageError(f"'{path}' has no suffix that is known here", f"end it in {' or '.join(known)}")
    if path.is_dir():
        raise DdpmctlError(f"{path} is a directory", "name a file with -o")
    if not path.parent.is_dir():
        raise DdpmctlError(f"the directory {path.parent} does not exist", f"mkdir -p '{path.parent}'")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise DdpmctlError(f"{path} cannot be written: no permission", "name another place with -o")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it never stands half written; what is not a plain file is written to directly."""
    path = path.resolve()  # a link is written through, as cp does
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def free_path(path: Path) -> Path:
    """``path``, or with the first free number appended: a default name never overwrites."""
    number = 1
    candidate = path
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def numbered_paths(path: Path, count: int, *, fresh: bool) -> list[Path]:
    """``count`` paths ``stem-1.png``, ``stem-2.png``, ..; from the first number past all that exist when fresh."""
    first = 1
    if fresh:
        taken = re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}")
        found = [int(match[1]) for entry in path.parent.iterdir() if (match := taken.fullmatch(entry.name))]
        first = max(found, default=0) + 1
    width = len(str(first + count - 1))
    return [path.with_name(f"{path.stem}-{number:0{width}d}{path.suffix}") for number in range(first, first + count)]


def safe_stem(name: str) -> str:
    """A class name as a part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "image"


def png(image: Images, made: Provenance | None = None) -> bytes:
    """uint8[H,W] or uint8[H,W,3] as a PNG that tells how it was made."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", **saved_with(".png", made))
    return data.getvalue()


def npz(images: Images, labels: list[int], seeds: list[int], made: Provenance | None = None) -> bytes:
    """Images uint8[N,..], labels int64[N] and seeds int64[N] as a compressed NumPy archive that tells the same."""
    data = io.BytesIO()
    arrays: dict[str, Any] = {"labels": np.array(labels, np.int64), "seeds": np.array(seeds, np.int64)}
    if made:
        arrays[KEY] = np.array(made.to_json())
    np.savez_compressed(data, images=images, **arrays)
    return data.getvalue()
