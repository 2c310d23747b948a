"""The entry point of the command line: signals, streams, and the one place where errors become messages.

Nothing of other packages is imported at the top, so that a missing one is reported like any other error.
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


class _Ended(BaseException):
    """A signal, as something that ``finally`` blocks see.

    Attributes:
        exit_code: to end with.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = ExitCode(128 + signum)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Ended(signum)


def main() -> NoReturn:
    """Run the command line and exit with an `ExitCode`."""
    configure_threads()
    streams.prepare()
    for signum in ending_signals():
        signal.signal(signum, _end)
    here, stderr = ranks(), sys.stderr
    if not here.is_main_process:
        # The first process prints for all, except for what goes wrong in this one alone.
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    code = _run(stderr)
    refused = streams.flush_stdout()
    if refused:
        code = code or ExitCode.FAILED
        if not isinstance(refused, BrokenPipeError):
            failure = streams.stdout_refused(refused)
            _report(stderr, failure.message, failure.hint)
    if here.size > 1:
        # Collectives with processes that are gone never end, and an orderly exit would wait for them; and gloo's
        # threads may abort a process whose interpreter shuts down beneath them.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _run(stderr: TextIO) -> int:
    """Run the command that was typed; every error becomes a message and an exit code."""
    try:
        from ddpmctl import plugins

        if not any(plugin.builtin for plugin in plugins.discover(plugins.COMMANDS)):
            raise DdpmctlError("ddpmctl runs from a checkout that is not installed", "pip install -e .")
        from ddpmctl.cli.application import app

        ended = app(prog_name="ddpmctl", standalone_mode=False)
        return ended if isinstance(ended, int) else ExitCode.OK
    except SystemExit as ended:  # completion, and a reader of stdout that is gone
        return ended.code if isinstance(ended.code, int) else ExitCode.OK
    except AlreadyReported as error:
        return error.exit_code
    except _Ended as ended:
        words = {ExitCode.HUNG_UP: "the terminal was closed", ExitCode.TERMINATED: "terminated"}
        return _report(stderr, words[ended.exit_code], None, ended.exit_code)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        failure = failures.describe(error)
        return _report(stderr, failure.message, failure.hint, failure.code)


def _report(stderr: TextIO, message: str, hint: str | None, code: ExitCode = ExitCode.FAILED) -> ExitCode:
    here = ranks()
    if not here.is_main_process:
        sys.stderr, message = stderr, f"process {here.rank}: {message}"
    if os.environ.get("DDPMCTL_DEBUG") == "1":
        traceback.print_exc()
    # All on a machine were started with the same command line, and end by the same signal.
    same_in_all = (ExitCode.USAGE, ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
    if here.local == 0 or code not in same_in_all:
        try:
            from ddpmctl.cli.output import print_error
        except ImportError:  # Rich is missing, which may be just what is reported
            sys.stderr.write(f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else ""))
        else:
            print_error(message, hint)
    return code
