"""The one way into the registry: commits that stand whole or not at all."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from ddpmctl.errors import CheckpointError, UsageError

from .checkpoint import HISTORY, MANIFEST, WEIGHTS
from .durable import fsync_dir, put_directory, remove_tree, replace_file, sweep, temporary_beside
from .manifest import FileRecord, Manifest

if TYPE_CHECKING:
    import numpy as np

BEST = "best"
LAST = "last"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Return a model name that is fit to be one.

    Raises:
        UsageError: when it is not.
    """
    if name == "latest" or name.endswith((".", ".lock", ".tmp")) or not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a model's name",
            "letters, digits, '.', '-' and '_', beginning with a letter or digit; not 'latest'",
        )
    return name


class ModelWriter:
    """A model while it is being trained: holds its name, takes its commits.

    The model comes into sight with its first commit; until then the registry is as it was, and a run that
    ends early leaves nothing. Use as a context manager.

    Args:
        models: the directory of all models.
        name: a checked name.
        replace: take the place of a model that has this name, at the first commit.

    Raises:
        CheckpointError: when another process is training under this name.
        UsageError: when the name is taken and not to be replaced.
    """

    def __init__(self, models: Path, name: str, *, replace: bool = False) -> None:
        self.name = name
        self.path = models / name
        self._lock = FileLock(models / f".{name}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise CheckpointError(f"another process is training '{name}'", "choose another name with --name") from error
        if self.path.exists() and not replace:
            self._lock.release()
            raise UsageError(f"there is a model '{name}' already", "choose another --name, or replace it with --force")
        sweep(models, name)
        self._staging: Path | None = temporary_beside(self.path)
        self._commits: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._staging and self._staging.exists():
            remove_tree(self._staging)
        self._lock.release()

    def commit(
        self,
        weights: "dict[str, np.ndarray]",
        history: str,
        describe: Callable[[dict[str, FileRecord]], Manifest],
        *,
        best: bool,
    ) -> Path:
        """Add a commit and point to it.

        Args:
            weights: float32 tensors by name.
            history: the whole history as CSV.
            describe: makes the manifest, given the records of the files.
            best: whether it is the best so far, besides being the last.

        Returns:
            The directory of the commit.
        """
        from safetensors.numpy import save

        home = self._staging or self.path
        home.mkdir(parents=True, exist_ok=True)
        files = {WEIGHTS: save(weights), HISTORY: history.encode()}
        manifest = describe({name: FileRecord(sha256=_sha256(data), size=len(data)) for name, data in files.items()})
        commit = home / f"{manifest.run.step:08d}"

        # The manifest last: where it stands, everything before it does.
        put_directory(commit, {**files, MANIFEST: manifest.to_json().encode()})

        self._commits = {LAST: commit.name, BEST: commit.name if best else self._commits.get(BEST, commit.name)}
        for pointer in (BEST, LAST):
            replace_file(home / pointer, f"{self._commits[pointer]}\n".encode())
        if self._staging:
            self._publish(self._staging)
        self._prune()
        return self.path / commit.name

    def _publish(self, staging: Path) -> None:
        """Bring the staged model into sight, in the place of one that is to be replaced."""
        if self.path.exists():
            remove_tree(self.path)
        staging.rename(self.path)
        fsync_dir(self.path.parent)
        self._staging = None

    def _prune(self) -> None:
        """Remove commits that no pointer names, and what a crash left."""
        sweep(self.path)
        for commit in self.path.iterdir():
            if commit.is_dir() and commit.name.isdigit() and commit.name not in self._commits.values():
                remove_tree(commit)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
