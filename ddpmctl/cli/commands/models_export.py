"""``ddpmctl models export``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from ddpmctl.cli.options import Json, Quiet, model_names
from ddpmctl.cli.output import Output
from ddpmctl.paths import typed_file
from ddpmctl.registry import open_model


def export_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model name or path, or latest.", autocompletion=model_names)
    ],
    file: Annotated[
        Path,
        typer.Argument(
            parser=typed_file,
            metavar="FILE",
            help="Output file: x.zip, or x.safetensors for the weights alone; overwritten if it exists.",
        ),
    ],
    licence: Annotated[
        str | None, typer.Option(metavar="<SPDX>", help="Licence named in the model card, such as MIT or CC0-1.0.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a model to a file.

    Example: ddpmctl models export demo demo.zip

    A .zip contains weights.safetensors, manifest.json, history.csv and a model card (README.md); a
    .safetensors file contains the weights, with the settings as metadata. For a model in training, the best checkpoint
    so far is exported.
    """
    from ddpmctl.registry.archive import check_export, export

    out = Output("models export", as_json=as_json, quiet=quiet)
    check_export(file, licence)
    checkpoint = open_model(model)
    size = export(checkpoint, file, licence)
    out.note(f"wrote '{checkpoint.name}' to {file}, {decimal(size)}")
    out.result({"model": checkpoint.name, "file": str(file), "bytes": size}, bare=[str(file)])
