"""What a command says: results on stdout, everything else on stderr; for people, for programs, or bare."""

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ddpmctl.cli.streams import written_to_stdout
from ddpmctl.labels import is_displayable

JSON_VERSION = 1

WIDE, HIGH = 10_000, 25
"""Columns and lines of what is no terminal: tables in pipes and files are neither cut nor wrapped."""


class Output:
    """The voice of one command.

    Args:
        command: its name, for the JSON envelope.
        as_json: print results as one JSON object ``{"version": 1, "command": .., "result": ..}``.
        quiet: print bare results and no notes.
        stdout: console for results; the process's by default.
        stderr: console for everything else; the process's by default.
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
        """Whether bars and live tables may be drawn."""
        return self.is_seen and not self.quiet

    @property
    def is_seen(self) -> bool:
        """Whether stderr is a terminal before somebody's eyes, and no log or notebook that takes itself for one."""
        return self.stderr.is_terminal and not is_log()

    @property
    def has_blocks(self) -> bool:
        """Whether stderr shows half blocks in colours enough for a picture."""
        colours = self.stderr.color_system in ("256", "truecolor") and not self.stderr.no_color
        return colours and not self.stderr.legacy_windows and encodes(self.stderr, "\u2580")

    def draws(self, wanted: bool | None) -> bool:
        """Whether pictures are drawn on stderr: on a terminal for people, unless told otherwise; never elsewhere.

        Args:
            wanted: what was asked for, which is said where it cannot be; None for the usual.
        """
        if wanted is None:
            return self.animated and not self.as_json
        if wanted and not self.is_seen:
            self.note("nothing is drawn: this is no terminal")
        return wanted and self.is_seen

    def note(self, message: str) -> None:
        """Say something on stderr that is good to know, unless quiet."""
        if not self.quiet:
            self.stderr.print(escaped(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Say something on stderr that must not be missed."""
        self.stderr.print("warning:", escaped(message), soft_wrap=True, style="yellow")

    def result(self, data: Mapping[str, Any], human: RenderableType | None = None, bare: Sequence[str] = ()) -> None:
        """Print what the command was asked for.

        Args:
            data: everything, for ``--json``.
            human: what a person sees; the bare lines where there is nothing better.
            bare: ids or paths, one a line, for ``--quiet``.
        """
        with written_to_stdout():
            if self.as_json:
                envelope = {"version": JSON_VERSION, "command": self.command, "result": without_nan(data)}
                json.dump(envelope, sys.stdout, indent=2, allow_nan=False)
                sys.stdout.write("\n")
            elif self.quiet or human is None:
                for line in bare:
                    # A program gets names as they are, a terminal what it can show.
                    self.stdout.print(escaped(line) if self.stdout.is_terminal else line)
            else:
                _never_cut(human)
                self.stdout.print(escaped(human) if isinstance(human, str) else human, soft_wrap=False)

    def progress(self, *columns: ProgressColumn) -> Progress:
        """A progress bar on stderr that vanishes when done and shows nothing off a terminal."""
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
    """Send the records of the logger ``ddpmctl`` to this output alone: there is one for each command that runs."""
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


def without_nan(data: Any) -> Any:
    """The same values with None for each number that is NaN or infinite, which JSON does not have."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {name: without_nan(value) for name, value in data.items()}
    return [without_nan(value) for value in data] if isinstance(data, list | tuple) else data


def _never_cut(human: RenderableType) -> None:
    """Let tables break what is too long for a cell, such as a path, over lines: Rich cuts it otherwise."""
    if isinstance(human, Group):
        for part in human.renderables:
            _never_cut(part)
    elif isinstance(human, Table):
        for column in human.columns:
            column.overflow = "fold"


def _stdout_console() -> Console:
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=WIDE, height=HIGH)


def escaped(text: str) -> str:
    """Text with escapes in place of what cannot be displayed: names of files may hold control sequences.

    Line breaks stay: messages have some.
    """
    if is_displayable(text):
        return text
    return "".join(
        char if char == "\n" or is_displayable(char) else char.encode("unicode_escape").decode() for char in text
    )


def is_log() -> bool:
    """Whether what looks like a terminal is none: colours that are forced on a pipe, or a cell of a notebook.

    Jupyter runs commands at a pseudo-terminal, and shows each picture of what is drawn over and over again.
    """
    forced = bool(os.environ.get("FORCE_COLOR")) or os.environ.get("TTY_COMPATIBLE") == "1"
    return "JPY_PARENT_PID" in os.environ or (forced and not sys.stderr.isatty())


def encodes(console: Console, text: str) -> bool:
    """Whether a console can write these characters; those of older Windows and of the C locale cannot write all."""
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def print_error(message: str, hint: str | None) -> None:
    """Say on stderr what failed and the way on."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.print("error:", escaped(message), style="bold red", soft_wrap=True)
    if hint:
        console.print(f"\nhint: {escaped(hint)}", soft_wrap=True)
