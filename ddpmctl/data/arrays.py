"""Arrays of images and labels as a dataset: an ``.npz`` file, or a folder of shards of ``generate --all``."""

import math
import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ddpmctl.config import NUM_CLASSES
from ddpmctl.data.dataset import Dataset, resized
from ddpmctl.data.layout import TEST_EVERY
from ddpmctl.data.report import LoadReport, byte_count, counted
from ddpmctl.errors import DataError

FORM = "an archive has images uint8[N,H,H] or [N,H,H,3], labels int[N], and optionally classes, the names by label"
SAVE = "numpy.savez_compressed('FILE.npz', images=images, labels=labels)"
UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, SyntaxError, TokenError,
)  # fmt: skip
"""What zipfile and NumPy raise for a file that is damaged or of another format."""

_SHARD = re.compile(r"shard-(\d{5})-of-(\d{5})\.npz")


@dataclass(frozen=True, slots=True)
class _Archive:
    """An ``.npz`` file whose headers were checked; nothing else of it was read."""

    path: Path
    shape: tuple[int, ...]
    """Of the images: [N,H,H] or [N,H,H,3]."""
    size: int
    """Bytes of all arrays."""
    named: bool
    """Whether it has names of the classes."""

    @classmethod
    def open(cls, path: Path) -> Self:
        headers = _read_headers(path)
        if missing := {"images", "labels"} - headers.keys():
            present = ", ".join(headers) or "nothing"
            raise DataError(f"{path} contains no array '{min(missing)}', only {present}", f"save one: {SAVE}")
        (shape, dtype), (length, kind) = headers["images"], headers["labels"]
        if dtype != np.uint8:
            hint = "scale black to 0 and white to 255, and convert: images.astype('uint8')"
            raise DataError(f"{path}: images has the type {dtype}, not uint8", hint)
        if len(shape) not in (3, 4) or shape[1] != shape[2] or shape[3:] not in ((), (3,)) or 0 in shape:
            raise DataError(f"{path}: images has the shape {shape}, not [N,H,H] or [N,H,H,3]", _shape_hint(shape))
        if kind.kind not in "iu" or length != shape[:1]:
            raise DataError(
                f"{path}: labels has the type {kind} and the shape {length}, not {shape[0]:,} integers", FORM
            )
        length, kind = headers.get("classes", ((0,), np.dtype("U1")))
        if kind.kind != "U" or len(length) != 1:
            raise DataError(f"{path}: classes has the type {kind} and the shape {length}, not a list of text", FORM)
        size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values())
        return cls(path, shape, size, "classes" in headers)

    def labels(self) -> NDArray[np.int64]:
        """The labels of its images."""
        labels = _read(self.path, "labels").astype(np.int64)
        if labels.min() < 0:
            raise DataError(f"{self.path}: labels contains {labels.min()}", "number the classes from 0")
        return labels

    def classes(self) -> tuple[str, ...]:
        """The names of its classes by label; empty if it has none."""
        return tuple(map(str, _read(self.path, "classes"))) if self.named else ()


def load_arrays(path: Path, size: int, *, train: bool = True, report: LoadReport | None = None) -> Dataset:
    """The images of an archive or of a folder of shards; every tenth image of a class is kept for evaluation.

    A label that no image has is not a class. Classes without names are named by their labels.
    """
    archives = [_Archive.open(file) for file in _find_files(path)]
    if different := [other for other in archives if other.shape[1:] != archives[0].shape[1:]]:
        raise DataError(f"{different[0].path} has images of another shape than the first shard", "use one job")
    _check_memory(path, archives, size)
    labels, names = np.concatenate([archive.labels() for archive in archives]), archives[0].classes()
    present, indices = np.unique(labels, return_inverse=True)
    if names and present[-1] >= len(names):
        raise DataError(f"{path}: the label {present[-1]} has no name, classes has {len(names)}", FORM)
    if len(present) not in NUM_CLASSES:
        raise DataError(f"{path} has {len(present):,} different labels, more than {NUM_CLASSES.high:,}", "use fewer")
    if report and (absent := [name for label, name in enumerate(names) if label not in present]):
        report.remark(f"there are no images of {', '.join(absent)}, which are not classes of this dataset")
    kept = _numbers_in_class(indices) % TEST_EVERY == TEST_EVERY - 1
    chosen = ~kept if train else kept
    if not chosen.any():
        raise DataError(f"{path} contains no test images", f"provide at least {TEST_EVERY} images of a class")
    return Dataset(
        f"arrays:{path}",
        _read_images(archives, chosen, size),
        torch.from_numpy(indices[chosen].astype(np.int64)),
        tuple(names[label] if names else str(label) for label in present),
    )


