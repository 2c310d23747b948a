"""The loader of all checkpoints."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmctl.errors import CheckpointError
from ddpmctl.labels import is_displayable
from ddpmctl.registry.manifest import MAX_BYTES, FileRecord, Manifest, checksum_of

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "weights.safetensors"
STATE = "state.safetensors"
HISTORY = "history.csv"
MANIFEST = "manifest.json"

PREVIEWS, PREVIEW_STEP_NUMBERS = "previews.images", "previews.steps"
"""Arrays in the training state, not needed to resume: images sampled from the same noise during training,
uint8[N,K,S,S] or [N,K,S,S,3], and the steps they were sampled at, int64[N]."""

_DTYPES = {PREVIEWS: "uint8", PREVIEW_STEP_NUMBERS: "int64"}

MSE_COLUMNS = ("train_mse", "validation_mse")
"""Columns of the history that are drawn as curves."""


class CheckpointRemoved(CheckpointError):
    """A checkpoint was removed while it was read: a newer one replaced it, or the model was removed."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint of a model: its manifest is valid, and its files have the right sizes.

    Attributes:
        name: of the model; the path if it was opened by path.
        path: the directory of the checkpoint.
        checksum: of the manifest, hexadecimal.
    """

    name: str
    path: Path
    manifest: Manifest
    checksum: str

    @classmethod
    def open(cls, name: str, path: Path) -> "Checkpoint":
        """Open the checkpoint in a directory; raises CheckpointError naming the file that is missing or damaged."""
        manifest, checksum = read_manifest(path / MANIFEST)
        for file, record in manifest.files.items():
            _check_size(path / file, record)
        return cls(name, path, manifest, checksum)

    @property
    def digest(self) -> str:
        """sha256 of the weights, hexadecimal."""
        return self.manifest.files[WEIGHTS].sha256

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(record.size for record in self.manifest.files.values())

    def read(self, file: str) -> bytes:
        """The bytes of one of its files, whose sha256 is checked."""
        record = self.manifest.files[file]
        path = self.path / file
        _check_size(path, record)
        try:
            with path.open("rb") as opened:
                data = opened.read(record.size + 1)
        except OSError as error:
            raise unreadable(path, error) from error
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise damaged(path, "its sha256 is not the one in the manifest")
        return data

    def weights(self) -> "dict[str, np.ndarray]":
        """The sampling weights: float32 tensors by name, verified."""
        return self._tensors(WEIGHTS)

    def state(self) -> "dict[str, np.ndarray]":
        """The tensors that resuming needs in addition to the weights, by name, verified."""
        if STATE not in self.manifest.files:
            raise CheckpointError(
                f"'{self.name}' has no training state and cannot be resumed", "train a new model: ddpmctl train"
            )
        return self._tensors(STATE)

    def previews(self) -> "tuple[np.ndarray, list[int]]":
        """The previews drawn during training, uint8[N,K,S,S] or [N,K,S,S,3], and their steps."""
        try:
            return previews_of(self.state())
        except ValueError as error:
            raise damaged(self.path / STATE, str(error)) from error

    def verify(self) -> None:
        """Read and check every byte."""
        if sum(tensor.size for tensor in self.weights().values()) != self.manifest.parameters:
            raise damaged(self.path / WEIGHTS, f"it does not contain {self.manifest.parameters} parameters")
        if STATE in self.manifest.files:
            self.state()
        _ = self.history

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors by name, from the header of the verified weights file."""
        data = self.read(WEIGHTS)
        length = int.from_bytes(data[:8], "little")
        try:
            header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + length])
            _check_displayable(header, self.path / WEIGHTS)
            return {name: tuple(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(self.path / WEIGHTS, "its header does not parse") from error

    def trained_parameters(self) -> int:
        """The number of parameters; the tensors of a Gaussian denoiser are measured and not trained."""
        return sum(math.prod(shape) for name, shape in self.shapes().items() if not name.startswith("gaussian."))

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """One row per epoch, as written, verified."""
        try:
            rows = list(csv.DictReader(io.StringIO(self.read(HISTORY).decode())))
        except (ValueError, csv.Error) as error:
            raise damaged(self.path / HISTORY, str(error)) from error
        for row in rows:
            # A row that is too long has its rest under None, and one that is too short has None for it.
            if None in row or None in row.values():
                raise damaged(self.path / HISTORY, "its rows differ in length")
            _check_displayable([*row, *row.values()], self.path / HISTORY)
            for column in MSE_COLUMNS:
                _check_mse(row.get(column) or "0", self.path / HISTORY)
        return rows

    def _tensors(self, file: str) -> "dict[str, np.ndarray]":
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(self.read(file))
        except (SafetensorError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise damaged(self.path / file, f"it is not a safetensors file: {error}") from error
        _check_displayable(tensors, self.path / file)
        for name, tensor in tensors.items():
            if tensor.dtype != (dtype := _DTYPES.get(name, "float32")):
                raise damaged(self.path / file, f"{name} is not {dtype}")
        return tensors


def previews_of(state: "Mapping[str, np.ndarray]") -> "tuple[np.ndarray, list[int]]":
    """The previews in a training state and their steps, possibly none; raises ValueError if they do not match."""
    import numpy as np

    images = state.get(PREVIEWS, np.empty((0, 0, 0, 0), np.uint8))
    steps = state.get(PREVIEW_STEP_NUMBERS, np.empty(0, np.int64))
    if images.ndim not in (4, 5) or steps.shape != images.shape[:1]:
        raise ValueError("its previews and their steps do not match")
    return images, [int(step) for step in steps]


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """Read and check a manifest and its checksum."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        if not path.parent.exists():
            raise unreadable(path, error) from error
        raise CheckpointError(f"no checkpoint in {path.parent}: {path.name}: {error.strerror}") from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("it is too large")
        text = data.decode()
        return Manifest.from_json(text), checksum_of(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error


def _check_size(path: Path, record: FileRecord) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if size != record.size:
        raise damaged(path, f"it has {size} bytes and should have {record.size}")


def _check_displayable(texts: Iterable[str], path: Path) -> None:
    """Reject control characters in names of tensors and cells, which are printed."""
    if not all(map(is_displayable, texts)):
        raise damaged(path, "it contains characters that cannot be displayed")


def _check_mse(cell: str, path: Path) -> None:
    try:
        number = float(cell)
    except ValueError as error:
        raise damaged(path, f"'{cell}' is not a number") from error
    if not (number >= 0 and math.isfinite(number)):
        raise damaged(path, f"{cell} is not a mean squared error")


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file that cannot be read."""
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        return CheckpointRemoved(
            f"{path.parent} was removed or replaced while it was being read", "run the command again"
        )
    return damaged(path, str(error.strerror))


def damaged(path: Path, why: str) -> CheckpointError:
    """The error for a damaged file."""
    return CheckpointError(
        f"damaged checkpoint: {path}: {why}",
        "choose another model (ddpmctl models) or train it again (ddpmctl train)",
    )
