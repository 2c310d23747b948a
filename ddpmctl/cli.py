"""The command line's front door: the group of commands, and the one place where errors get their words."""

import io
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from . import __version__, plugins
from .console import print_error
from .errors import DdpmctlError, ExitCode, SpokenElsewhere, UsageError
from .ranks import ranks
from .threads import configure_threads

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C, 143 terminated. "
    "Models live in DDPMCTL_HOME or the user's data directory; DDPMCTL_OFFLINE=1 opens no socket; "
    "DDPMCTL_DEBUG=1 shows tracebacks."
)

app = typer.Typer(
    cls=plugins.PluginGroup,
    help="Train a denoising diffusion model from nothing, and make digits with it.\n\nBegin with: ddpmctl demo",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ddpmctl {__version__}")
        raise typer.Exit


WITH_TORCHRUN = ("train", "generate")
"""The commands that several processes can share."""


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """See that the subcommand makes sense in as many processes as there are."""
    command = context.invoked_subcommand
    if ranks().size > 1 and command not in WITH_TORCHRUN:
        raise UsageError(f"ddpmctl {command} is for one process", f"without torchrun: ddpmctl {command}")


class _Terminated(BaseException):
    """SIGTERM, as something that ``finally`` blocks see."""

    exit_code = ExitCode.TERMINATED


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def main() -> NoReturn:
    """Run the command line and exit with an `ExitCode`."""
    configure_threads()
    signal.signal(signal.SIGTERM, _terminate)
    here = ranks()
    if not here.is_first:
        # The first speaks for all, but for what goes wrong here alone.
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    # Windows' older encodings lack characters, and one of them must not end a training. Where Python has a way of its
    # own with such characters, as on stderr, that stays.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
    if not any(plugin.builtin for plugin in plugins.discover(plugins.COMMANDS)):
        print_error("ddpmctl runs from a checkout that is not installed", "pip install -e .")
        sys.exit(ExitCode.FAILED)
    code: int = ExitCode.OK
    try:
        app(prog_name="ddpmctl")
    except SystemExit as ended:  # how Typer ends what went well, and what was typed wrong
        code = ended.code if isinstance(ended.code, int) else ExitCode.OK
    except SpokenElsewhere as error:
        code = error.exit_code
    except DdpmctlError as error:
        code = _report(error.message, error.hint, error.exit_code)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        code = _report(f"{error.strerror or error}{where}", None, ExitCode.FAILED)
    except MemoryError:
        code = _report("there is not enough memory", "ask for fewer or smaller images", ExitCode.FAILED)
    except _Terminated:
        code = _report("terminated", None, ExitCode.TERMINATED)
    except Exception as error:
        words = f"something unforeseen happened: {type(error).__name__}: {error}"
        code = _report(words, "DDPMCTL_DEBUG=1 shows where; please report it", ExitCode.FAILED)
    if here.size > 1:
        # What is under way with processes that are gone never ends, and an orderly exit would wait for it; and gloo's
        # threads may abort a process whose interpreter goes away beneath them.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _report(message: str, hint: str | None, code: ExitCode) -> ExitCode:
    here = ranks()
    if not here.is_first:
        sys.stderr, message = sys.__stderr__, f"process {here.rank}: {message}"
    if os.environ.get("DDPMCTL_DEBUG") == "1":
        traceback.print_exc()
    # All on a machine were started with the same command line, and end by the same signal.
    if here.local == 0 or code not in (ExitCode.USAGE, ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        print_error(message, hint)
    return code
