"""``ddpmctl models``: what there is."""

from typing import Any

import typer
from rich.table import Column, Table

from ddpmctl.cli.commands import keeping
from ddpmctl.cli.formatting import age
from ddpmctl.cli.options import Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.registry import Checkpoint, Damaged, Registry, last_readable

app = typer.Typer(
    help="List and manage the models in the registry.\n\nExample: ddpmctl models",
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


app.command("use")(keeping.use)
app.command("mv")(keeping.mv)
app.command("rm")(keeping.rm)
app.command("prune")(keeping.prune)
app.command("verify")(keeping.verify)
app.command("export")(keeping.export_model)
app.command("import")(keeping.import_model)


def show(as_json: bool, quiet: bool) -> None:
    """Print a row a model, the newest first; what is damaged is listed as such."""
    out = Output("models", as_json=as_json, quiet=quiet)
    registry = Registry()
    entries = [*registry.survey(), *(entry for entry in registry.unfinished() if isinstance(entry, Damaged))]
    whole = [entry for entry in entries if isinstance(entry, Checkpoint)]
    whole.sort(key=lambda checkpoint: checkpoint.manifest.created, reverse=True)
    damaged = [entry for entry in entries if isinstance(entry, Damaged)]
    for entry in damaged:
        out.warn(f"{entry.name}: {entry.problem}")
    records = [_record(checkpoint, last_readable(checkpoint)) for checkpoint in whole]
    in_use = registry.default()
    records = [{**record, "in_use": record["name"] == in_use} for record in records]
    # Names are there to be copied: they are never cut, the other columns wrap.
    name = Column("name", no_wrap=True, min_width=max((len(entry.name) for entry in whole), default=0))
    best = Column("best MSE", no_wrap=True)
    table = Table(name, "dataset", "preset", "epochs", best, "parameters", "size", "age", "", box=None)
    for record in records:
        table.add_row(*_cells(record), "in use" if record["in_use"] else "")
    unfinished = [entry for entry in registry.unfinished() if isinstance(entry, Checkpoint)]
    for last in unfinished:
        run = last.manifest.run
        way_on = "it is being trained" if registry.in_training(last.name) else f"ddpmctl train --resume {last.name}"
        out.note(f"'{last.name}' is at step {run.step:,} of {run.planned_steps:,}: {way_on}")
    data = {
        "models": records,
        "unfinished": [_progress(last) for last in unfinished],
        "damaged": [{"name": entry.name, "problem": entry.problem} for entry in damaged],
    }
    empty = "no models yet; make one: ddpmctl demo, or ddpmctl train"
    out.result(data, table if whole else empty, bare=[checkpoint.name for checkpoint in whole])


def _cells(record: dict[str, Any]) -> list[str]:
    best = record["best"]
    figure = (
        f"{best['value']:.4f} ({best['parameterization']}{', train' if best['name'] == 'train_mse' else ''})"
        if best
        else "-"
    )
    return [
        record["name"],
        record["dataset"],
        record["preset"],
        str(record["epochs"]),
        figure,
        f"{record['parameters']:,}",
        f"{record['bytes'] / 1e6:.1f} MB",
        age(record["created"]),
    ]


def _record(checkpoint: Checkpoint, last: Checkpoint) -> dict[str, Any]:
    manifest = checkpoint.manifest
    best = manifest.best
    return {
        "name": checkpoint.name,
        "dataset": manifest.dataset.name,
        "preset": manifest.preset,
        "epochs": last.manifest.run.epochs,
        "best": {"name": best.name, "parameterization": best.parameterization, "value": best.value} if best else None,
        "parameters": manifest.parameters,
        "bytes": _size(checkpoint),
        "created": manifest.created,
        "path": str(checkpoint.path),
    }


def _progress(last: Checkpoint) -> dict[str, Any]:
    run = last.manifest.run
    return {"name": last.name, "steps": run.step, "planned_steps": run.planned_steps, "stopped": run.stopped}


def _size(checkpoint: Checkpoint) -> int:
    return sum(record.size for record in checkpoint.manifest.files.values())
