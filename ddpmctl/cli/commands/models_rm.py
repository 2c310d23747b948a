"""``ddpmctl models rm``."""

import sys
from typing import Annotated

import typer
from rich.filesize import decimal

from ddpmctl.cli.options import ExistingModels, Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.errors import Interrupted, Setting, UsageError
from ddpmctl.registry import Registry


def rm(
    names: ExistingModels,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove models with all their checkpoints.

    Example: ddpmctl models rm mnist-quick-1
    """
    out = Output("models rm", as_json=as_json, quiet=quiet)
    registry = Registry()
    for name in names:
        registry.check_removable(name)
    if not yes:
        _confirm(f"remove {', '.join(names)}?")
    freed = {name: registry.remove(name) for name in dict.fromkeys(names)}
    for name, size in freed.items():
        out.note(f"removed '{name}', {decimal(size)} freed")
    out.result({"removed": [{"name": name, "bytes": size} for name, size in freed.items()]}, bare=list(freed))


def _confirm(question: str) -> None:
    """Return only after a yes."""
    if not sys.stdin.isatty():
        raise UsageError(f"cannot ask for confirmation without a terminal: {question}", Setting("yes"))
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise Interrupted("nothing was removed")
