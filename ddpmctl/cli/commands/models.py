"""``ddpmctl models``: list the models; each subcommand has its own file."""

from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.filesize import decimal
from rich.table import Column, Table

from ddpmctl.cli.commands.models_import import import_model
from ddpmctl.cli.commands.models_mv import mv
from ddpmctl.cli.commands.models_prune import prune
from ddpmctl.cli.commands.models_rm import rm
from ddpmctl.cli.commands.models_use import use
from ddpmctl.cli.commands.models_verify import verify
from ddpmctl.cli.formatting import age
from ddpmctl.cli.options import Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.registry import Checkpoint, Metric, Registry

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
        ls(as_json, quiet)


@app.command("ls")
def ls(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the models in the registry.

    Example: ddpmctl models ls --json
    """
    out = Output("models", as_json=as_json, quiet=quiet)
    registry = Registry()
    found, default = registry.overview(), registry.default()
    for entry in found.damaged:
        out.warn(f"{entry.name}: {entry.problem}")
    for last in found.unfinished:
        run = last.manifest.run
        busy = registry.in_training(last.name)
        next_step = "training in progress" if busy else f"ddpmctl train --resume {last.name}"
        out.note(f"'{last.name}' is unfinished (step {run.step:,} of {run.planned_steps:,}): {next_step}")
    records = [{**_record(best, last), "in_use": best.name == default} for best, last in found.models]
    data = {
        "models": records,
        "unfinished": [_progress(last) for last in found.unfinished],
        "damaged": [asdict(entry) for entry in found.damaged],
    }
    empty = "no models yet; train one: ddpmctl demo, or ddpmctl train"
    out.result(data, _table(found.models, default) if records else empty, bare=[best.name for best, _ in found.models])


def _record(best: Checkpoint, last: Checkpoint) -> dict[str, object]:
    manifest, metric = best.manifest, best.manifest.best
    mse = metric and {"name": metric.name, "parameterization": metric.parameterization, "value": metric.value}
    return {
        "name": best.name,
        "dataset": manifest.dataset.name,
        "preset": manifest.preset,
        "epochs": last.manifest.run.epochs,
        "best": mse,
        "parameters": manifest.parameters,
        "bytes": best.size,
        "created": manifest.created,
        "path": str(best.path),
    }


def _progress(last: Checkpoint) -> dict[str, object]:
    run = last.manifest.run
    return {"name": last.name, "steps": run.step, "planned_steps": run.planned_steps, "stopped": run.stopped}


def _table(models: Sequence[tuple[Checkpoint, Checkpoint]], default: str | None) -> Table:
    # Names are meant to be copied: they are never truncated, the other columns wrap.
    name = Column("name", no_wrap=True, min_width=max(len(best.name) for best, _ in models))
    mse = Column("best MSE", no_wrap=True)
    table = Table(name, "dataset", "preset", "epochs", mse, "parameters", "size", "age", "", box=None)
    for best, last in models:
        manifest = best.manifest
        table.add_row(
            best.name,
            manifest.dataset.name,
            manifest.preset,
            str(last.manifest.run.epochs),
            _mse(manifest.best),
            f"{manifest.parameters:,}",
            decimal(best.size),
            age(manifest.created),
            "default" if best.name == default else "",
        )
    return table


def _mse(best: Metric | None) -> str:
    if best is None:
        return "-"
    return f"{best.value:.4f} ({best.parameterization}{', train' if best.name == 'train_mse' else ''})"


for _name, _command in (
    ("use", use),
    ("mv", mv),
    ("rm", rm),
    ("prune", prune),
    ("verify", verify),
    ("import", import_model),
):
    app.command(_name)(_command)
