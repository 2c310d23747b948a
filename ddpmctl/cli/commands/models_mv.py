"""``ddpmctl models mv``."""

from typing import Annotated

import typer

from ddpmctl.cli.options import Json, Quiet, model_names
from ddpmctl.cli.output import Output
from ddpmctl.registry import Registry


def mv(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Model name.", autocompletion=model_names)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rename a model.

    Example: ddpmctl models mv mnist-quick-1 digits
    """
    out = Output("models mv", as_json=as_json, quiet=quiet)
    Registry().rename(old, new)
    out.result({"model": new, "before": old}, bare=[new])
