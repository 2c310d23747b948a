"""Image files: paths are checked before sampling; files are written atomically."""

import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddpmctl.durable import replace_file
from ddpmctl.errors import UsageError
from ddpmctl.imaging.provenance import KEY, Provenance, saved_with
from ddpmctl.imaging.upscale import Images
from ddpmctl.paths import check_writable

LONGEST_STEM = 100
"""Maximum bytes of a default name; some file systems allow 143 in total."""


def check_target(path: Path, suffixes: Iterable[str]) -> None:
    """Check that a file with one of these suffixes can be written, before sampling."""
    check_suffix(path, suffixes)
    check_writable(path)


def check_suffix(path: Path, suffixes: Iterable[str]) -> None:
    """Check that a path that is not a folder has one of these suffixes."""
    known = list(suffixes)
    if path.suffix.lower() not in known and not os.path.isdir(path):  # noqa: PTH112  a name may be too long
        raise UsageError(f"'{path}' has an unsupported file extension", f"use {' or '.join(known)}")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically; special files are written to directly."""
    path = path.resolve()  # a link is written through, as cp does
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    replace_file(path, data, sync=False)


def free_path(path: Path) -> Path:
    """``path``, with the first unused number appended if it exists: a default name never overwrites."""
    number = 1
    candidate = path
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def numbered_paths(path: Path, count: int, *, fresh: bool) -> list[Path]:
    """``count`` paths ``stem-1.png``, ``stem-2.png``, ..; starting after the existing ones if fresh."""
    first = 1
    if fresh:
        taken = re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}")
        present = path.parent.iterdir() if path.parent.is_dir() else ()
        found = [int(match[1]) for entry in present if (match := taken.fullmatch(entry.name))]
        first = max(found, default=0) + 1
    width = len(str(first + count - 1))
    return [path.with_name(f"{path.stem}-{number:0{width}d}{path.suffix}") for number in range(first, first + count)]


def safe_stem(name: str) -> str:
    """A class name as a part of a file name, truncated to leave room for a number and a suffix."""
    stem = re.sub(r"[^\w.-]+", "-", name)
    return stem.encode()[:LONGEST_STEM].decode(errors="ignore").strip("-.") or "image"


def png(image: Images, provenance: Provenance | None = None) -> bytes:
    """uint8[H,W] or uint8[H,W,3] as a PNG with its provenance."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", **saved_with(".png", provenance))
    return data.getvalue()


def npz(
    images: Images,
    labels: Sequence[int],
    seeds: Sequence[int],
    classes: Sequence[str],
    provenance: Provenance | None = None,
) -> bytes:
    """Images uint8[N,..], labels int64[N], seeds int64[N] and the names by label as a compressed NumPy archive."""
    data = io.BytesIO()
    arrays: dict[str, Any] = {"labels": np.array(labels, np.int64), "seeds": np.array(seeds, np.int64)}
    arrays["classes"] = np.array(classes, np.str_)
    if provenance:
        arrays[KEY] = np.array(provenance.to_json())
    np.savez_compressed(data, images=images, **arrays)
    return data.getvalue()
