"""``ddpmctl models``."""

from datetime import UTC, datetime

import typer
from rich.table import Table

from ddpmctl.console import Output
from ddpmctl.registry import Checkpoint, Damaged, Registry

from .options import Json, Quiet

app = typer.Typer(
    help="List the models in the registry.\n\nExample: ddpmctl models",
    invoke_without_command=True,
    add_completion=False,
)


@app.callback()
def models(context: typer.Context, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the models in the registry.

    Example: ddpmctl models
    """
    if context.invoked_subcommand is None:
        show(as_json, quiet)


@app.command("ls")
def ls(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the models in the registry.

    Example: ddpmctl models ls --json
    """
    show(as_json, quiet)


def show(as_json: bool, quiet: bool) -> None:
    """Print a row a model, the newest first; what is damaged is listed as such."""
    out = Output("models", as_json=as_json, quiet=quiet)
    entries = list(Registry().survey())
    whole = [entry for entry in entries if isinstance(entry, Checkpoint)]
    whole.sort(key=lambda checkpoint: checkpoint.manifest.created, reverse=True)
    damaged = [entry for entry in entries if isinstance(entry, Damaged)]
    for entry in damaged:
        out.warn(f"{entry.name}: {entry.problem}")
    table = Table("name", "dataset", "preset", "epochs", "best MSE", "parameters", "size", "age", box=None)
    for checkpoint in whole:
        table.add_row(*_cells(checkpoint))
    data = {
        "models": [_record(checkpoint) for checkpoint in whole],
        "damaged": [{"name": entry.name, "problem": entry.problem} for entry in damaged],
    }
    empty = "no models yet; make one: ddpmctl demo, or ddpmctl train"
    out.result(data, table if whole else empty, bare=[checkpoint.name for checkpoint in whole])


def _cells(checkpoint: Checkpoint) -> list[str]:
    manifest = checkpoint.manifest
    best = manifest.best
    return [
        checkpoint.name,
        manifest.dataset.name,
        manifest.preset,
        str(manifest.run.epochs),
        f"{best.value:.4f} ({best.target}, {best.name.removesuffix('_mse')})",
        f"{manifest.parameters:,}",
        f"{_size(checkpoint) / 1e6:.1f} MB",
        age(manifest.created),
    ]


def _record(checkpoint: Checkpoint) -> dict[str, object]:
    manifest = checkpoint.manifest
    return {
        "name": checkpoint.name,
        "dataset": manifest.dataset.name,
        "preset": manifest.preset,
        "epochs": manifest.run.epochs,
        "best": {"name": manifest.best.name, "target": manifest.best.target, "value": manifest.best.value},
        "parameters": manifest.parameters,
        "bytes": _size(checkpoint),
        "created": manifest.created,
        "path": str(checkpoint.path),
    }


def _size(checkpoint: Checkpoint) -> int:
    return sum(record.size for record in checkpoint.manifest.files.values())


def age(created: str) -> str:
    """How long ago a UTC time was, in one unit."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now" if seconds < 10 else f"{int(seconds)} s"
