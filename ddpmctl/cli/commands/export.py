"""``ddpmctl export``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from ddpmctl.cli import options
from ddpmctl.cli.output import Output
from ddpmctl.paths import typed_file
from ddpmctl.registry import open_model


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model name or path, or latest.", autocompletion=options.model_names)
    ],
    file: Annotated[
        Path,
        typer.Argument(
            parser=typed_file,
            metavar="FILE",
            help="Output file: x.html, x.onnx, x.zip or x.safetensors; overwritten if it exists.",
        ),
    ],
    licence: Annotated[
        str | None,
        typer.Option(metavar="<SPDX>", help="Licence named in the file, such as MIT or CC0-1.0; not for x.html."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a model to a file: a web page, ONNX, an archive or weights.

    Example: ddpmctl export demo demo.html

    A .html is a self-contained page that samples in the browser, without a network. A .onnx contains the network, with
    schedule and classes as metadata; it needs the extra 'onnx'. A .zip contains the model for ddpmctl models import,
    and a model card. A .safetensors contains the weights, with the settings as metadata.

    For a model in training, the best checkpoint so far is exported.
    """
    from ddpmctl.exports import api

    out = Output("export", as_json=as_json, quiet=quiet)
    api.check_export(file, licence)
    checkpoint = open_model(model)
    size = api.export(checkpoint, file, licence)
    opened = "; open it in a browser" if file.suffix.lower() == ".html" else ""
    out.note(f"wrote '{checkpoint.name}' to {file}, {decimal(size)}{opened}")
    out.result({"model": checkpoint.name, "file": str(file), "bytes": size}, bare=[str(file)])
