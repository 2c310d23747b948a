"""The entry point of the command line: signals, streams and the error boundary.

No other package is imported at the top, so that a missing one is reported like any other error.
"""

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from ddpmctl.cli import failures, streams
from ddpmctl.errors import AlreadyReported, DdpmctlError, ExitCode, ending_signals
from ddpmctl.ranks import ranks
from ddpmctl.threads import configure_threads


class _SignalReceived(BaseException):
    """A signal that ends the process, raised so that ``finally`` blocks run."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = ExitCode(128 + signum)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    raise _SignalReceived(signum)


def main() -> NoReturn:
    """Run the command line and exit with an `ExitCode`."""
    configure_threads()
    streams.prepare()
    for signum in ending_signals():
        signal.signal(signum, _end)
    here, stderr = ranks(), sys.stderr
    if not here.is_main_process:
        # The main process prints for all, except for errors of this one alone.
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    code = _run(stderr)
    stdout_error = streams.flush_stdout()
    if stdout_error:
        code = code or ExitCode.FAILED
        if not isinstance(stdout_error, BrokenPipeError):
            failure = streams.stdout_error(stdout_error)
            _report(stderr, failure.message, failure.hint)
    if here.size > 1:
        # A normal exit would wait for collectives with processes that are gone, and gloo's threads may abort a process
        # whose interpreter shuts down.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _run(stderr: TextIO) -> int:
    """Run the command; every error becomes a message and an exit code."""
    try:
        from ddpmctl import plugins

        if not any(plugin.builtin for plugin in plugins.discover(plugins.COMMANDS)):
            raise DdpmctlError("ddpmctl is not installed (running from a source checkout)", "pip install -e .")
        from ddpmctl.cli.application import app

        ended = app(prog_name="ddpmctl", standalone_mode=False)
        return ended if isinstance(ended, int) else ExitCode.OK
    except SystemExit as ended:  # raised by completion, and if the reader of stdout has closed the pipe
        return ended.code if isinstance(ended.code, int) else ExitCode.OK
    except AlreadyReported as error:
        return error.exit_code
    except _SignalReceived as ended:
        messages = {ExitCode.HUNG_UP: "the terminal was closed", ExitCode.TERMINATED: "terminated"}
        return _report(stderr, messages[ended.exit_code], None, ended.exit_code)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        failure = failures.describe(error)
        return _report(stderr, failure.message, failure.hint, failure.code)


def _report(stderr: TextIO, message: str, hint: str | None, code: ExitCode = ExitCode.FAILED) -> ExitCode:
    here = ranks()
    if not here.is_main_process:
        sys.stderr, message = stderr, f"rank {here.rank}: {message}"
    if os.environ.get("DDPMCTL_DEBUG") == "1":
        traceback.print_exc()
    # Processes of a machine share command line and signals: one of them reports errors of these.
    same_in_all = (ExitCode.USAGE, ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
    if here.local == 0 or code not in same_in_all:
        try:
            from ddpmctl.cli.output import print_error
        except ImportError:  # Rich is missing, which may be the error
            sys.stderr.write(f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else ""))
        else:
            print_error(message, hint)
    return code
