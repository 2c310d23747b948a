"""Errors of Python and of its libraries, in words that a user can act on."""

import sys
from dataclasses import dataclass

from ddpmctl.errors import MEMORY_MESSAGES, DdpmctlError, ExitCode, Setting, is_memory_error
from ddpmctl.paths import CURRENT_DIRECTORY_IS_GONE, current_directory_is_gone

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


def option(setting: Setting) -> str:
    """A setting as an option of the command line: ``--batch-size 4``, ``--compile``, ``--no-show``."""
    name = setting.name.replace("_", "-")
    if setting.value is None or setting.value is True:
        return f"--{name}"
    return f"--no-{name}" if setting.value is False else f"--{name} {setting.value}"


def describe(error: Exception) -> Failure:
    """Say what an error means that nobody expected where it was raised."""
    if isinstance(error, DdpmctlError):
        return Failure(error.message, error.hint_as(option), error.exit_code)
    if isinstance(error, MemoryError):
        return Failure("there is not enough memory", "ask for fewer or smaller images")
    if is_memory_error(error):
        return Failure(
            f"there is not enough memory: {_first_line(error, MEMORY_MESSAGES)}",
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
