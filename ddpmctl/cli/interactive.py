"""``ddpmctl generate --interactive``: one model in memory, one label after the other."""

import sys
import time
from collections.abc import Callable, Iterator

from ddpmctl.cli.output import Output, print_error
from ddpmctl.errors import DdpmctlError, UsageError

ENOUGH = ("", "quit", "exit")


def ask(out: Output, make: Callable[[list[str], int], int], names: str) -> None:
    """Make what is asked for, line by line, until an empty line or the end of what is typed.

    Args:
        out: the voice of the command.
        make: makes images of these labels, the first of them from a seed so many beyond the first; returns how many.
        names: the labels there are, in words.

    Raises:
        DdpmctlError: off a terminal, at the end, where a line could not be made.
    """
    asked = sys.stdin.isatty()
    if asked:
        out.note(f"labels: {names}\nan empty line ends")
    made = refused = 0
    for line in _lines(out, asked):
        started = time.perf_counter()
        try:
            made += make(line.split(), made)
        except UsageError as error:
            refused += 1
            print_error(error.message, error.hint)
        else:
            out.note(f"{time.perf_counter() - started:.2f} s")
    if refused and not asked:
        raise DdpmctlError(f"{refused} of the lines could not be made", "see what is said above of each")


def _lines(out: Output, asked: bool) -> Iterator[str]:
    """What is typed, a line at a time."""
    while True:
        try:
            # The prompt is for people; what is piped in needs none.
            line = (out.stderr.input("label> ") if asked else sys.stdin.readline()).strip()
        except EOFError:
            out.note("")
            return
        if line.casefold() in ENOUGH:
            return
        yield line
