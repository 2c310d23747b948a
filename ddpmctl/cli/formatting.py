"""Ages as the command line shows them."""

from datetime import UTC, datetime


def age(created: str) -> str:
    """How long ago a UTC time in ISO format was, in one unit."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now" if seconds < 10 else f"{int(seconds)} s"
