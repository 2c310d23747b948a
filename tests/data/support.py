"""A small MNIST: the real file names, with 30 synthetic digits in each file."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddpmctl.data import load_dataset, strokes
from ddpmctl.data.dataset import Dataset, resized
from ddpmctl.errors import DataError, ExitCode
from tests.builders import DIGITS

COUNT = 30
HINT = "pass the folder that contains MNIST/raw as data_dir='DIR', or use dataset='strokes', which needs no files"
TRAIN_IMAGES = "train-images-idx3-ubyte"


def idx(array: NDArray[Any]) -> bytes:
    """An array of bytes in the format of MNIST's files."""
    data = array.astype(np.uint8)
    return struct.pack(f">HBB{data.ndim}I", 0, 8, data.ndim, *data.shape) + data.tobytes()


def small_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for seed, part in enumerate(("train", "t10k")):
        images, labels = strokes.draw(COUNT, seed)
        files |= {f"{part}-images-idx3-ubyte": idx(images), f"{part}-labels-idx1-ubyte": idx(labels)}
    return files


def write_mnist(root: Path, files: dict[str, bytes]) -> Path:
    """Lay files out as MNIST is; returns ``root``."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, data in files.items():
        (raw / name).write_bytes(data)
    return root


def check_is_small_mnist(data: Dataset, size: int = 32, *, train: bool = True) -> None:
    images, labels = strokes.draw(COUNT, seed=0 if train else 1)
    assert data.name == "mnist"
    assert data.classes == DIGITS
    assert data.images.equal(resized(torch.from_numpy(images)[:, None], size))
    assert data.labels.equal(torch.from_numpy(labels))
    assert data.labels.dtype == torch.int64


def refusal(**settings: Any) -> DataError:
    """How asking for MNIST fails."""
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", 32, **settings)
    assert caught.value.hint == HINT
    assert caught.value.exit_code == ExitCode.FAILED
    return caught.value


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Time and size of everything in a folder."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [root, *root.rglob("*")]}
