"""Exceptions and exit codes."""

import errno
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1
    """The command failed: no such model, a damaged file, no GPU."""
    USAGE = 2
    """Usage error."""
    HUNG_UP = 129
    """SIGHUP: the terminal or the connection is gone."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting named in a hint: ``batch_size=4`` in Python, ``--batch-size 4`` on the command line.

    Attributes:
        name: of the parameter.
        value: to give it; None names the parameter alone.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value!r}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command named in a hint: ``ddpmctl.resume('a')`` in Python, ``ddpmctl train --resume a`` on the command line.

    Attributes:
        command_line: its spelling there.
        python: the call that does the same.
    """

    command_line: str
    python: str

    def __str__(self) -> str:
        return self.python


class DdpmctlError(Exception):
    """A failure that the user can act on.

    Args:
        message: one sentence that says what is wrong, without a full stop.
        hint: the step that solves it: text, and settings as `Setting`, which each interface spells in its own way.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *hint: str | Setting | Command | None) -> None:
        super().__init__(message)
        self.message = message
        self.hint_parts = tuple(part for part in hint if part is not None)

    @property
    def hint(self) -> str | None:
        """The hint in Python's spelling."""
        return self.hint_as(str)

    def hint_as(self, spell: Callable[[Setting | Command], str]) -> str | None:
        """The hint with its settings spelled by a function; None if there is no hint."""
        return "".join(part if isinstance(part, str) else spell(part) for part in self.hint_parts) or None


class UsageError(DdpmctlError):
    """Invalid usage: exit code 2."""

    exit_code = ExitCode.USAGE


class DataError(DdpmctlError):
    """A dataset is missing, incomplete or invalid."""


class CheckpointError(DdpmctlError):
    """A model is missing, damaged or of an unknown format."""


class AlreadyReported(DdpmctlError):
    """Another process of the same job reports the error; this one exits silently.

    Args:
        exit_code: to end with.
    """

    def __init__(self, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__("another process has reported the error")
        self.exit_code = exit_code


class Interrupted(DdpmctlError):
    """Ctrl-C, after saving."""

    exit_code = ExitCode.INTERRUPTED


class Terminated(DdpmctlError):
    """SIGTERM, after saving."""

    exit_code = ExitCode.TERMINATED


class HungUp(Terminated):
    """SIGHUP, after saving."""

    exit_code = ExitCode.HUNG_UP


def ending_signals() -> tuple[signal.Signals, ...]:
    """The signals other than Ctrl-C that end a command: SIGTERM, and SIGHUP unless it is ignored, as under nohup."""
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hang_up)


MEMORY_MESSAGES = (
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
"""Parts of messages, in lower case, that libraries use for out-of-memory errors."""


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception is an out-of-memory error of any library."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return isinstance(error, ImportError | OSError | RuntimeError | SystemError) and any(
        words in text for words in MEMORY_MESSAGES
    )
