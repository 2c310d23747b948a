"""What can go wrong, in words, and the exit codes it ends with."""

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1
    """The world refused: no such model, a damaged file, no GPU."""
    USAGE = 2
    """The command was typed wrong."""
    HUNG_UP = 129
    """SIGHUP: the terminal or the connection is gone."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


class DdpmctlError(Exception):
    """A failure that the user can act on.

    Args:
        message: one sentence that says what is wrong, without a full stop.
        hint: the command or the step that leads on.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DdpmctlError):
    """Something was typed wrong: exit code 2."""

    exit_code = ExitCode.USAGE


class DataError(DdpmctlError):
    """A dataset is missing, incomplete or not what it should be."""


class CheckpointError(DdpmctlError):
    """A model is missing, damaged or of an unknown format."""


class SpokenElsewhere(DdpmctlError):
    """Another process of the same job says what went wrong: this one ends without a word.

    Args:
        exit_code: to end with.
    """

    def __init__(self, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__("another process says what went wrong")
        self.exit_code = exit_code


class Interrupted(DdpmctlError):
    """Ctrl-C, after what was worth keeping has been kept."""

    exit_code = ExitCode.INTERRUPTED


class Terminated(DdpmctlError):
    """SIGTERM, after what was worth keeping has been kept."""

    exit_code = ExitCode.TERMINATED


class HungUp(Terminated):
    """SIGHUP, after what was worth keeping has been kept."""

    exit_code = ExitCode.HUNG_UP


def ending_signals() -> tuple[signal.Signals, ...]:
    """The signals beside Ctrl-C that end a command: SIGTERM, and SIGHUP unless it is ignored, as under nohup."""
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hang_up)
