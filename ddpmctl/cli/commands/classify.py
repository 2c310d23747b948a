"""``ddpmctl classify``."""

from pathlib import Path
from typing import Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.evaluation import pictures_table
from ddpmctl.cli.output import Output, task_bars
from ddpmctl.cli.terminal_images import draw
from ddpmctl.paths import typed_file, typed_path
from ddpmctl.registry import open_model

MAX_MAPS = 20
"""Pictures in the file of --output."""

Pictures = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", parser=typed_path, help="Pictures in any image format.")
]
NoiseSeed = Annotated[int, typer.Option("--seed", rich_help_panel="Sampling", help="Random seed of the noise.")]
MapOutput = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        parser=typed_file,
        metavar="<path>",
        rich_help_panel="Files",
        help="Write a .png picture of the errors by class and timestep.",
    ),
]


def classify(
    images: Pictures,
    fit: options.PictureFit = None,
    invert: options.Invert = None,
    model: options.Model = None,
    seed: NoiseSeed = 0,
    output: MapOutput = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Classify pictures by how well a model denoises them as each class.

    Example: ddpmctl classify drawing.png

    A picture of 28x28 pixels or of the model's own size, light on dark, is taken as it is.

    Show which timesteps tell the classes apart: ddpmctl classify drawing.png -o errors.png
    """
    from ddpmctl.imaging.files import check_target, write_atomic

    out = Output("classify", as_json=as_json, quiet=quiet)
    if output:
        check_target(output, [".png"])
    checkpoint = open_model(model)
    # Imported late: importing torch takes a second.
    from ddpmctl.evaluation.denoising import check_classifier
    from ddpmctl.evaluation.pictures import classify_pictures, draw_error_maps, read_pictures
    from ddpmctl.sampling.engine import Engine

    check_classifier(checkpoint)
    drawings = read_pictures(checkpoint, images, fit, invert=invert)
    engine = Engine(checkpoint, device, precision)
    with task_bars(out) as progress:
        pictures = classify_pictures(engine, images, drawings, seed, progress)
        if output:
            write_atomic(output, draw_error_maps(engine, pictures[:MAX_MAPS], seed, progress))
    if output and len(pictures) > MAX_MAPS:
        out.note(f"{output} shows the first {MAX_MAPS} of {len(pictures)} pictures")
    draw(out, [drawing.pixels for drawing in drawings], show)
    result = {
        "model": checkpoint.name, "digest": checkpoint.digest, "seed": seed, "device": str(engine.device),
        "precision": engine.precision, "images": [picture.to_dict() for picture in pictures],
        "files": [str(output)] if output else [],
    }  # fmt: skip
    out.result(result, pictures_table(pictures), bare=[picture.label for picture in pictures])
