"""The one loader: every command that reads a model comes through here."""

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
"""Arrays in the state of a training: what the network made of the same noise, uint8[N,K,S,S] or [N,K,S,S,3], after so
many steps, int64[N]. Nobody needs them to go on."""


_TYPES = {PREVIEWS: "uint8", PREVIEW_STEP_NUMBERS: "int64"}


FIGURES = ("train_mse", "validation_mse")
"""Columns of the history that are drawn as curves."""


class Vanished(CheckpointError):
    """A commit went away under its reader: a newer one took its place, or the model was removed."""


@dataclass(frozen=True)
class Checkpoint:
    """One commit of a model, opened: its manifest is read and valid, its files have the right sizes.

    Attributes:
        name: of the model; the path where it was opened by path.
        path: the directory of the commit.
        manifest: what is known about it.
        checksum: of the manifest, hexadecimal; empty where it is older than checksums.
    """

    name: str
    path: Path
    manifest: Manifest
    checksum: str = ""

    @classmethod
    def open(cls, name: str, path: Path) -> "Checkpoint":
        """Open the commit in a directory.

        Raises:
            CheckpointError: when it is missing, no checkpoint or damaged, naming the file.
        """
        manifest, checksum = read_manifest(path / MANIFEST)
        for file, record in manifest.files.items():
            _check_size(path / file, record)
        return cls(name, path, manifest, checksum)

    def read(self, file: str) -> bytes:
        """The bytes of one of its files, checked against the manifest.

        Raises:
            CheckpointError: when a single bit differs.
        """
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
        """Tensors by name, float32, verified: what images are made with."""
        return self._tensors(WEIGHTS)

    def state(self) -> "dict[str, np.ndarray]":
        """What the training needs to go on, beside the weights: tensors by name, verified.

        Raises:
            CheckpointError: also where this commit is not one to go on from.
        """
        if STATE not in self.manifest.files:
            raise CheckpointError(
                f"'{self.name}' holds a model and not the state of its training", "train another: ddpmctl train"
            )
        return self._tensors(STATE)

    def verify(self) -> None:
        """Read and check everything there is.

        Raises:
            CheckpointError: naming the first file that is not what it should be.
        """
        if sum(tensor.size for tensor in self.weights().values()) != self.manifest.parameters:
            raise damaged(self.path / WEIGHTS, f"it does not hold {self.manifest.parameters} parameters")
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

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """A row an epoch, as written, verified."""
        try:
            rows = list(csv.DictReader(io.StringIO(self.read(HISTORY).decode())))
        except (ValueError, csv.Error) as error:
            raise damaged(self.path / HISTORY, str(error)) from error
        for row in rows:
            # A row that is too long has its rest under None, and one that is too short has None for it.
            if None in row or None in row.values():
                raise damaged(self.path / HISTORY, "its rows differ in length")
            _check_displayable([*row, *row.values()], self.path / HISTORY)
            for column in FIGURES:
                _check_number(row.get(column) or "0", self.path / HISTORY)
        return rows

    def _tensors(self, file: str) -> "dict[str, np.ndarray]":
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(self.read(file))
        except (SafetensorError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise damaged(self.path / file, f"it is no safetensors file: {error}") from error
        _check_displayable(tensors, self.path / file)
        strange = [name for name, tensor in tensors.items() if tensor.dtype != _TYPES.get(name, "float32")]
        if strange:
            raise damaged(self.path / file, f"{strange[0]} is not {_TYPES.get(strange[0], 'float32')}")
        return tensors

    def previews(self) -> "tuple[np.ndarray, list[int]]":
        """What the network made of the same noise while it learnt: uint8[N,K,S,S] or [N,K,S,S,3], and the steps.

        Raises:
            CheckpointError: where this commit is not one to go on from, or is damaged.
        """
        try:
            return previews_of(self.state())
        except ValueError as error:
            raise damaged(self.path / STATE, str(error)) from error

    @property
    def digest(self) -> str:
        """sha256 of the weights, hexadecimal."""
        return self.manifest.files[WEIGHTS].sha256


def previews_of(state: "Mapping[str, np.ndarray]") -> "tuple[np.ndarray, list[int]]":
    """The strips in the state of a training and their steps; none where it has none.

    Raises:
        ValueError: when they are no strips.
    """
    import numpy as np

    images = state.get(PREVIEWS, np.empty((0, 0, 0, 0), np.uint8))
    steps = state.get(PREVIEW_STEP_NUMBERS, np.empty(0, np.int64))
    if images.ndim not in (4, 5) or steps.shape != images.shape[:1]:
        raise ValueError("its previews do not fit together")
    return images, [int(step) for step in steps]


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """Read and check a manifest; its checksum comes with it, empty where it is older than checksums.

    Raises:
        CheckpointError: when it is missing or does not hold what it must.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        if not path.parent.exists():
            raise unreadable(path, error) from error
        raise CheckpointError(f"no checkpoint in {path.parent}: {path.name}: {error.strerror}") from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("it is far too large")
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
    """Refuse a file of which people would see control characters: names of tensors and cells are printed."""
    if not all(map(is_displayable, texts)):
        raise damaged(path, "it holds characters that cannot be displayed")


def _check_number(cell: str, path: Path) -> None:
    try:
        number = float(cell)
    except ValueError as error:
        raise damaged(path, f"'{cell}' is not a number") from error
    if not (number >= 0 and math.isfinite(number)):
        raise damaged(path, f"{cell} is not a mean squared error")


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """What to say of a file that cannot be read."""
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        return Vanished(f"{path.parent} was removed or replaced while it was being read", "run the command again")
    return damaged(path, str(error.strerror))


def damaged(path: Path, why: str) -> CheckpointError:
    """What to say of a file that is not what it should be."""
    return CheckpointError(
        f"damaged checkpoint: {path}: {why}",
        "choose another model (ddpmctl models) or train it again (ddpmctl train)",
    )
