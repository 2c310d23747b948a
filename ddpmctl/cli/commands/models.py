"""``ddpmctl models``: list the models; its subcommands are in files of their own."""

from dataclasses import asdict
from typing import Any

import typer
from rich.filesize import decimal
from rich.table import Column, Table

from ddpmctl.cli.commands.models_export import export_model
from ddpmctl.cli.commands.models_import import import_model
from ddpmctl.cli.commands.models_mv import mv
from ddpmctl.cli.commands.models_prune import prune
from ddpmctl.cli.commands.models_rm import rm
from ddpmctl.cli.commands.models_use import use
from ddpmctl.cli.commands.models_verify import verify
from ddpmctl.cli.formatting import age
from ddpmctl.cli.options import Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.registry import Registry
from ddpmctl.registry.listing import Listing, ModelSummary, list_models

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
    found = list_models(Registry())
    for entry in found.damaged:
        out.warn(f"{entry.name}: {entry.problem}")
    for run in found.unfinished:
        next_step = "it is being trained" if run.in_training else f"ddpmctl train --resume {run.name}"
        out.note(f"'{run.name}' is at step {run.steps:,} of {run.planned_steps:,}: {next_step}")
    empty = "no models yet; make one: ddpmctl demo, or ddpmctl train"
    bare = [model.name for model in found.models]
    out.result(_plain(found), _table(found.models) if found.models else empty, bare)


def _plain(found: Listing) -> dict[str, Any]:
    def best(model: ModelSummary) -> dict[str, Any] | None:
        fields = ("name", "parameterization", "value")
        return {name: getattr(model.best, name) for name in fields} if model.best else None

    progress = ("name", "steps", "planned_steps", "stopped")
    return {
        "models": [asdict(model) | {"best": best(model)} for model in found.models],
        "unfinished": [{name: getattr(run, name) for name in progress} for run in found.unfinished],
        "damaged": [asdict(entry) for entry in found.damaged],
    }


def _table(models: list[ModelSummary]) -> Table:
    # Names are there to be copied: they are never cut, the other columns wrap.
    name = Column("name", no_wrap=True, min_width=max(len(model.name) for model in models))
    best = Column("best MSE", no_wrap=True)
    table = Table(name, "dataset", "preset", "epochs", best, "parameters", "size", "age", "", box=None)
    for model in models:
        table.add_row(
            model.name,
            model.dataset,
            model.preset,
            str(model.epochs),
            _mse(model),
            f"{model.parameters:,}",
            decimal(model.bytes),
            age(model.created),
            "in use" if model.in_use else "",
        )
    return table


def _mse(model: ModelSummary) -> str:
    best = model.best
    if best is None:
        return "-"
    return f"{best.value:.4f} ({best.parameterization}{', train' if best.name == 'train_mse' else ''})"


for _name, _command in (
    ("use", use),
    ("mv", mv),
    ("rm", rm),
    ("prune", prune),
    ("verify", verify),
    ("export", export_model),
    ("import", import_model),
):
    app.command(_name)(_command)
