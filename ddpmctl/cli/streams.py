"""The standard streams of the process, made usable whatever state they start in."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ddpmctl.errors import DdpmctlError

LARGEST = 10_000
"""Columns or lines: more than any terminal has, and Rich would fill them with spaces."""

_SMALLEST = {"COLUMNS": 10, "LINES": 1, "TERMINAL_WIDTH": 10, "JUPYTER_COLUMNS": 10, "JUPYTER_LINES": 1}
"""Variables that Rich and Typer read, with the smallest usable value."""


class _DiscardingFile(io.FileIO):
    """A file that discards what it cannot write."""

    def write(self, data: "bytes | bytearray | memoryview", /) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


def prepare() -> None:
    """Replace streams that cannot be used, and remove terminal sizes that are impossible.

    A stream that was closed before the start is None in Python; it becomes the null device.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, _null_device(mode))
    # A character that the encoding lacks must not end a training run.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
    _ignore_stderr_errors()
    for name, smallest in _SMALLEST.items():
        if not _is_size(os.environ.get(name, str(smallest)), smallest):
            del os.environ[name]


def _null_device(mode: str) -> io.TextIOWrapper:
    """The null device, at the lowest free descriptor: that of the closed stream."""
    opened = open(os.devnull, mode, encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115
    if opened.fileno() <= 2:
        os.set_inheritable(opened.fileno(), True)
    return opened  # type: ignore[return-value]


def _ignore_stderr_errors() -> None:
    """Ignore write errors of notes and progress bars: a closed terminal or a full disk must not end a training run."""
    stream = sys.stderr
    # Tests and notebooks replace stderr, and the Windows console has another class.
    if stream is not sys.__stderr__ or not isinstance(stream, io.TextIOWrapper):
        return
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:
        return
    with suppress(OSError):
        stream.flush()
    buffer = io.BufferedWriter(_DiscardingFile(raw.fileno(), "w", closefd=False))  # type: ignore[type-var]
    sys.stderr = io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True)


def _is_size(text: str, smallest: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6 and smallest <= int(text) <= LARGEST


def stdout_is_closed() -> bool:
    """Whether stdout was closed before the process started."""
    return sys.__stdout__ is None


@contextmanager
def written_to_stdout() -> Iterator[None]:
    """Turn write errors into a `DdpmctlError` about stdout, except if the reader has closed the pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from error


def stdout_error(error: OSError) -> DdpmctlError:
    """The error if stdout is a full disk or a closed terminal."""
    return DdpmctlError(f"stdout cannot be written: {error.strerror or error}", "redirect it to another file")


def flush_stdout() -> OSError | None:
    """Flush stdout; returns the error if that fails, after which stdout is the null device."""
    try:
        sys.stdout.flush()
    except ValueError:  # closed meanwhile
        return None
    except OSError as error:
        # Python flushes again at exit, and would print its own message.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        return error
    return None
