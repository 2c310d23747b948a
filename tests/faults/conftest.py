"""The table of faults at the end of the suite."""

from collections.abc import Iterator

import pytest

from .tally import Tally, table


@pytest.fixture(scope="session")
def tallies(request: pytest.FixtureRequest) -> Iterator[list[Tally]]:
    """What came of each fault so far; printed as a table once all are through."""
    collected: list[Tally] = []
    yield collected
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and collected:
        reporter.write_line("\n" + table(collected))
