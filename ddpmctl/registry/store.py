"""Where models live and how they are found."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ddpmctl.errors import CheckpointError, DdpmctlError, UsageError
from ddpmctl.labels import is_displayable
from ddpmctl.paths import expand, expand_home, user_data_path
from ddpmctl.registry.checkpoint import MANIFEST, Checkpoint, Vanished
from ddpmctl.registry.durable import (
    fsync_dir,
    moved,
    name_of_temporary,
    remove_tree,
    replace_file,
    size_of,
    sweep,
    temporaries,
)
from ddpmctl.registry.manifest import FINISHED
from ddpmctl.registry.writer import BEST, LAST, POINTER, ModelWriter, check_name, fit_name, lock, unnamed_commits

log = logging.getLogger("ddpmctl")

DEFAULT = "default"
"""The file beside the models that names the one in use."""


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
    """A model that is there but cannot be opened."""

    name: str
    problem: str


class Registry:
    """All models of a user.

    Args:
        home: its directory; `user_home` by default. It need not exist yet.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or user_home()
        self.models = self.home / "models"

    def names(self, pointer: str = BEST) -> list[str]:
        """Names of all models, sorted; stray files are none. Of all runs, where the pointer is `LAST`."""
        try:
            entries = list(self.models.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DdpmctlError(f"cannot read {self.models}: {error.strerror}", "set DDPMCTL_HOME") from error
        # os.path's, which says no where a directory may not be searched; pathlib's raises.
        named = [entry for entry in entries if os.path.isfile(entry / pointer)]  # noqa: PTH113
        return sorted(entry.name for entry in named if not entry.name.startswith(".") and is_displayable(entry.name))

    def unfinished(self) -> Iterator[Checkpoint | Damaged]:
        """The last commit of every run that may go on: not to its end yet, or no epoch of it judged."""
        for name in self.names(LAST):
            try:
                last = self._follow(name, LAST)
            except CheckpointError as error:
                if name not in self.names():
                    yield Damaged(name, error.message)
            else:
                if last.manifest.run.stopped not in FINISHED and last.manifest.resume:
                    yield last

    def survey(self) -> Iterator[Checkpoint | Damaged]:
        """Every model, damaged ones as such: one of them never hides the others."""
        for name in self.names():
            try:
                yield self._follow(name, BEST)
            except CheckpointError as error:
                yield Damaged(name, error.message)

    def newest(self) -> Checkpoint | None:
        """The whole model whose best commit is the youngest, None where there is none."""
        whole = [entry for entry in self.survey() if isinstance(entry, Checkpoint)]
        return max(whole, key=lambda checkpoint: checkpoint.manifest.created, default=None)

    def default(self) -> str | None:
        """The model that `use` chose, None where none was or it is not here any more."""
        try:
            name = (self.home / DEFAULT).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return name if name in self.names() else None

    def use(self, name: str) -> None:
        """Choose the model that is taken where none is named.

        Raises:
            CheckpointError: when there is none of that name.
        """
        if name not in self.names():
            raise self._unknown(name, self.names())
        replace_file(self.home / DEFAULT, f"{name}\n".encode())

    def rename(self, old: str, new: str) -> None:
        """Give a model, with all of its training, another name; the one in use stays in use.

        Raises:
            CheckpointError: when there is none, or a process is training one of the two.
            UsageError: for a bad or taken name.
        """
        if old not in {*self.names(), *self.names(LAST)}:
            raise self._unknown(old, self.names())
        check_name(new)
        held = lock(self.models, old, "wait for it, or end it")
        try:
            taken = lock(self.models, new, "choose another name") if new != old else None
            if (self.models / new).exists():
                raise UsageError(f"there is a model '{new}' already", "choose another name")
            in_use = self.default() == old
            moved(self.models / old, self.models / new)
            fsync_dir(self.models)
            if taken:
                taken.release()
            if in_use:
                self.use(new)
        finally:
            held.release()

    def open(self, reference: str | None) -> Checkpoint:
        """Find and open a model.

        Args:
            reference: a name; a path to a model, a commit or its weights; ``latest`` for the newest; None for the one
                in use, else the newest.

        Raises:
            CheckpointError: when there is none, or it is damaged.
        """
        reference = self.default() if reference is None else reference
        if reference in (None, "latest"):
            newest = self.newest()
            if newest:
                return newest
            if damaged := self.names():
                raise CheckpointError(f"no model is whole: {', '.join(damaged)}", "ddpmctl models tells what is wrong")
            if begun := self.names(LAST):
                raise _unjudged(begun[0])
            raise CheckpointError("there is no model yet", "make one: ddpmctl demo, or ddpmctl train")
        assert reference is not None
        names = self.names()
        if reference in names:
            return self._follow(reference, BEST)
        if reference in self.names(LAST):
            raise _unjudged(reference)
        path = expand_home(reference)
        if os.path.exists(path):  # noqa: PTH110  False also for a name that is too long
            return open_path(path)
        raise self._unknown(reference, names)

    def writer(
        self,
        name: str | None,
        stem: str,
        *,
        replace: bool = False,
        hint: str = "choose another --name, or replace it with --force",
    ) -> ModelWriter:
        """Take a name for a model about to be trained.

        Args:
            name: the user's; None for ``stem`` with the first free number.
            stem: the readable part of a generated name.
            replace: whether an existing model of that name gives way at the first best commit.
            hint: what to do where the name is taken.

        Raises:
            UsageError: for a bad or taken name.
            CheckpointError: when another process trains under that name.
        """
        if name is not None:
            return ModelWriter(self.models, name, replace=replace, hint=hint)
        stem, number = stem if fit_name(f"{stem}-1") else "model", 1
        while True:
            try:
                return ModelWriter(self.models, f"{stem}-{number}")
            except (UsageError, CheckpointError):  # taken, or being taken
                number += 1

    def resume(self, reference: str) -> tuple[ModelWriter, Checkpoint]:
        """Take up a run: the hold on its name, and where it was last.

        Args:
            reference: its name, or ``latest`` for the one that was last worked on.

        Raises:
            CheckpointError: when there is none, it is damaged, or another process is training it.
        """
        names = self.names(LAST)
        if reference == "latest":
            reference = self._latest_run(names)
        if reference not in names:
            if reference in self.names():
                raise CheckpointError(
                    f"'{reference}' holds a model and not the state of its training", "train another: ddpmctl train"
                )
            raise self._unknown(reference, names)
        writer = ModelWriter(self.models, reference, resume=True)
        try:
            return writer, self._follow(reference, LAST)
        except BaseException:
            writer.release()
            raise

    def last_is(self, name: str, identity: str) -> bool:
        """Whether the last commit under a name, if there is one, is of the run with this id."""
        return name in self.names(LAST) and self._follow(name, LAST).manifest.run.id == identity

    def commits(self, name: str) -> list[Checkpoint]:
        """What the pointers of a model name, each once: the best commit and the last."""
        model = self.models / name
        found = [open_commit(name, model, pointer) for pointer in (BEST, LAST) if (model / pointer).is_file()]
        return list({checkpoint.path: checkpoint for checkpoint in found}.values())

    def in_training(self, name: str) -> bool:
        """Whether a process is training this model now."""
        try:
            lock(self.models, name, "").release()
        except CheckpointError:
            return True
        except DdpmctlError:  # nothing can be written here, so nobody trains
            return False
        return False

    def remove(self, name: str) -> int:
        """Remove a model and all of its training; returns the bytes that this frees.

        Raises:
            CheckpointError: when there is none, or another process is training it.
        """
        if name not in {*self.names(), *self.names(LAST)}:
            raise self._unknown(name, self.names())
        held = lock(self.models, name, "wait for it, or end it")
        try:
            size = size_of(self.models / name)
            remove_tree(self.models / name)
            sweep(self.models, name)
            fsync_dir(self.models)
        finally:
            held.release()
        return size

    def leftovers(self) -> Iterator[Path]:
        """What crashes left and what no pointer names; nothing of a model that is being trained now."""
        for name in sorted(self._all_names()):
            try:
                held = lock(self.models, name, "")
            except CheckpointError:
                continue
            try:
                yield from temporaries(self.models, name)
                if (self.models / name).is_dir():
                    yield from temporaries(self.models / name)
                    yield from unnamed_commits(self.models / name)
            finally:
                held.release()

    def _all_names(self) -> set[str]:
        """Of models, and of those that there were to be."""
        try:
            entries = list(self.models.iterdir())
        except OSError:
            return set()
        hidden = {name for entry in entries if (name := name_of_temporary(entry))}
        return hidden | {entry.name for entry in entries if entry.is_dir() and fit_name(entry.name)}

    def _latest_run(self, names: list[str]) -> str:
        found = {}
        for name in names:
            try:
                manifest = self._follow(name, LAST).manifest
            except CheckpointError:  # a damaged one never hides the others
                continue
            if manifest.resume:
                found[name] = (manifest.run.stopped not in FINISHED, manifest.created)
        if not found:
            raise CheckpointError("there is no training to go on with", "begin one: ddpmctl train")
        return max(found, key=lambda name: found[name])

    def _follow(self, name: str, pointer: str) -> Checkpoint:
        return open_commit(name, self.models / name, pointer)

    def _unknown(self, reference: str, names: list[str]) -> CheckpointError:
        close = get_close_matches(reference, names, n=1)
        return CheckpointError(
            f"there is no model '{reference}'", f"did you mean {close[0]}?" if close else "ddpmctl models lists them"
        )


def _unjudged(name: str) -> CheckpointError:
    return CheckpointError(f"no epoch of '{name}' is finished yet", f"ddpmctl train --resume {name}")


def read_pointer(path: Path) -> tuple[str, str]:
    """What a pointer names: a commit, and the checksum of its manifest, empty where there was none.

    Raises:
        CheckpointError: when it names nothing.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"damaged checkpoint: {path} cannot be read") from error
    match = POINTER.fullmatch(text)
    if not match:
        raise CheckpointError(f"damaged checkpoint: {path} names no commit")
    return match["commit"], match["checksum"] or ""


def open_commit(name: str, model: Path, pointer: str) -> Checkpoint:
    """Open the commit that a pointer of a model names, the next one where it is replaced meanwhile.

    Raises:
        CheckpointError: when it is not there, or damaged.
    """
    while True:
        named, checksum = read_pointer(model / pointer)
        try:
            opened = Checkpoint.open(name, model / named)
        except Vanished as error:
            if read_pointer(model / pointer)[0] == named:
                raise CheckpointError(
                    f"damaged checkpoint: {model / pointer} names {named}, which is not there"
                ) from error
            continue
        if opened.checksum != checksum:
            raise CheckpointError(f"damaged checkpoint: {model / pointer} names another {named} than there is")
        return opened


def last_of(checkpoint: Checkpoint) -> Checkpoint:
    """The last commit of the run that a checkpoint belongs to; itself where it stands alone."""
    model = checkpoint.path.parent
    if not (model / LAST).is_file():
        return checkpoint
    last = open_commit(checkpoint.name, model, LAST)
    return last if last.manifest.run.id == checkpoint.manifest.run.id else checkpoint


def last_readable(checkpoint: Checkpoint) -> Checkpoint:
    """The last checkpoint of the run, which records all of it; the given one, with a warning, where that is damaged."""
    try:
        return last_of(checkpoint)
    except CheckpointError as error:
        log.warning("%s; showing the best checkpoint instead", error.message)
        return checkpoint


def open_path(path: Path) -> Checkpoint:
    """Open a model by path: its directory, a commit's, or a file in a commit's.

    Raises:
        CheckpointError: when there is no checkpoint.
    """
    directory = path if path.is_dir() else path.parent
    if path.is_file() and not ((directory / MANIFEST).is_file() and path.suffix in (".safetensors", ".json")):
        raise CheckpointError(f"{path} is no checkpoint", "ddpmctl models lists the models there are")
    if (directory / BEST).is_file():
        return open_commit(str(path), directory, BEST)
    if not (directory / MANIFEST).exists():
        raise CheckpointError(f"{path} is no checkpoint", "ddpmctl models lists the models there are")
    return Checkpoint.open(str(path), directory)
