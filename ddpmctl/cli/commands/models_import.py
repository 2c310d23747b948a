"""``ddpmctl models import``."""

from pathlib import Path
from typing import Annotated

import typer

from ddpmctl.cli.options import Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.errors import CheckpointError
from ddpmctl.paths import typed_path
from ddpmctl.registry import Registry


def import_model(
    file: Annotated[
        Path,
        typer.Argument(
            parser=typed_path,
            metavar="FILE",
            help="Archive written by ddpmctl export, or .pt checkpoint of the original training scripts.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="<name>", help="Model name.", show_default="from the file name")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a model from a file into the registry, after verifying it.

    Example: ddpmctl models import demo.zip --name another

    Accepts archives of ddpmctl export, and checkpoints (.pt, torch.save) of the original training scripts.
    """
    out = Output("models import", as_json=as_json, quiet=quiet)
    if file.suffix.lower() in (".pt", ".pth"):
        from ddpmctl.original import import_original

        imported = import_original(Registry(), file, name)
    elif file.suffix.lower() == ".safetensors" and file.is_file():
        raise CheckpointError(
            f"{file} contains only weights, not a complete model",
            "export an archive: ddpmctl export NAME x.zip",
        )
    else:
        from ddpmctl.registry.archive import import_archive

        imported = import_archive(Registry(), file, name).parent.name
    out.note(f"imported '{imported}'; try it: ddpmctl grid --model {imported}")
    out.result({"model": imported}, bare=[imported])
