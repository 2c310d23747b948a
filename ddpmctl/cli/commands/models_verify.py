"""``ddpmctl models verify``."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from ddpmctl.cli.options import Json, Quiet, model_names
from ddpmctl.cli.output import Output, escaped
from ddpmctl.errors import ExitCode
from ddpmctl.registry import Registry


def verify(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Model name.", show_default="all models", autocompletion=model_names),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify the checksums of models.

    Example: ddpmctl models verify

    Exits with 1 if a model is damaged.
    """
    out = Output("models verify", as_json=as_json, quiet=quiet)
    registry = Registry()
    if name is not None:
        registry.check_registered(name)
    found = [registry.verify(each) for each in ([name] if name else registry.all_names())]
    table = Table("name", "status", "size", box=None)
    for model in found:
        table.add_row(model.name, escaped(model.problem or "ok"), decimal(model.bytes))
    damaged = [model.name for model in found if model.problem]
    out.result({"models": [asdict(model) for model in found]}, table if found else "no models yet", bare=damaged)
    if damaged:
        raise typer.Exit(ExitCode.FAILED)
