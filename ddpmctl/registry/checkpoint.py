"""The one loader: every command that reads a model comes through here."""

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmctl.errors import CheckpointError

from .manifest import MAX_BYTES, FileRecord, Manifest

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "weights.safetensors"
HISTORY = "history.csv"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """One commit of a model, opened: its manifest is read and valid, its files have the right sizes.

    Attributes:
        name: of the model; the path where it was opened by path.
        path: the directory of the commit.
        manifest: what is known about it.
    """

    name: str
    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, name: str, path: Path) -> "Checkpoint":
        """Open the commit in a directory.

        Raises:
            CheckpointError: when it is missing, no checkpoint or damaged, naming the file.
        """
        manifest = read_manifest(path / MANIFEST)
        for file, record in manifest.files.items():
            _check_size(path / file, record)
        return cls(name, path, manifest)

    def read(self, file: str) -> bytes:
        """The bytes of one of its files, checked against the manifest.

        Raises:
            CheckpointError: when a single bit differs.
        """
        record = self.manifest.files[file]
        path = self.path / file
        _check_size(path, record)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _damaged(path, str(error.strerror)) from error
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise _damaged(path, "its sha256 is not the one in the manifest")
        return data

    def weights(self) -> "dict[str, np.ndarray]":
        """Tensors by name, float32, verified."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return load(self.read(WEIGHTS))
        except SafetensorError as error:
            raise _damaged(self.path / WEIGHTS, str(error)) from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors by name, from the header of the verified weights file."""
        data = self.read(WEIGHTS)
        length = int.from_bytes(data[:8], "little")
        try:
            header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + length])
            return {name: tuple(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(self.path / WEIGHTS, "its header does not parse") from error

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """A row an epoch, as written, verified."""
        return list(csv.DictReader(io.StringIO(self.read(HISTORY).decode())))

    @property
    def digest(self) -> str:
        """sha256 of the weights, hexadecimal."""
        return self.manifest.files[WEIGHTS].sha256


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        CheckpointError: when it is missing or does not hold what it must.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"no checkpoint in {path.parent}: {path.name}: {error.strerror}") from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("it is far too large")
        return Manifest.from_json(data.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _check_size(path: Path, record: FileRecord) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from error
    if size != record.size:
        raise _damaged(path, f"it has {size} bytes and should have {record.size}")


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"damaged checkpoint: {path}: {why}",
        "choose another model (ddpmctl models) or train it again (ddpmctl train)",
    )
