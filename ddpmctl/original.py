"""Checkpoints of the original scripts, imported as models of the `classic` preset."""

import logging
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpmctl.build import build_network
from ddpmctl.config import load_preset
from ddpmctl.data.sources import DIGITS
from ddpmctl.errors import CheckpointError, DdpmctlError
from ddpmctl.labels import class_names_problem, is_displayable
from ddpmctl.registry import DatasetRecord, Manifest, Registry, RunRecord
from ddpmctl.registry.writer import OTHER_NAME
from ddpmctl.training.history import to_csv
from ddpmctl.training.records import new_id, now
from ddpmctl.versions import versions

log = logging.getLogger("ddpmctl")

MAX_BYTES = 200_000_000
"""The float32 weights take 26 MB; with an optimizer's state, or in float64, a file stays below this."""

MAX_CHARACTERS = 64
"""Of a class name."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of tensor names by DataParallel and torch.compile."""

FORMAT = "expected the original network: torch.save({'state_dict': .., 'metadata': {'classes': {0: 'zero', ..}}}, FILE)"


def import_original(registry: Registry, path: Path, name: str | None) -> str:
    """Import a checkpoint of the original scripts as a `classic` model and return its name.

    The file is read with torch's ``weights_only``: tensors and plain values, and no code. What is assumed because
    it is not recorded is logged as a warning. Without ``name`` one is generated.
    """
    weights, metadata = read_original(path)
    try:
        classes = _class_names(metadata.get("classes"))
    except ValueError as error:
        hint = "correct metadata['classes'] in the file: {0: 'zero', 1: 'one', .., 9: 'nine'}"
        raise _refusal(path, str(error), hint) from error
    if classes is None:
        log.warning("%s has no class names: assuming %s", path, ", ".join(DIGITS))
        classes = DIGITS
    recorded = {f"original {key}": _line(metadata.get(key)) for key in ("creator", "version")}
    with registry.writer(name, "original", hint=OTHER_NAME) as writer:
        writer.save(
            weights,
            to_csv([]),
            lambda files: Manifest(
                created=now(),
                preset="classic",
                config=load_preset("classic").config,
                classes=classes,
                # The file does not record the dataset and the training history.
                dataset=DatasetRecord(name="mnist", digest="", count=0, fit=""),
                run=RunRecord(
                    id=new_id(), step=0, planned_steps=0, epochs=0, images=0, seconds=0.0, seed=0, device="unknown",
                    precision="fp32", threads=0, stopped="done", max_time=0.0, accumulate=1, compiled=False,
                    segments=(),
                ),
                metric=None,
                best=None,
                resume=None,
                parameters=sum(array.size for array in weights.values()),
                versions={**versions(), **{key: line for key, line in recorded.items() if line}},
                files=files,
            ),
            best=True,
        )  # fmt: skip
        return writer.name


