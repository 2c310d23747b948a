"""Paths as typed by users: home directories, lengths, and write permission."""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from ddpmctl.errors import DdpmctlError, Setting, UsageError

CURRENT_DIRECTORY_IS_GONE = ("the current directory does not exist any more", "change to a folder that exists")
"""Message and hint."""

MAX_NAME = 255
"""Longest name of a file if the file system does not say: bytes, or characters on Windows."""


class FolderPath(type(Path())):  # type: ignore[misc]
    """A path that was typed with a separator at its end: a folder, even if it does not exist yet."""


def typed_path(text: str | Path) -> Path:
    """The parser of options that name something to read."""
    return expand(text)


def typed_file(text: str | Path) -> Path:
    """The parser of options that name a file to write."""
    if _ends_as_folder(text):
        raise UsageError(f"'{text}' is a folder; expected a file", "append a file name")
    return expand(text)


def typed_output(text: str | Path) -> Path:
    """The parser of options that name a file or a folder to write."""
    path = expand(text)
    return FolderPath(path) if _ends_as_folder(text) else path


def _ends_as_folder(text: str | Path) -> bool:
    return str(text).endswith(tuple(filter(None, (os.sep, os.altsep))))


def expand(text: str | Path) -> Path:
    """A typed path with the home directory in place of ``~``."""
    if "\0" in str(text):
        raise UsageError("a path cannot contain a NUL character", "use a different path")
    path = expand_home(text)
    check_names(path)
    return path


def expand_home(text: str | Path, what: str = "") -> Path:
    """A path with the home directory in place of ``~`` or ``~user``; ``what`` names its origin in the error."""
    # Path("./~x") would forget that this is no home directory.
    given = os.fspath(text)
    expanded = os.path.expanduser(given)  # noqa: PTH111
    if given.startswith("~") and expanded.startswith("~"):
        name = given.replace("\\", "/").partition("/")[0]
        raise UsageError(f"{what}'{given}': unknown home directory {name}", "use an absolute path")
    return Path(expanded)


def user_data_path(name: str, *, appauthor: bool) -> Path:
    """The platform's directory for a user's data."""
    hint = "set DDPMCTL_HOME to a folder for models"
    return _user_path(platformdirs.user_data_path, name, appauthor, "XDG_DATA_HOME", hint)


def user_cache_path(name: str, *, appauthor: bool) -> Path:
    """The platform's directory for what can be computed or downloaded again; the errors are as above."""
    hint = "set HOME, or XDG_CACHE_HOME to a folder"
    return _user_path(platformdirs.user_cache_path, name, appauthor, "XDG_CACHE_HOME", hint)


def _user_path(find: Callable[..., Path], name: str, appauthor: bool, variable: str, hint: str) -> Path:
    given = os.environ.get(variable, "")
    if os.name != "nt" and given.startswith("~"):  # a shell may leave it so, and platformdirs would ignore it
        return expand_home(given, f"{variable} is ") / name
    unknown = DdpmctlError("the home directory of this user is unknown", hint)
    try:
        path = find(name, appauthor=appauthor)
    except RuntimeError as error:
        raise unknown from error
    # Older releases of platformdirs leave "~" as it is if it cannot be resolved.
    path = Path(os.path.expanduser(path))  # noqa: PTH111
    if str(path).startswith("~"):
        raise unknown
    return path


def check_names(path: Path, limit: int = MAX_NAME) -> None:
    """Check that each name in a path is short enough for a file system."""
    for name in path.parts:
        length = len(name) if os.name == "nt" else len(os.fsencode(name))
        if length > limit:
            unit = "characters" if os.name == "nt" else "bytes"
            raise UsageError(
                f"the name '{name[:24]}..' is too long: {length} {unit}, the limit is {limit}",
                "choose a shorter name",
            )


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work that fills it."""
    check_names(path)
    _check_current_directory(path)
    if path.is_dir():
        raise DdpmctlError(f"{path} is a folder", "pass a file as ", Setting("output"))
    if not path.parent.is_dir():
        raise DdpmctlError(f"the folder {path.parent} does not exist", f"mkdir -p '{path.parent}'")
    check_names(Path(path.name), _longest_name_in(path.parent))
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise DdpmctlError(f"permission denied: {path}", "choose a different ", Setting("output"))


def check_folder(path: Path) -> None:
    """Check that files can be written into a folder, which need not exist yet."""
    check_names(path)
    _check_current_directory(path)
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        raise DdpmctlError(f"{existing} is not a folder", "choose a different ", Setting("output"))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DdpmctlError(f"permission denied: {path}", "choose a different ", Setting("output"))
    for name in path.parts[len(existing.parts) :]:
        check_names(Path(name), _longest_name_in(existing))


def current_directory_is_gone() -> bool:
    """Whether the directory that the process runs in was removed."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return True
    return False


def _check_current_directory(path: Path) -> None:
    # Its inode still reports permissions, but no files can be created in it.
    if not path.is_absolute() and current_directory_is_gone():
        raise DdpmctlError(*CURRENT_DIRECTORY_IS_GONE)


def _longest_name_in(folder: Path) -> int:
    """What the file system of a folder allows; encrypted ones allow less than others."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no pathconf
        return MAX_NAME
