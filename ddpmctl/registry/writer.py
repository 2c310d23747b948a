"""Writes checkpoints to the registry atomically."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from ddpmctl.durable import create_directory_atomically, fsync_dir, remove_temporaries, remove_tree, replace_file
from ddpmctl.errors import CheckpointError, DdpmctlError, Setting, UsageError
from ddpmctl.registry.checkpoint import HISTORY, MANIFEST, STATE, WEIGHTS
from ddpmctl.registry.manifest import MAX_BYTES, FileRecord, Manifest, checksum_of
from ddpmctl.registry.pointers import BEST, LAST, referenced_checkpoints, unreferenced

if TYPE_CHECKING:
    import numpy as np

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
Hint = tuple[str | Setting, ...]
OTHER_NAME: Hint = ("choose a different ", Setting("name"))
OTHER_NAME_OR_FORCE: Hint = (*OTHER_NAME, ", or replace it with ", Setting("force"))


def check_name(name: str) -> str:
    """Return a valid model name; raises UsageError for any other."""
    if not is_valid_name(name):
        raise UsageError(
            f"'{name}' is not a valid model name",
            "use letters, digits, '.', '-' and '_', starting with a letter or digit; not 'latest'",
        )
    return name


def is_valid_name(name: str) -> bool:
    """Whether this can be the name of a model, here and on other systems."""
    invalid = name == "latest" or name.endswith((".", ".lock", ".tmp")) or _RESERVED.fullmatch(name)
    return bool(_NAME.fullmatch(name)) and not invalid


def lock(models: Path, name: str, *hint: str | Setting) -> FileLock:
    """Lock a checked name until this process ends or releases it; raises CheckpointError if another process does."""
    lock_file = FileLock(models / f".{name}.lock")
    try:
        if not models.exists():
            models.mkdir(parents=True, exist_ok=True)
            fsync_dir(models.parent)
        # A process that only tests whether it is locked releases it immediately.
        lock_file.acquire(timeout=0.2, poll_interval=0.02)
    except Timeout as error:
        raise CheckpointError(f"another process is training '{name}'", *hint) from error
    except OSError as error:
        raise DdpmctlError(
            f"cannot write to {models}: {error.strerror}", "set DDPMCTL_HOME to a writable folder"
        ) from error
    return lock_file


class ModelWriter:
    """A model in training: locks its name and saves its checkpoints. Use as a context manager.

    The model appears with its first best checkpoint. A model to be replaced remains until then, but its run can
    no longer be resumed.

    Args:
        models: the directory of all models.
        name: of the model.
        replace: overwrite a model that has this name.
        resume: continue the run that has this name.
        hint: what to do if the name is in use.
    """

    def __init__(
        self,
        models: Path,
        name: str,
        *,
        replace: bool = False,
        resume: bool = False,
        hint: Hint = OTHER_NAME_OR_FORCE,
    ) -> None:
        self.name = check_name(name)
        self.path = models / name
        busy: Hint = ("wait until it finishes, or stop it",) if resume else OTHER_NAME
        self._lock = lock(models, name, *busy)
        if self._is_taken() and not (replace or resume):
            self._lock.release()
            raise UsageError(f"a model named '{name}' already exists", *hint)
        self._referenced_checkpoints_before: deque[set[str]] = deque(maxlen=2)
        with suppress(OSError):
            remove_temporaries(models, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What cannot be removed now is removed by the next writer; it must not hide the error that ended the run.
        with suppress(OSError):
            if self.path.exists():
                self._prune(set())
                if not self._is_taken():
                    remove_tree(self.path)
        self.release()

    def release(self) -> None:
        """Unlock the name."""
        self._lock.release()

    def save(
        self,
        weights: "Mapping[str, np.ndarray]",
        history: str,
        describe: Callable[[dict[str, FileRecord]], Manifest],
        *,
        best: bool,
        state: "Mapping[str, np.ndarray] | None" = None,
        last: bool = True,
    ) -> Path:
        """Add a checkpoint, point to it, and return its directory.

        Args:
            weights: float32 tensors by name.
            history: the whole history as CSV.
            describe: creates the manifest, given the records of the files.
            best: whether it is the best so far.
            state: tensors that resuming needs in addition to the weights.
            last: whether the run resumes from it.
        """
        from safetensors.numpy import save

        files = {WEIGHTS: save(dict(weights)), HISTORY: history.encode()}
        if state is not None:
            files[STATE] = save(dict(state))
        records = {name: FileRecord(sha256=sha256(data).hexdigest(), size=len(data)) for name, data in files.items()}
        return self.save_files(files, describe(records), best=best, last=last)

    def save_files(self, files: Mapping[str, bytes], manifest: Manifest, *, best: bool, last: bool) -> Path:
        """Add a checkpoint of these files, which the manifest describes, and point to it."""
        text = manifest.to_json()
        if len(text) > MAX_BYTES:
            raise CheckpointError(f"the manifest of '{self.name}' has become too large to be read again")
        if not self.path.exists():
            self.path.mkdir()
            fsync_dir(self.path.parent)
        checkpoint = self._free(f"{manifest.run.step:08d}")

        # The manifest last: if it exists, all other files do.
        create_directory_atomically(checkpoint, {**files, MANIFEST: text.encode()})

        self._referenced_checkpoints_before.append(referenced_checkpoints(self.path) or set())
        for pointer, moves in ((BEST, best), (LAST, last)):
            if moves:
                replace_file(self.path / pointer, f"{checkpoint.name} {checksum_of(text)}\n".encode())
        # A reader may have followed a pointer to what it named until now: that is removed after the next checkpoint.
        with suppress(OSError):
            self._prune(set().union(*self._referenced_checkpoints_before))
        return checkpoint

    @property
    def has_best(self) -> bool:
        """Whether there is a model to sample from under this name."""
        return (self.path / BEST).is_file()

    def _is_taken(self) -> bool:
        return any((self.path / pointer).is_file() for pointer in (BEST, LAST))

    def _free(self, stem: str) -> Path:
        number, checkpoint = 1, self.path / stem
        while checkpoint.exists():
            number += 1
            checkpoint = self.path / f"{stem}-{number}"
        return checkpoint

    def _prune(self, spared: set[str]) -> None:
        """Remove checkpoints that no pointer names and that are not spared, and files left by a crash."""
        remove_temporaries(self.path)
        for checkpoint in unreferenced(self.path):
            if checkpoint.name not in spared:
                remove_tree(checkpoint)
