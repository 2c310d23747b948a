"""``ddpmctl models use``."""

from ddpmctl.cli.options import ExistingModel, Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.registry import Registry


def use(
    name: ExistingModel,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Set the default model of commands without --model.

    Example: ddpmctl models use mnist-quick-1
    """
    out = Output("models use", as_json=as_json, quiet=quiet)
    Registry().use(name)
    out.note(f"'{name}' is now the default model")
    out.result({"model": name}, bare=[name])
