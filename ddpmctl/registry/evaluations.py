"""What an evaluation found of a model, kept beside it, for whoever tells of it later."""

import json
from contextlib import suppress
from typing import Any

from ddpmctl.registry.checkpoint import Checkpoint
from ddpmctl.registry.durable import replace_file
from ddpmctl.registry.writer import BEST

FILE = "evaluation.json"
VERSION = 1


def keep_evaluation(checkpoint: Checkpoint, found: dict[str, Any]) -> bool:
    """Keep it; returns whether that could be done. A model that was opened by the path of a commit has no place for it.

    Args:
        checkpoint: what was evaluated.
        found: plain values.
    """
    model = checkpoint.path.parent
    if not (model / BEST).is_file():
        return False
    text = json.dumps({"version": VERSION, "digest": checkpoint.digest, "found": found}, indent=2)
    with suppress(OSError):
        replace_file(model / FILE, f"{text}\n".encode())
        return True
    return False


def kept_evaluation(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What was found of just these weights; None where nothing was, or it cannot be read: it can be found again."""
    try:
        kept = json.loads((checkpoint.path.parent / FILE).read_text(encoding="utf-8"))
        if kept["version"] != VERSION or kept["digest"] != checkpoint.digest:
            return None
        found = kept["found"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