def _find_files(path: Path) -> list[Path]:
    """The archive itself, or all shards of a folder in their order."""
    if not path.is_dir():
        return [path]
    try:
        found = {match[0]: int(match[2]) for file in path.iterdir() if (match := _SHARD.fullmatch(file.name))}
    except OSError as error:
        raise DataError(f"the folder {path} cannot be read: {error.strerror}", "use another folder") from error
    if not found:
        raise DataError(f"{path} contains no shards of 'generate --all'", f"for a folder of images: folder:{path}")
    count = max(found.values())
    names = [f"shard-{shard:05d}-of-{count:05d}.npz" for shard in range(count)]
    if missing := set(names) - found.keys():
        raise DataError(
            f"{len(missing):,} of {count:,} shards are missing in {path}",
            f"generate them: ddpmctl generate --all -o '{path}'",
        )
    if others := found.keys() - set(names):
        raise DataError(f"{path}/{min(others)} is of another job", "remove it")
    return [path / name for name in names]


def _read_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array, with the members as long as their headers say."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
                    length = file.tell() + math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and member.file_size != length:
                    raise ValueError(f"{member.filename} is truncated")
                found[member.filename.removesuffix(".npy")] = shape, dtype
    except FileNotFoundError as error:
        raise DataError(f"the file {path} does not exist", FORM) from error
    except UNREADABLE as error:
        raise DataError(f"{path} is not a valid .npz archive: {error}", FORM) from error
    return found


def _shape_hint(shape: tuple[int, ...]) -> str:
    """How images of another shape are brought into the right one."""
    if len(shape) == 4 and shape[1] in (1, 3) and shape[2] == shape[3]:
        return "images[:, 0]" if shape[1] == 1 else "move the colours to the end: images.transpose(0, 2, 3, 1)"
    if len(shape) == 4 and shape[1:] == (shape[1], shape[1], 1):
        return "images[..., 0]"
    return FORM


def _read(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive[name]
    except UNREADABLE as error:
        raise DataError(f"{path} is damaged: {error}", "restore the file") from error
    return array


def _numbers_in_class(indices: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each image, how many images of its class precede it."""
    order = np.argsort(indices, kind="stable")
    starts = np.searchsorted(indices[order], indices[order])
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(order)) - starts
    return numbers


def _read_images(archives: list[_Archive], chosen: NDArray[np.bool_], size: int) -> torch.Tensor:
    """The chosen images of all archives as uint8[N,C,size,size], one archive in memory at a time."""
    images = torch.empty(int(chosen.sum()), _depth(archives), size, size, dtype=torch.uint8)
    start = filled = 0
    for archive in archives:
        pixels = _read(archive.path, "images")[chosen[start : start + archive.shape[0]]]
        planes = torch.from_numpy(pixels.reshape(*pixels.shape[:3], -1)).permute(0, 3, 1, 2)
        if len(planes):
            images[filled : filled + len(planes)] = resized(planes, size)
        start, filled = start + archive.shape[0], filled + len(planes)
    return images


def _depth(archives: list[_Archive]) -> int:
    return 3 if len(archives[0].shape) == 4 else 1


def _check_memory(path: Path, archives: list[_Archive], size: int) -> None:
    """Refuse what does not fit: the images once more for their division, and the largest archive."""
    count, side = sum(archive.shape[0] for archive in archives), archives[0].shape[1]
    needed = 2 * (count * _depth(archives) * size**2 + max(archive.size for archive in archives))
    if needed > (available := available_memory()):
        raise DataError(
            f"{path} contains {counted(count, 'image', 'images')} of {side}x{side} pixels: they need "
            f"{byte_count(needed)} of memory, and {byte_count(available)} are available",
            "use fewer or smaller images",
        )


def available_memory() -> int:
    """Bytes of memory that can be used without swapping; where that is unknown, all that is installed."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 2**63
