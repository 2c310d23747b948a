"""Output of a command: results on stdout, everything else on stderr; as text, as JSON, or bare."""

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ddpmctl.cli.streams import written_to_stdout
from ddpmctl.labels import is_displayable

JSON_VERSION = 1

WIDE, HIGH = 10_000, 25
"""Console size off a terminal: tables in pipes and files are neither cut nor wrapped."""


class Output:
    """Output of one command, and of the library's log records while it runs.

    Args:
        command: its name, for the JSON envelope.
        as_json: print the result as one JSON object ``{"version": 1, "command": .., "result": ..}``.
        quiet: print bare results and no notes.
    """

    def __init__(
        self,
        command: str,
        *,
        as_json: bool = False,
        quiet: bool = False,
        stdout: Console | None = None,
        stderr: Console | None = None,
    ) -> None:
        self.command = command
        self.as_json = as_json
        self.quiet = quiet
        self.stdout = stdout or _stdout_console()
        self.stderr = stderr or Console(stderr=True, highlight=False, markup=False, emoji=False)
        _show_log_records(self)

    @property
    def animated(self) -> bool:
        """Whether progress bars and live tables are drawn."""
        return self.is_interactive and not self.quiet

    @property
    def is_interactive(self) -> bool:
        """Whether stderr is a terminal and not a log or a notebook that claims to be one."""
        return self.stderr.is_terminal and not is_log()

    @property
    def supports_half_blocks(self) -> bool:
        """Whether stderr shows half blocks in 256 colours or more."""
        colours = self.stderr.color_system in ("256", "truecolor") and not self.stderr.no_color
        return colours and not self.stderr.legacy_windows and encodes(self.stderr, "\u2580")

    def draws(self, show: bool | None) -> bool:
        """Whether images are shown on stderr, which must be a terminal.

        Args:
            show: as given with ``--show/--no-show``; None draws unless output is JSON or quiet.
        """
        if show is None:
            return self.animated and not self.as_json
        if show and not self.is_interactive:
            self.note("images are not shown: stderr is not a terminal")
        return show and self.is_interactive

    def note(self, message: str) -> None:
        """Print a note on stderr, unless quiet."""
        if not self.quiet:
            self.stderr.print(escaped(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a warning on stderr."""
        self.stderr.print("warning:", escaped(message), soft_wrap=True, style="yellow")

    def result(
        self, data: Mapping[str, object], renderable: RenderableType | None = None, bare: Sequence[str] = ()
    ) -> None:
        """Print the result.

        Args:
            data: everything, for ``--json``.
            renderable: text or table; None prints the bare lines.
            bare: names or paths, one per line, for ``--quiet``.
        """
        with written_to_stdout():
            if self.as_json:
                envelope = {"version": JSON_VERSION, "command": self.command, "result": without_nan(data)}
                json.dump(envelope, sys.stdout, indent=2, allow_nan=False)
                sys.stdout.write("\n")
            elif self.quiet or renderable is None:
                for line in bare:
                    # Only a terminal needs control characters escaped.
                    self.stdout.print(escaped(line) if self.stdout.is_terminal else line)
            else:
                _wrap_cells(renderable)
                self.stdout.print(escaped(renderable) if isinstance(renderable, str) else renderable, soft_wrap=False)

    def progress(self, *columns: ProgressColumn) -> Progress:
        """A progress bar on stderr that disappears when done; invisible off a terminal."""
        default = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        return Progress(
            *(columns or (*default, TimeRemainingColumn())),
            console=self.stderr,
            transient=True,
            disable=not self.animated,
            redirect_stdout=False,
            redirect_stderr=False,
        )


class _LogHandler(logging.Handler):
    """Shows the library's log records as notes and warnings of the running command."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        show = self.output.warn if record.levelno >= logging.WARNING else self.output.note
        show(record.getMessage())


def _show_log_records(output: Output) -> None:
    """Send the records of the logger ``ddpmctl`` to this output, and to no earlier one."""
    log = logging.getLogger("ddpmctl")
    log.setLevel(logging.INFO)
    for handler in [each for each in log.handlers if isinstance(each, _LogHandler)]:
        log.removeHandler(handler)
    log.addHandler(_LogHandler(output))


@contextmanager
def task_bars(output: Output) -> Iterator[Callable[[str, int, int], None]]:
    """A callback ``(task, done, total)`` that draws a progress bar per task; a total of 0 is unknown."""
    with output.progress() as bars:
        ids: dict[str, TaskID] = {}

        def show(task: str, done: int, total: int) -> None:
            if task not in ids:
                ids[task] = bars.add_task(task)
            bars.update(ids[task], completed=done, total=total or None, visible=not 0 < total <= done)

        yield show


def without_nan(data: object) -> object:
    """The values with None for NaN and infinite numbers, which JSON does not have."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {name: without_nan(value) for name, value in data.items()}
    return [without_nan(value) for value in data] if isinstance(data, list | tuple) else data


def _wrap_cells(renderable: RenderableType) -> None:
    """Let tables wrap long cells, such as paths, which Rich would cut."""
    if isinstance(renderable, Group):
        for part in renderable.renderables:
            _wrap_cells(part)
    elif isinstance(renderable, Table):
        for column in renderable.columns:
            column.overflow = "fold"


def _stdout_console() -> Console:
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=WIDE, height=HIGH)


def escaped(text: str) -> str:
    """Text with escapes for control characters other than line breaks: file names may contain some."""
    if is_displayable(text):
        return text
    return "".join(
        char if char == "\n" or is_displayable(char) else char.encode("unicode_escape").decode() for char in text
    )


def is_log() -> bool:
    """Whether stderr claims to be a terminal but is not: colours forced on a pipe, or a notebook cell.

    Jupyter runs commands at a pseudo-terminal and shows every frame of what is redrawn.
    """
    forced = bool(os.environ.get("FORCE_COLOR")) or os.environ.get("TTY_COMPATIBLE") == "1"
    return "JPY_PARENT_PID" in os.environ or (forced and not sys.stderr.isatty())


def encodes(console: Console, text: str) -> bool:
    """Whether a console can write these characters; older Windows and the C locale lack many."""
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def print_error(message: str, hint: str | None) -> None:
    """Print an error and its hint on stderr."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.print("error:", escaped(message), style="bold red", soft_wrap=True)
    if hint:
        console.print(f"\nhint: {escaped(hint)}", soft_wrap=True)
