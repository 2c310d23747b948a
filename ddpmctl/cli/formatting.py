"""Times as the command line shows them."""

from datetime import UTC, datetime

from ddpmctl.durations import format_duration as words
from ddpmctl.durations import parse_duration

__all__ = ["age", "parse_duration", "words"]


def age(created: str) -> str:
    """How long ago a UTC time was, in one unit."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now" if seconds < 10 else f"{int(seconds)} s"
