"""Checkpoints of the original scripts, as models of today."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import assembly
from .config import load_preset
from .data.dataset import DIGITS
from .errors import CheckpointError, DdpmctlError
from .registry import DatasetRecord, Manifest, Registry, RunRecord
from .training.history import to_csv
from .training.records import new_id, now
from .versions import versions

MOST_BYTES = 200_000_000
"""The weights take 26 MB; no such file comes near this."""

RENAMED = {"label_embedding": "embedding.label", "embedding_projector": "projection", "final_out": "output"}
"""Parts of the network that are called otherwise today; the others have kept their names."""

HINT = "it is to hold {'state_dict': .., 'metadata': ..} of the original network"


def import_original(registry: Registry, path: Path, name: str | None) -> str:
    """Take a checkpoint of the original scripts into the registry, as a `classic` model.

    The file is read with torch's ``weights_only``: tensors and plain values, and no code.

    Args:
        registry: where to.
        path: of the file.
        name: for the model; None for a made-up one.

    Returns:
        The name of the model.

    Raises:
        CheckpointError: when the file is not such a checkpoint; nothing is left then.
        UsageError: for a bad or taken name.
    """
    weights, metadata = read_original(path)
    config = load_preset("classic").config
    told = {f"original {key}": str(metadata[key])[:100] for key in ("creator", "version") if key in metadata}
    with registry.writer(name, "original", hint="choose another --name") as writer:
        writer.commit(
            weights,
            to_csv([]),
            lambda files: Manifest(
                created=now(),
                preset="classic",
                config=config,
                classes=_classes(metadata),
                # What it was trained on, and for how long, is not told.
                dataset=DatasetRecord(name="mnist", digest="", count=0, fit=""),
                run=RunRecord(
                    id=new_id(), step=0, planned_steps=0, epochs=0, images=0, seconds=0.0, seed=0, device="not told",
                    precision="fp32", threads=0, stopped="done", max_time=0.0, accumulate=1, compiled=False,
                    segments=(),
                ),
                metric=None,
                best=None,
                resume=None,
                parameters=sum(array.size for array in weights.values()),
                versions={**versions(), **told},
                files=files,
            ),
            best=True,
        )  # fmt: skip
        return writer.name


def read_original(path: Path) -> tuple[dict[str, np.ndarray], dict[Any, Any]]:
    """The weights under today's names, float32, and what else the file tells.

    Raises:
        CheckpointError: when the file does not hold the original network.
    """
    held = _loaded(path)
    if not isinstance(held, dict) or not isinstance(held.get("state_dict"), dict):
        raise CheckpointError(f"{path} is no checkpoint of the original scripts: it holds no state_dict", HINT)
    metadata = held.get("metadata")
    found = {_today(str(key)): tensor for key, tensor in held["state_dict"].items()}
    wanted = assembly.build_network(load_preset("classic").config.model).state_dict()
    missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or surplus:
        which = f"{missing[0]} is missing" if missing else f"{surplus[0]} is none of its parts"
        raise CheckpointError(f"{path} holds another network than the original: {which}", HINT)
    weights = {}
    for key, like in wanted.items():
        tensor = found[key]
        if not isinstance(tensor, Tensor) or tensor.shape != like.shape or not tensor.is_floating_point():
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(
                f"{path} holds another network than the original: {key} is {shape} and not {tuple(like.shape)}", HINT
            )
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path} is damaged: {key} holds what is no number", HINT)
        weights[key] = np.ascontiguousarray(tensor.to(torch.float32).numpy())
    return weights, metadata if isinstance(metadata, dict) else {}


def _loaded(path: Path) -> Any:
    """Whatever the file holds, by torch's loader of plain values."""
    try:
        if _unpacked_size(path) > MOST_BYTES:
            raise CheckpointError(f"{path} is no checkpoint of the original scripts: it is far too large", HINT)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}", HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", HINT) from error
    except DdpmctlError:
        raise
    except Exception as error:  # there is no end to what a file that is something else makes a reader raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is no checkpoint of the original scripts: {reason}", HINT) from error


def _unpacked_size(path: Path) -> int:
    """Bytes that the file may grow to when it is read."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return size
    with zipfile.ZipFile(path) as archive:
        return size + sum(member.file_size for member in archive.infolist() if member.compress_type)


def _today(key: str) -> str:
    part, dot, rest = key.partition(".")
    return f"{RENAMED.get(part, part)}{dot}{rest}"


def _classes(metadata: dict[Any, Any]) -> tuple[str, ...]:
    """The names of the labels, where ten different ones are told."""
    told = metadata.get("classes")
    names = [str(told.get(k, "")) for k in range(len(DIGITS))] if isinstance(told, dict) else []
    different = len({name.casefold() for name in names if name}) == len(DIGITS)
    return tuple(name[:64] for name in names) if different else DIGITS
