"""The files ``best`` and ``last`` of a model, each of which names a checkpoint."""

import logging
import re
from pathlib import Path

from ddpmctl.errors import CheckpointError
from ddpmctl.registry.checkpoint import MANIFEST, Checkpoint, CheckpointRemoved

log = logging.getLogger("ddpmctl")

BEST = "best"
LAST = "last"

CHECKPOINT = re.compile(r"[0-9]{8,12}(-[0-9]{1,6})?")
"""The directory name of a checkpoint: its step, and a number if that name was in use."""

POINTER = re.compile(rf"(?P<checkpoint>{CHECKPOINT.pattern}) (?P<checksum>[0-9a-f]{{64}})\n")
"""The content of a pointer: the directory name of a checkpoint and the checksum of its manifest."""


def referenced_checkpoints(model: Path) -> set[str] | None:
    """The checkpoints that a model's pointers name; None if a pointer cannot be read."""
    names = set()
    for path in (model / BEST, model / LAST):
        try:
            match = POINTER.fullmatch(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return None
        if not match:
            return None
        names.add(match["checkpoint"])
    return names


def unreferenced(model: Path) -> list[Path]:
    """The checkpoints in a model's directory that no pointer names; none if a pointer cannot be read."""
    names = referenced_checkpoints(model)
    if names is None:
        return []
    checkpoints = (path for path in model.iterdir() if CHECKPOINT.fullmatch(path.name) and path.is_dir())
    return sorted(checkpoint for checkpoint in checkpoints if checkpoint.name not in names)


def _read_pointer(path: Path) -> tuple[str, str]:
    """The checkpoint that a pointer names, and the checksum of its manifest."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"damaged checkpoint: {path} cannot be read") from error
    match = POINTER.fullmatch(text)
    if not match:
        raise CheckpointError(f"damaged checkpoint: {path} does not name a checkpoint")
    return match["checkpoint"], match["checksum"]


def open_pointer(name: str, model: Path, pointer: str) -> Checkpoint:
    """Open the checkpoint that a pointer of a model names; again if it is replaced meanwhile."""
    path = model / pointer
    while True:
        named, checksum = _read_pointer(path)
        try:
            opened = Checkpoint.open(name, model / named)
        except CheckpointRemoved as error:
            if _read_pointer(path)[0] == named:
                raise CheckpointError(f"damaged checkpoint: {path} names {named}, which does not exist") from error
            continue
        if opened.checksum != checksum:
            raise CheckpointError(f"damaged checkpoint: {path} refers to a different version of {named}")
        return opened


def last_of(checkpoint: Checkpoint) -> Checkpoint:
    """The last checkpoint of the run that a checkpoint belongs to; itself if it stands alone."""
    model = checkpoint.path.parent
    if not (model / LAST).is_file():
        return checkpoint
    last = open_pointer(checkpoint.name, model, LAST)
    return last if last.manifest.run.id == checkpoint.manifest.run.id else checkpoint


def last_readable(checkpoint: Checkpoint) -> Checkpoint:
    """As `last_of`; if the last checkpoint is damaged, the given one with a logged warning."""
    try:
        return last_of(checkpoint)
    except CheckpointError as error:
        log.warning("%s; showing the best checkpoint instead", error.message)
        return checkpoint


def open_path(path: Path) -> Checkpoint:
    """Open a model by path: its directory, a checkpoint's, or a file in a checkpoint's."""
    directory = path if path.is_dir() else path.parent
    if path.is_file() and not ((directory / MANIFEST).is_file() and path.suffix in (".safetensors", ".json")):
        raise _not_a_checkpoint(path)
    if (directory / BEST).is_file():
        return open_pointer(str(path), directory, BEST)
    if not (directory / MANIFEST).exists():
        raise _not_a_checkpoint(path)
    return Checkpoint.open(str(path), directory)


def _not_a_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is not a checkpoint", "list models: ddpmctl models")