def read_original(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, object]]:
    """The weights of the original network, float32 by name, and the metadata of its file.

    A bare state_dict is also accepted, as are additional entries next to ``state_dict``.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise _refusal(path, f"it contains a {type(content).__name__}, not a state_dict")
    state, metadata = content.get("state_dict", content), content.get("metadata")
    if not isinstance(state, Mapping):
        raise _refusal(path, f"its state_dict is a {type(state).__name__}, not a dict")
    if state is content and not any(isinstance(value, Tensor) for value in content.values()):
        raise _refusal(path, "it contains no state_dict")
    try:
        return to_weights(state), metadata if isinstance(metadata, Mapping) else {}
    except ValueError as error:
        raise _refusal(path, str(error), _hint(state)) from error


def to_weights(state: Mapping[str, object]) -> dict[str, np.ndarray]:
    """The weights in a state_dict of the original network, float32 by name."""
    found = _unwrapped(state)
    with torch.device("meta"):  # names and shapes alone
        expected = build_network(load_preset("classic").config).state_dict()
    missing, surplus = [key for key in expected if key not in found], [key for key in found if key not in expected]
    if missing:
        raise ValueError(f"the tensor {missing[0]} is missing")
    if surplus:
        raise ValueError(f"'{_line(surplus[0])}' is not a tensor of the original network")
    return {key: _float32(key, found[key], tuple(like.shape)) for key, like in expected.items()}


def _float32(name: str, tensor: object, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} is a {type(tensor).__name__}, expected a tensor of shape {shape}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, expected float32")
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"{name} is not a dense tensor with values")
    values = np.ascontiguousarray(tensor.detach().to(torch.float32).numpy())
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains values that are not finite in float32")
    return values


def _unwrapped(state: Mapping[str, object]) -> dict[str, object]:
    """The tensors by the names that they have in the network itself."""
    found = {str(key): value for key, value in state.items()}
    for wrapper in (*WRAPPERS, *WRAPPERS):  # compiled and parallel, in either order
        if all(key.startswith(wrapper) for key in found):
            found = {key.removeprefix(wrapper): value for key, value in found.items()}
    return found


def _hint(state: Mapping[str, object]) -> str:
    """The hint for a state_dict of a different network."""
    found = _unwrapped(state)
    shapes = [getattr(found.get(f"{part}.weight"), "shape", ())[:2] for part in ("up1", "up3")]
    if shapes == [(64, 64), (512, 256)]:
        return "up1 and up3 are swapped: up1 is the deepest upsampling (512 to 256 channels), up3 the last (64 to 64)"
    return FORMAT


def _load(path: Path) -> Any:
    """The content of the file: tensors and plain values in any structure."""
    try:
        if _unpacked_size(path) > MAX_BYTES:
            raise _refusal(path, f"it unpacks to more than {MAX_BYTES // 10**6} MB")
        with warnings.catch_warnings(action="ignore"):  # irrelevant here: the content is validated below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", FORMAT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", FORMAT) from error
    except DdpmctlError:
        raise
    except Exception as error:  # a file of another format makes torch raise almost anything
        raise _refusal(path, _load_problem(error)) from error


def _load_problem(error: Exception) -> str:
    """The error of torch without its advice to load the file unsafely."""
    message = str(error).strip()
    match = re.search(r"GLOBAL ([\w.]{1,100})", message)
    if match:
        return f"it contains a Python object ({match[1]}); only tensors and plain values are loaded"
    if message.startswith("Weights only load failed"):
        return "it is not a torch.save file that contains only tensors and plain values"
    first, *_ = message.splitlines() or [""]
    return f"torch cannot load it: {_line(first) or type(error).__name__}"


def _unpacked_size(path: Path) -> int:
    """The size of the file after decompression in bytes."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return size
    with zipfile.ZipFile(path) as archive:
        return size + sum(member.file_size for member in archive.infolist() if member.compress_type)


def _class_names(table: object) -> tuple[str, ...] | None:
    """The class names by index, from a dict with int or str keys or from a sequence; None if there are none."""
    if table is None:
        return None
    if isinstance(table, (list, tuple)):
        table = dict(enumerate(table))
    if not isinstance(table, Mapping):
        raise ValueError(f"its table of classes is a {type(table).__name__}, expected a dict from index to name")
    if len(table) != len(DIGITS):
        raise ValueError(f"its table of classes has {len(table)} entries, expected {len(DIGITS)}")
    names = []
    for index in range(len(DIGITS)):
        if index not in table and str(index) not in table:
            raise ValueError(f"its table of classes has no entry for index {index}")
        name = _text(table.get(index, table.get(str(index))))
        if name is None or len(name) > MAX_CHARACTERS:
            raise ValueError(f"class {index} has no name of at most {MAX_CHARACTERS} characters")
        names.append(name)
    problem = class_names_problem(names)
    if problem:
        raise ValueError(problem)
    return tuple(names)


def _text(value: object) -> str | None:
    """A string, or a number in decimal; None for anything else and for very long numbers."""
    short = isinstance(value, float) or (type(value) is int and abs(value) < 10**18)
    return str(value) if isinstance(value, str) or short else None


def _line(value: object) -> str:
    """A value of the file, human-readable: one line of at most 100 characters that can be displayed."""
    text = (_text(value) or "").strip()[:100]
    return "".join(char if is_displayable(char) else "\ufffd" for char in text)


def _refusal(path: Path, why: str, hint: str = FORMAT) -> CheckpointError:
    return CheckpointError(f"{path} cannot be imported: {why}", hint)
