"""The one way into the registry: commits that stand whole or not at all."""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from ddpmctl.errors import CheckpointError, DdpmctlError, UsageError
from ddpmctl.registry.checkpoint import HISTORY, MANIFEST, STATE, WEIGHTS
from ddpmctl.registry.durable import fsync_dir, put_directory, remove_tree, replace_file, sweep
from ddpmctl.registry.manifest import MAX_BYTES, FileRecord, Manifest, checksum_of

if TYPE_CHECKING:
    import numpy as np

BEST = "best"
LAST = "last"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
COMMIT = re.compile(r"[0-9]{8,12}(-[0-9]{1,6})?")
"""The name of a commit: its step, and a number where that name was taken."""

POINTER = re.compile(rf"(?P<commit>{COMMIT.pattern})( (?P<checksum>[0-9a-f]{{64}}))?\n")
"""What a pointer holds: the name of a commit and the checksum of its manifest."""


def check_name(name: str) -> str:
    """Return a model name that is fit to be one.

    Raises:
        UsageError: when it is not.
    """
    if not fit_name(name):
        raise UsageError(
            f"'{name}' cannot be a model's name",
            "letters, digits, '.', '-' and '_', beginning with a letter or digit; not 'latest'",
        )
    return name


def fit_name(name: str) -> bool:
    """Whether this can be the name of a model, here and on other systems."""
    unfit = name == "latest" or name.endswith((".", ".lock", ".tmp")) or _RESERVED.fullmatch(name)
    return bool(_NAME.fullmatch(name)) and not unfit


def lock(models: Path, name: str, hint: str) -> FileLock:
    """Take hold of a name, as long as this process lives or until it lets go.

    Args:
        models: the directory of all models.
        name: a checked name.
        hint: what to do where another process holds it.

    Raises:
        CheckpointError: when another process holds it.
        DdpmctlError: where nothing can be written.
    """
    held = FileLock(models / f".{name}.lock")
    try:
        if not models.exists():
            models.mkdir(parents=True, exist_ok=True)
            fsync_dir(models.parent)
        # Whoever only looks whether it is held lets go at once.
        held.acquire(timeout=0.2, poll_interval=0.02)
    except Timeout as error:
        raise CheckpointError(f"another process is training '{name}'", hint) from error
    except OSError as error:
        raise DdpmctlError(f"cannot write in {models}: {error.strerror}", "set DDPMCTL_HOME") from error
    return held


def is_taken(model: Path) -> bool:
    """Whether there is a model or a run in this directory."""
    return any((model / pointer).is_file() for pointer in (BEST, LAST))


class ModelWriter:
    """A model while it is being trained: holds its name, takes its commits.

    The model comes into sight with its first best commit. A model that is to be replaced stays until then, but its
    training cannot be gone on with any more. Use as a context manager.

    Args:
        models: the directory of all models.
        name: a checked name.
        replace: take the place of a model that has this name.
        resume: go on with the run that has this name.
        hint: what to do where the name is taken.

    Raises:
        CheckpointError: when another process is training under this name.
        UsageError: when the name is unfit, or taken and not to be replaced.
    """

    def __init__(
        self,
        models: Path,
        name: str,
        *,
        replace: bool = False,
        resume: bool = False,
        hint: str = "choose another --name, or replace it with --force",
    ) -> None:
        self.name = check_name(name)
        self.path = models / name
        self._lock = lock(models, name, "wait for it, or end it" if resume else "choose another name with --name")
        if is_taken(self.path) and not (replace or resume):
            self._lock.release()
            raise UsageError(f"there is a model '{name}' already", hint)
        self._named_before: deque[set[str]] = deque(maxlen=2)
        with suppress(OSError):
            sweep(models, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What cannot be tidied up now is swept by the next; it must not hide the error that ended the run.
        with suppress(OSError):
            if self.path.exists():
                self._prune(set())
                if not is_taken(self.path):
                    remove_tree(self.path)
        self.release()

    def release(self) -> None:
        """Let go of the name."""
        self._lock.release()

    def commit(
        self,
        weights: "Mapping[str, np.ndarray]",
        history: str,
        describe: Callable[[dict[str, FileRecord]], Manifest],
        *,
        best: bool,
        state: "Mapping[str, np.ndarray] | None" = None,
        last: bool = True,
    ) -> Path:
        """Add a commit and point to it.

        Args:
            weights: float32 tensors by name.
            history: the whole history as CSV.
            describe: makes the manifest, given the records of the files.
            best: whether it is the best so far.
            state: tensors that the training needs to go on from here.
            last: whether it is where the run is now.

        Returns:
            The directory of the commit.
        """
        from safetensors.numpy import save

        files = {WEIGHTS: save(dict(weights)), HISTORY: history.encode()}
        if state is not None:
            files[STATE] = save(dict(state))
        records = {name: FileRecord(sha256=sha256(data), size=len(data)) for name, data in files.items()}
        return self.put(files, describe(records), best=best, last=last)

    def put(self, files: Mapping[str, bytes], manifest: Manifest, *, best: bool, last: bool) -> Path:
        """Add a commit of these files, which the manifest describes, and point to it."""
        text = manifest.to_json()
        if len(text) > MAX_BYTES:
            raise CheckpointError(f"the manifest of '{self.name}' has become too large to be read again")
        if not self.path.exists():
            self.path.mkdir()
            fsync_dir(self.path.parent)
        commit = self._free(f"{manifest.run.step:08d}")

        # The manifest last: where it stands, everything before it does.
        put_directory(commit, {**files, MANIFEST: text.encode()})

        self._named_before.append(named_commits(self.path) or set())
        for pointer, moves in ((BEST, best), (LAST, last)):
            if moves:
                replace_file(self.path / pointer, f"{commit.name} {checksum_of(text)}\n".encode())
        # Whoever follows a pointer may be reading what it named until now: that goes with the commit after the next.
        with suppress(OSError):
            self._prune(set().union(*self._named_before))
        return commit

    @property
    def has_best(self) -> bool:
        """Whether there is something to make images with under this name."""
        return (self.path / BEST).is_file()

    def _free(self, stem: str) -> Path:
        number, commit = 1, self.path / stem
        while commit.exists():
            number += 1
            commit = self.path / f"{stem}-{number}"
        return commit

    def _prune(self, spared: set[str]) -> None:
        """Remove commits that no pointer names and nobody spares, and what a crash left."""
        sweep(self.path)
        for commit in unnamed_commits(self.path):
            if commit.name not in spared:
                remove_tree(commit)


def named_commits(model: Path) -> set[str] | None:
    """The commits that a model's pointers name; None where one of them names nothing."""
    named = set()
    for path in (model / BEST, model / LAST):
        try:
            match = POINTER.fullmatch(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return None
        if not match:
            return None
        named.add(match["commit"])
    return named


def unnamed_commits(model: Path) -> list[Path]:
    """The commits in a model's directory that no pointer names; none where a pointer cannot be read."""
    named = named_commits(model)
    if named is None:
        return []
    commits = (path for path in model.iterdir() if COMMIT.fullmatch(path.name) and path.is_dir())
    return sorted(commit for commit in commits if commit.name not in named)


def sha256(data: bytes) -> str:
    """Of some bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
