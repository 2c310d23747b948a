"""Reads the files of published datasets, whose checksums were checked."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpmctl.data.downloads import open_file
from ddpmctl.data.sources import Source
from ddpmctl.imports import load_scipy_io

Arrays = tuple[NDArray[np.uint8], NDArray[Any]]
"""Images [N,C,H,W] and labels [N]."""

IDX_TYPES = {8: ">u1", 12: ">i4"}
"""NumPy's types by the code in an IDX file; others do not occur in these datasets."""


def check_readable(source: Source) -> None:
    """Raise an error if a package that reads the files of a dataset is not installed."""
    if source.format == "svhn":
        load_scipy_io()


def read_source(source: Source, folder: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """The images uint8[N,C,H,W] and the class indices int64[N] of one part of a dataset."""
    reader = {"idx": _read_idx, "cifar": _read_cifar, "svhn": _read_svhn}[source.format]
    images, labels = reader(folder, source.train if train else source.test)
    if source.transposed:
        images = images.swapaxes(-1, -2)
    indices = labels.astype(np.int64) - source.first_label
    return torch.from_numpy(np.array(images, order="C")), torch.from_numpy(indices)


def _read_idx(folder: Path, names: tuple[str, ...]) -> Arrays:
    images, labels = (parse_idx(_read_bytes(folder, name)) for name in names)
    # Of QMNIST's eight columns of labels, the first is the digit.
    return images[:, None], labels if labels.ndim == 1 else labels[:, 0]


def parse_idx(data: bytes) -> NDArray[Any]:
    """An array in IDX format: two zero bytes, type, number of dimensions, their sizes, values; all big-endian."""
    shape = np.frombuffer(data, ">u4", data[3], 4)
    return np.frombuffer(data, IDX_TYPES[data[2]], offset=4 + 4 * data[3]).reshape(shape)


def _read_bytes(folder: Path, name: str) -> bytes:
    """The content of ``x``, also of ``x.gz``, or of the member ``y`` of ``x.zip/y``."""
    archive, _, member = name.partition("/")
    if member:
        with zipfile.ZipFile(folder / archive) as opened:
            return gzip.decompress(opened.read(member))
    with open_file(folder / name) as file:
        data = file.read()
    return gzip.decompress(data) if name.endswith(".gz") else data


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers, text, numbers and NumPy's arrays; whatever else a pickle names is refused."""

    ALLOWED = {  # noqa: RUF012  as the base class declares its tables
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"a pickle of arrays cannot contain {module}.{name}") from None


def _read_cifar(folder: Path, names: tuple[str, ...]) -> Arrays:
    # latin1 is NumPy's encoding of the arrays that Python 2 pickled.
    batches = [_ArrayUnpickler(io.BytesIO((folder / name).read_bytes()), encoding="latin1").load() for name in names]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([batch["labels"] for batch in batches])


def _read_svhn(folder: Path, names: tuple[str, ...]) -> Arrays:
    (name,) = names
    values = load_scipy_io().loadmat(folder / name, variable_names=("X", "y"))
    return values["X"].transpose(3, 2, 0, 1), values["y"][:, 0] % 10  # there the digit 0 has the label 10
