"""Where models are stored and how they are found."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ddpmctl.durable import (
    discard,
    fsync_dir,
    name_of_temporary,
    remove_temporaries,
    remove_tree,
    rename,
    replace_file,
    size_of,
    temporaries,
)
from ddpmctl.errors import CheckpointError, DdpmctlError, Setting, UsageError
from ddpmctl.labels import is_displayable
from ddpmctl.paths import expand, expand_home, user_data_path
from ddpmctl.registry.checkpoint import Checkpoint, CheckpointRemoved
from ddpmctl.registry.manifest import FINISHED
from ddpmctl.registry.pointers import BEST, LAST, last_readable, open_path, open_pointer, unreferenced
from ddpmctl.registry.writer import OTHER_NAME_OR_FORCE, Hint, ModelWriter, check_name, is_valid_name, lock

log = logging.getLogger("ddpmctl")

DEFAULT = "default"
"""The file next to the models that names the default model."""

BUSY = "wait until it finishes, or stop it"


def user_home() -> Path:
    """``DDPMCTL_HOME``, else the platform's directory for a user's data."""
    given = os.environ.get("DDPMCTL_HOME")
    if not given:
        return user_data_path("ddpmctl", appauthor=False)
    try:
        return expand(given)
    except UsageError as error:
        raise DdpmctlError(f"DDPMCTL_HOME: {error.message}", "set DDPMCTL_HOME to a folder") from error


@dataclass(frozen=True, slots=True)
class Damaged:
    """A model that exists and cannot be opened."""

    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The models and runs of a registry."""

    models: list[tuple[Checkpoint, Checkpoint]]
    """The best and the last checkpoint of each model, the newest model first."""
    unfinished: list[Checkpoint]
    """The last checkpoint of each run that can be resumed."""
    damaged: list[Damaged]


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of reading every byte of a model; ``problem`` is None if intact."""

    name: str
    problem: str | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """A temporary file or folder left by a crash, and its size in bytes."""

    path: Path
    bytes: int


class Registry:
    """All models of a user, in a directory that need not exist yet; `user_home` by default."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or user_home()
        self.models = self.home / "models"

    def names(self, pointer: str = BEST) -> list[str]:
        """Names of all models, sorted; with `LAST`, of all runs. Stray files are ignored."""
        try:
            entries = list(self.models.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DdpmctlError(
                f"cannot read {self.models}: {error.strerror}", "set DDPMCTL_HOME to a readable folder"
            ) from error
        # os.path.isfile returns False for a directory that may not be searched; pathlib raises.
        named = [entry for entry in entries if os.path.isfile(entry / pointer)]  # noqa: PTH113
        return sorted(entry.name for entry in named if not entry.name.startswith(".") and is_displayable(entry.name))

    def all_names(self) -> list[str]:
        """Names of all models and runs, sorted."""
        return sorted({*self.names(), *self.names(LAST)})

    def overview(self) -> Listing:
        """Read the manifests of all models and runs."""
        runs, models = list(self.unfinished()), list(self.iter_models())
        intact = [entry for entry in models if isinstance(entry, Checkpoint)]
        intact.sort(key=lambda checkpoint: checkpoint.manifest.created, reverse=True)
        return Listing(
            models=[(checkpoint, last_readable(checkpoint)) for checkpoint in intact],
            unfinished=[entry for entry in runs if isinstance(entry, Checkpoint)],
            damaged=[entry for entry in (*models, *runs) if isinstance(entry, Damaged)],
        )

    def iter_models(self) -> Iterator[Checkpoint | Damaged]:
        """The best checkpoint of every model, damaged ones as such: damaged models do not hide others."""
        for name in self.names():
            try:
                yield self._open_pointer(name, BEST)
            except CheckpointError as error:
                yield Damaged(name, error.message)

    def unfinished(self) -> Iterator[Checkpoint | Damaged]:
        """The last checkpoint of every run that can be resumed and has not completed its plan."""
        for name in self.names(LAST):
            try:
                last = self._open_pointer(name, LAST)
            except CheckpointError as error:
                if name not in self.names():
                    yield Damaged(name, error.message)
            else:
                if last.manifest.run.stopped not in FINISHED and last.manifest.resume:
                    yield last

    def newest(self) -> Checkpoint | None:
        """The undamaged model whose best checkpoint is the most recent, None if there is none."""
        intact = [entry for entry in self.iter_models() if isinstance(entry, Checkpoint)]
        return max(intact, key=lambda checkpoint: checkpoint.manifest.created, default=None)

    def default(self) -> str | None:
        """The default model's name; None if none was chosen or it no longer exists."""
        try:
            name = (self.home / DEFAULT).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return name if name in self.names() else None

    def use(self, name: str) -> None:
        """Choose the default model."""
        if name not in self.names():
            raise self._unknown(name, self.names())
        replace_file(self.home / DEFAULT, f"{name}\n".encode())

    def rename(self, old: str, new: str) -> None:
        """Rename a model with all of its training; the default model stays the default."""
        if old not in self.all_names():
            raise self._unknown(old, self.names())
        check_name(new)
        lock_file = lock(self.models, old, BUSY)
        try:
            taken = lock(self.models, new, "choose a different name") if new != old else None
            if (self.models / new).exists():
                raise UsageError(f"a model named '{new}' already exists", "choose a different name")
            was_default = self.default() == old
            rename(self.models / old, self.models / new)
            fsync_dir(self.models)
            if taken:
                taken.release()
            if was_default:
                self.use(new)
        finally:
            lock_file.release()

    def open(self, reference: str | None) -> Checkpoint:
        """Find and open a model.

        Args:
            reference: a name; a path to a model, a checkpoint or its weights; ``latest`` for the newest model; None for
                the default model, else the newest.
        """
        reference = self.default() if reference is None else reference
        if reference in (None, "latest"):
            newest = self.newest()
            if newest:
                return newest
            if damaged := self.names():
                raise CheckpointError(f"every model is damaged: {', '.join(damaged)}", "details: ddpmctl models")
            if runs := self.names(LAST):
                raise _not_validated(runs[0])
            raise CheckpointError("no models yet", "train one: ddpmctl demo, or ddpmctl train")
        assert reference is not None
        names = self.names()
        if reference in names:
            return self._open_pointer(reference, BEST)
        if reference in self.names(LAST):
            raise _not_validated(reference)
        path = expand_home(reference)
        if os.path.exists(path):  # noqa: PTH110  False also for a name that is too long
            return open_path(path)
        raise self._unknown(reference, names)

    def check_registered(self, name: str) -> None:
        """Raises CheckpointError unless there is a model or a run of this name here."""
        if name not in self.all_names():
            self.open(name)  # suggests a similar name
            raise CheckpointError(f"'{name}' is not in the registry", "list models: ddpmctl models")

    def writer(
        self, name: str | None, stem: str, *, replace: bool = False, hint: Hint = OTHER_NAME_OR_FORCE
    ) -> ModelWriter:
        """Lock a name for a model about to be trained.

        Args:
            name: the user's; None for ``stem`` with the first free number.
            stem: the readable part of a generated name.
            replace: overwrite an existing model of that name with the first best checkpoint.
            hint: what to do if the name is in use.
        """
        if name is not None:
            return ModelWriter(self.models, name, replace=replace, hint=hint)
        stem, number = stem if is_valid_name(f"{stem}-1") else "model", 1
        while True:
            try:
                return ModelWriter(self.models, f"{stem}-{number}")
            except (UsageError, CheckpointError):  # in use, or being trained
                number += 1

    def resume(self, reference: str) -> tuple[ModelWriter, Checkpoint]:
        """Lock a run and open its last checkpoint; ``latest`` is the most recent run."""
        names = self.names(LAST)
        if reference == "latest":
            reference = self._latest_run(names)
        if reference not in names:
            if reference in self.names():
                raise CheckpointError(
                    f"'{reference}' has no training state and cannot be resumed", "train a new model: ddpmctl train"
                )
            raise self._unknown(reference, names)
        writer = ModelWriter(self.models, reference, resume=True)
        try:
            return writer, self._open_pointer(reference, LAST)
        except BaseException:
            writer.release()
            raise

    def last_is(self, name: str, identity: str) -> bool:
        """Whether the last checkpoint under a name, if there is one, is of the run with this id."""
        return name in self.names(LAST) and self._open_pointer(name, LAST).manifest.run.id == identity

    def checkpoints(self, name: str) -> list[Checkpoint]:
        """The best and the last checkpoint of a model, once if they are the same."""
        model = self.models / name
        found = [open_pointer(name, model, pointer) for pointer in (BEST, LAST) if (model / pointer).is_file()]
        return list({checkpoint.path: checkpoint for checkpoint in found}.values())

    def verify(self, name: str) -> Verification:
        """Read and check every byte of a model."""
        while True:
            checked = 0
            try:
                for checkpoint in self.checkpoints(name):
                    checkpoint.verify()
                    checked += checkpoint.size
            except CheckpointRemoved:
                continue  # it is being trained: the next checkpoint exists already
            except CheckpointError as error:
                return Verification(name, error.message, checked)
            return Verification(name, None, checked)

    def in_training(self, name: str) -> bool:
        """Whether a process is training this model now."""
        try:
            lock(self.models, name).release()
        except CheckpointError:
            return True
        except DdpmctlError:  # nothing can be written here, so nothing is trained
            return False
        return False

    def check_removable(self, name: str) -> None:
        """Raises CheckpointError unless `remove` would find a model of this name that no process is training."""
        self.check_registered(name)
        if self.in_training(name):
            raise CheckpointError(f"another process is training '{name}'", BUSY)

    def remove(self, name: str) -> int:
        """Remove a model with all of its training; returns the bytes freed."""
        if name not in self.all_names():
            raise self._unknown(name, self.names())
        lock_file = lock(self.models, name, BUSY)
        try:
            size = size_of(self.models / name)
            remove_tree(self.models / name)
            remove_temporaries(self.models, name)
            fsync_dir(self.models)
        finally:
            lock_file.release()
        return size

    def prune(self, *, dry_run: bool = False) -> list[Leftover]:
        """Remove files left by crashes and checkpoints that no pointer names; skips models in training."""
        found = []
        for path in self.leftovers():
            found.append(Leftover(path, size_of(path)))
            if not dry_run:
                discard(path)
        return found

    def leftovers(self) -> Iterator[Path]:
        """What `prune` removes."""
        for name in sorted(self._names_with_temporaries()):
            try:
                lock_file = lock(self.models, name)
            except CheckpointError:
                continue
            try:
                yield from temporaries(self.models, name)
                if (self.models / name).is_dir():
                    yield from temporaries(self.models / name)
                    yield from unreferenced(self.models / name)
            finally:
                lock_file.release()

    def _names_with_temporaries(self) -> set[str]:
        """Names of models, and of those that a crash kept from being created."""
        try:
            entries = list(self.models.iterdir())
        except OSError:
            return set()
        hidden = {name for entry in entries if (name := name_of_temporary(entry))}
        return hidden | {entry.name for entry in entries if entry.is_dir() and is_valid_name(entry.name)}

    def _latest_run(self, names: list[str]) -> str:
        found = {}
        for name in names:
            with suppress(CheckpointError):  # a damaged run does not hide others
                manifest = self._open_pointer(name, LAST).manifest
                if manifest.resume:
                    found[name] = (manifest.run.stopped not in FINISHED, manifest.created)
        if not found:
            raise CheckpointError("there is no run to resume", "start one: ddpmctl train")
        return max(found, key=lambda name: found[name])

    def _open_pointer(self, name: str, pointer: str) -> Checkpoint:
        return open_pointer(name, self.models / name, pointer)

    def _unknown(self, reference: str, names: list[str]) -> CheckpointError:
        close = get_close_matches(reference, names, n=1)
        return CheckpointError(
            f"unknown model '{reference}'", f"did you mean {close[0]}?" if close else "list models: ddpmctl models"
        )


def _not_validated(name: str) -> CheckpointError:
    return CheckpointError(f"'{name}' has not finished an epoch yet", "ddpmctl train ", Setting("resume", name))


def open_model(reference: str | None) -> Checkpoint:
    """Open a model of the user's registry; logs which one if it was not named. See `Registry.open`."""
    registry = Registry()
    default = registry.default() if reference is None else None
    checkpoint = registry.open(default or reference)
    if reference in (None, "latest"):
        log.info("model %s (%s)", checkpoint.name, "default" if default else "the newest")
    return checkpoint
