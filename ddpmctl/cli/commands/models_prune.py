"""``ddpmctl models prune``."""

from typing import Annotated

import typer
from rich.filesize import decimal

from ddpmctl.cli.options import Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.registry import Registry


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove temporary files left by crashes; models and checkpoints are kept.

    Example: ddpmctl models prune --dry-run
    """
    out = Output("models prune", as_json=as_json, quiet=quiet)
    leftovers = Registry().prune(dry_run=dry_run)
    total, paths = sum(leftover.bytes for leftover in leftovers), [str(leftover.path) for leftover in leftovers]
    out.note(f"{len(paths)} temporary files, {decimal(total)} {'to be freed' if dry_run else 'freed'}")
    out.result({"dry_run": dry_run, "bytes": total, "paths": paths}, bare=paths)
