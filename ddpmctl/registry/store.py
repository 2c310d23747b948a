"""Where models live and how they are found."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ddpmctl.errors import CheckpointError, DdpmctlError

from .checkpoint import MANIFEST, Checkpoint
from .writer import BEST, LAST, ModelWriter, check_name

_STEP = re.compile(r"[0-9]{1,12}")


def user_home() -> Path:
    """``DDPMCTL_HOME``, else the platform's directory for a user's data."""
    given = os.environ.get("DDPMCTL_HOME")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("ddpmctl", appauthor=False)


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

    def names(self) -> list[str]:
        """Names of all models, sorted; stray files are none."""
        try:
            entries = list(self.models.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DdpmctlError(f"cannot read {self.models}: {error.strerror}", "set DDPMCTL_HOME") from error
        return sorted(e.name for e in entries if not e.name.startswith(".") and (e / BEST).is_file())

    def survey(self) -> Iterator[Checkpoint | Damaged]:
        """Every model, damaged ones as such: one of them never hides the others."""
        for name in self.names():
            try:
                yield self._best(name)
            except CheckpointError as error:
                yield Damaged(name, error.message)

    def newest(self) -> Checkpoint | None:
        """The whole model whose best commit is the youngest, None where there is none."""
        whole = [entry for entry in self.survey() if isinstance(entry, Checkpoint)]
        return max(whole, key=lambda checkpoint: checkpoint.manifest.created, default=None)

    def open(self, reference: str | None) -> Checkpoint:
        """Find and open a model.

        Args:
            reference: a name; a path to a model, a commit or its weights; ``latest`` or None for the newest.

        Raises:
            CheckpointError: when there is none, or it is damaged.
        """
        if reference in (None, "latest"):
            newest = self.newest()
            if newest:
                return newest
            if damaged := self.names():
                raise CheckpointError(f"no model is whole: {', '.join(damaged)}", "ddpmctl models tells what is wrong")
            raise CheckpointError("there is no model yet", "make one: ddpmctl demo, or ddpmctl train")
        assert reference is not None
        names = self.names()
        if reference in names:
            return self._best(reference)
        path = Path(reference).expanduser()
        if path.exists():
            return open_path(path)
        close = get_close_matches(reference, names, n=1)
        raise CheckpointError(
            f"there is no model '{reference}'", f"did you mean {close[0]}?" if close else "ddpmctl models lists them"
        )

    def writer(self, name: str | None, stem: str, *, replace: bool = False) -> ModelWriter:
        """Take a name for a model about to be trained.

        Args:
            name: the user's; None for ``stem`` with the first free number.
            stem: the readable part of a generated name.
            replace: whether an existing model of that name gives way at the first commit.

        Raises:
            UsageError: for a bad or taken name.
            CheckpointError: when another process trains under that name.
        """
        if name is not None:
            check_name(name)
        try:
            self.models.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DdpmctlError(f"cannot create {self.models}: {error.strerror}", "set DDPMCTL_HOME") from error
        if name is not None:
            return ModelWriter(self.models, name, replace=replace)
        number = 1
        while True:
            try:
                return ModelWriter(self.models, f"{stem}-{number}")
            except DdpmctlError:
                number += 1

    def _best(self, name: str) -> Checkpoint:
        return Checkpoint.open(name, follow(self.models / name, BEST))


def follow(model: Path, pointer: str) -> Path:
    """The commit that a pointer file names.

    Raises:
        CheckpointError: when it names none.
    """
    try:
        target = (model / pointer).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"damaged checkpoint: {model / pointer} cannot be read") from error
    if not _STEP.fullmatch(target):
        raise CheckpointError(f"damaged checkpoint: {model / pointer} names no commit")
    return model / target


def last_of(checkpoint: Checkpoint) -> Checkpoint:
    """The last commit of the model that a checkpoint belongs to; itself where it stands alone."""
    model = checkpoint.path.parent
    if not (model / LAST).is_file():
        return checkpoint
    return Checkpoint.open(checkpoint.name, follow(model, LAST))


def open_path(path: Path) -> Checkpoint:
    """Open a model by path: its directory, a commit's, or a file in a commit's.

    Raises:
        CheckpointError: when there is no checkpoint.
    """
    directory = path if path.is_dir() else path.parent
    if path.is_file() and not ((directory / MANIFEST).is_file() and path.suffix in (".safetensors", ".json")):
        raise CheckpointError(f"{path} is no checkpoint", "ddpmctl models lists the models there are")
    if (directory / BEST).is_file():
        directory = follow(directory, BEST)
    if not (directory / MANIFEST).exists():
        raise CheckpointError(f"{path} is no checkpoint", "ddpmctl models lists the models there are")
    return Checkpoint.open(str(path), directory)
