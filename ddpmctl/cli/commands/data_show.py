"""``ddpmctl data show``."""

from pathlib import Path
from typing import Annotated

import typer

from ddpmctl.cli.options import DataDir, DatasetArgument, Json, Quiet, SheetOutput, Show, Upscale
from ddpmctl.cli.output import Output
from ddpmctl.cli.terminal_images import draw, warn_missing_glyphs
from ddpmctl.config import IMAGE_SIZES, choose
from ddpmctl.data import load_dataset, resolve_dataset


def show_sheet(
    name: DatasetArgument = "mnist",
    output: SheetOutput = None,
    image_size: Annotated[str, typer.Option(metavar="<32|64>", help="Image size in pixels.")] = "32",
    upscale: Upscale = 2,
    show: Show = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a grid of real images, preprocessed as in training.

    Example: ddpmctl data show strokes -o strokes.png
    """
    out = Output("data show", as_json=as_json, quiet=quiet)
    name, fit, _ = resolve_dataset(name)
    side = int(choose("image size", image_size, IMAGE_SIZES))
    from ddpmctl.imaging.files import check_target, free_path, png, write_atomic
    from ddpmctl.imaging.grid import labelled_grid
    from ddpmctl.imaging.upscale import check_upscale
    from ddpmctl.model_images import SHEET_ROWS, sheet_rows

    path = output or free_path(Path(f"{name.partition(':')[0]}.png"))
    check_target(path, [".png"])
    loaded = load_dataset(name, side, data_dir, fit=fit, notice=out.warn)
    check_upscale(upscale, "nearest", SHEET_ROWS * len(loaded.classes), side, int(loaded.images.shape[1]))
    warn_missing_glyphs(out, loaded.classes)
    rows, titles = sheet_rows(loaded)
    write_atomic(path, png(labelled_grid(rows, titles, upscale)))
    draw(out, [image for row in rows for image in row], show)
    out.note(f"{len(loaded):,} images of {len(loaded.classes)} classes")
    record = {"name": name, "images": len(loaded), "classes": list(loaded.classes), "files": [str(path)]}
    out.result(record, bare=[str(path)])
