"""The result of a model's evaluation, stored with it."""

import json
from contextlib import suppress
from typing import Any

from ddpmctl.durable import replace_file
from ddpmctl.registry.checkpoint import Checkpoint
from ddpmctl.registry.pointers import BEST

FILE = "evaluation.json"
VERSION = 1


def store_evaluation(checkpoint: Checkpoint, evaluation: dict[str, object]) -> bool:
    """Store plain values with a model; returns False if that is not possible, as for a path to a checkpoint."""
    model = checkpoint.path.parent
    if not (model / BEST).is_file():
        return False
    text = json.dumps({"version": VERSION, "digest": checkpoint.digest, "evaluation": evaluation}, indent=2)
    with suppress(OSError):
        replace_file(model / FILE, f"{text}\n".encode())
        return True
    return False


def stored_evaluation(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The stored evaluation of exactly these weights; None if there is none or it cannot be read."""
    try:
        stored = json.loads((checkpoint.path.parent / FILE).read_text(encoding="utf-8"))
        if stored["version"] != VERSION or stored["digest"] != checkpoint.digest:
            return None
        evaluation = stored["evaluation"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return evaluation if isinstance(evaluation, dict) else None
