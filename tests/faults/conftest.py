"""Prints the table of faults at the end of the suite."""

import pytest

from .tally import Tally, table

COLLECTED: list[Tally] = []


@pytest.fixture
def tallies() -> list[Tally]:
    """What came of each fault so far."""
    return COLLECTED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show it, once all are through."""
    if COLLECTED:
        terminalreporter.section("faults")
        terminalreporter.write_line(table(COLLECTED))
