"""Errors of Python and of its libraries, in words that a user can act on."""

import errno
import os
import sys
from dataclasses import dataclass

from .errors import DdpmctlError, ExitCode

_MEMORY = (
    "cannot allocate memory",
    "can't allocate memory",
    "failed to map segment",
    "out of memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
    "paging file is too small",
)
"""Parts of messages, in lower case, by which libraries say that memory is short."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "mpl_toolkits": "matplotlib",
    "textual_image": "textual-image",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}
"""Packages that are imported by another name than they are installed by."""


CURRENT_DIRECTORY_IS_GONE = ("the current directory does not exist any more", "cd to a folder that exists")
"""A message and its hint."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What the command line says of an error.

    Attributes:
        message: what is wrong.
        hint: what to do; None for nothing.
        code: to exit with.
    """

    message: str
    hint: str | None
    code: ExitCode = ExitCode.FAILED


def is_memory_error(error: BaseException) -> bool:
    """Whether an error says that memory is used up or may not be used, whoever raised it."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return isinstance(error, ImportError | OSError | RuntimeError | SystemError) and any(
        words in text for words in _MEMORY
    )


def describe(error: Exception) -> Failure:
    """Say what an error means that nobody expected where it was raised."""
    if isinstance(error, DdpmctlError):
        return Failure(error.message, error.hint, error.exit_code)
    if isinstance(error, MemoryError):
        return Failure("there is not enough memory", "ask for fewer or smaller images")
    if is_memory_error(error):
        return Failure(
            f"there is not enough memory: {_first_line(error, _MEMORY)}",
            "close other programs, or raise the limit of this process (ulimit -v)",
        )
    if isinstance(error, ImportError):
        return _not_importable(error)
    return (
        _from_the_system(error)
        if isinstance(error, OSError)
        else Failure(
            f"something unforeseen happened: {type(error).__name__}: {error}",
            "DDPMCTL_DEBUG=1 shows where; please report it",
        )
    )


def _from_the_system(error: OSError) -> Failure:
    if isinstance(error, FileNotFoundError) and current_directory_is_gone():
        return Failure(*CURRENT_DIRECTORY_IS_GONE)
    where = f": {error.filename}" if error.filename else ""
    return Failure(f"{error.strerror or error}{where}", None)


def current_directory_is_gone() -> bool:
    """Whether the directory that the process runs in was removed."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return True
    return False


def _not_importable(error: ImportError) -> Failure:
    """A package that is missing or broken, and how to install it."""
    name = (error.name or "").partition(".")[0]
    if not name:
        return Failure(f"a package cannot be imported: {_first_line(error)}", "pip install --force-reinstall ddpmctl")
    package = DISTRIBUTIONS.get(name, name)
    if name == "ddpmctl" or name in sys.stdlib_module_names:
        return Failure(f"the installation is incomplete: {_first_line(error)}", f"pip install --force-reinstall {name}")
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return Failure(f"the package {package} is not installed", f"pip install {package}")
    return Failure(
        f"the package {package} cannot be imported: {_first_line(error)}", f"pip install --force-reinstall {package}"
    )


def _first_line(error: BaseException, words: tuple[str, ...] = ("",)) -> str:
    """The first line of a message with one of these words: NumPy has a page around the one that matters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line.strip() for line in lines if any(word in line.lower() for word in words)), lines[0])
