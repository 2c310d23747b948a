"""Translates errors of every kind into a message, a hint and an exit code."""

import re
import sys
from dataclasses import dataclass
from typing import Any

from ddpmctl.errors import MEMORY_MESSAGES, Command, DdpmctlError, ExitCode, Setting, UsageError, is_memory_error
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
"""Packages whose import name differs from their distribution."""

REINSTALL = "in the project's folder: pip install --force-reinstall ."


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the command line reports it."""

    message: str
    hint: str | None
    code: ExitCode = ExitCode.FAILED


def option(setting: Setting | Command) -> str:
    """A setting as an option of the command line: ``--batch-size 4``, ``-n 4``, ``--no-show``."""
    if isinstance(setting, Command):
        return setting.command_line
    name = setting.name.replace("_", "-")
    dashes = "-" if len(name) == 1 else "--"
    if setting.value is None or setting.value is True:
        return f"{dashes}{name}"
    return f"--no-{name}" if setting.value is False else f"{dashes}{name} {setting.value}"


def describe(error: Exception) -> Failure:
    """The message, hint and exit code for an error of this package, of Python, or of a library."""
    if isinstance(error, DdpmctlError):
        return Failure(error.message, error.hint_as(option), error.exit_code)
    if isinstance(error, MemoryError):
        return Failure("there is not enough memory", "request fewer or smaller images")
    if is_memory_error(error):
        return Failure(
            f"there is not enough memory: {_first_line(error, MEMORY_MESSAGES)}",
            "close other programs, or raise the limit of this process (ulimit -v)",
        )
    if isinstance(error, ImportError):
        return _from_import_error(error)
    return _from_os_error(error) if isinstance(error, OSError) else _from_typer(error)


def _from_typer(error: Exception) -> Failure:
    """A command line that Typer rejects; any other error is unexpected."""
    import typer

    if isinstance(error, typer.TyperException):
        return _from_parse_error(error)
    if isinstance(error, typer.Abort):
        return Failure("aborted", None)
    return Failure(
        f"unexpected error: {type(error).__name__}: {error}", "DDPMCTL_DEBUG=1 shows the traceback; please report it"
    )


def _from_parse_error(error: Any) -> Failure:
    """Near misses of options and choices get a "did you mean", values out of range the range."""
    from ddpmctl.config import choose

    context, parameter, message = getattr(error, "ctx", None), getattr(error, "param", None), error.message
    hint = f"{context.command_path if context else 'ddpmctl'} --help"
    try:
        if possible := getattr(error, "possibilities", None):
            choose("option", error.option_name, possible)
        value, is_choice, choices = message.removeprefix("Value error, ").partition(" is not one of ")
        if is_choice and parameter:
            choose(parameter.name.replace("_", " "), value[1:-1], re.findall("'(.*?)'", choices))
    except UsageError as unknown:
        return Failure(unknown.message, unknown.hint, ExitCode.USAGE)
    if isinstance(error.__cause__, ValueError) and parameter:  # of pydantic, which Typer uses
        (detail, *_), option = error.__cause__.errors(), max(parameter.opts, key=len)  # type: ignore[attr-defined]
        expected = detail["msg"].removeprefix("Value error, ").partition(",")[0].replace("Input should be", "should be")
        message = f"{option} {expected}, not '{detail['input']}'"
        least, most = parameter.min, parameter.max
        if least is not None or most is not None:
            hint = (
                f"{option} must be at least {least}"
                if most is None
                else f"{option} must be in {0 if least is None else least}..{most}"
            )
        return Failure(message, hint, ExitCode.USAGE)
    message = message or error.format_message()
    return Failure(message[:1].lower() + message[1:].rstrip("."), hint, ExitCode.USAGE)


def _from_os_error(error: OSError) -> Failure:
    if isinstance(error, FileNotFoundError) and current_directory_is_gone():
        return Failure(*CURRENT_DIRECTORY_IS_GONE)
    where = f": {error.filename}" if error.filename else ""
    return Failure(f"{error.strerror or error}{where}", None)


def _from_import_error(error: ImportError) -> Failure:
    """A package that is missing or broken, and how to install it."""
    name = (error.name or "").partition(".")[0]
    if not name:
        return Failure(f"a package cannot be imported: {_first_line(error)}", REINSTALL)
    package = DISTRIBUTIONS.get(name, name)
    if name == "ddpmctl" or name in sys.stdlib_module_names:
        return Failure(f"the installation is incomplete: {_first_line(error)}", REINSTALL)
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return Failure(f"the package {package} is not installed", f"pip install {package}")
    return Failure(
        f"the package {package} cannot be imported: {_first_line(error)}", f"pip install --force-reinstall {package}"
    )


def _first_line(error: BaseException, words: tuple[str, ...] = ("",)) -> str:
    """The first line that contains one of these words; NumPy wraps the relevant line in a long message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line.strip() for line in lines if any(word in line.lower() for word in words)), lines[0])
