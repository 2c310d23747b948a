"""``ddpmctl grid``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.output import Output
from ddpmctl.cli.provenance import made_by
from ddpmctl.cli.sampling import Request, prepare, steps_bar
from ddpmctl.cli.terminal_images import draw, warn_of_boxes
from ddpmctl.errors import UsageError
from ddpmctl.paths import typed_file

if TYPE_CHECKING:
    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.engine import Engine

DEFAULT = Path("test_results.png")
MAX_ROWS = 1000
WIDEST = 20
"""Images in a row; half of them where there is one of each class."""


def grid(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", parser=typed_file, metavar="PATH", help="A .png file.")
    ] = None,
    rows: Annotated[int, typer.Option(metavar="R", help="Samples a class.")] = 1,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    upscale: options.Upscale = 4,
    show: options.Show = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make the test sheet: every class, titled.

    Example: ddpmctl grid -o sheet.png --rows 3
    """
    from ddpmctl.imaging.files import check_target, free_path, png, write_whole
    from ddpmctl.imaging.upscale import check_upscale

    out = Output("grid", as_json=as_json, quiet=quiet)
    if not 1 <= rows <= MAX_ROWS:
        raise UsageError(f"{rows} rows are not possible", f"--rows 1..{MAX_ROWS}")
    path = output or free_path(DEFAULT)
    check_target(path, [".png"])
    request = prepare(out, model, sampler, steps, guidance, guidance_interval, seed, device, precision)
    shape = request.checkpoint.manifest.config.model
    check_upscale(upscale, "cubic", rows * shape.num_classes, shape.image_size, shape.channels)
    sheet, made, images = make_sheet(out, request, rows, upscale)
    write_whole(path, png(sheet, made))
    draw(out, images, show)
    out.result({**request.record(), "rows": rows, "upscale": upscale, "files": [str(path)]}, bare=[str(path)])


def make_sheet(
    out: Output, request: Request, rows: int, upscale: int, engine: "Engine | None" = None
) -> "tuple[Images, Provenance, Images]":
    """Sample every class and lay the images out: one of each in two titled rows, or a titled column a class.

    Args:
        engine: the model, where it is loaded already.

    Returns:
        The sheet, how it was made, and the images, uint8[N,..].
    """
    from ddpmctl.imaging.sheet import labelled_sheet

    classes = request.checkpoint.manifest.classes
    count = len(classes)
    warn_of_boxes(out, classes)
    engine = engine or request.load(out)
    with steps_bar(out, request.sampling.steps * rows * count) as (bar, task):
        images = engine.generate(
            list(range(count)) * rows, **request.keywords(), on_step=lambda done: bar.advance(task, done)
        )
    labels = list(range(count)) * rows
    made = made_by(
        request,
        engine,
        "sheet",
        labels,
        ["grid", "--rows", rows],
        count=len(labels),
        upscale=upscale,
        interpolation="cubic",
    )
    if rows == 1:
        columns = min(-(-count // 2), WIDEST // 2)
        lines = [range(start, min(start + columns, count)) for start in range(0, count, columns)]
        sheet = labelled_sheet(
            [[images[i] for i in line] for line in lines], [[classes[i] for i in line] for line in lines], upscale
        )
        return sheet, made, images
    parts: list[list[Images]] = []
    titles: list[list[str]] = []
    for start in range(0, count, WIDEST):  # a block of rows for so many classes
        shown = range(start, min(start + WIDEST, count))
        parts += [[images[row * count + label] for label in shown] for row in range(rows)]
        titles += [[classes[label] for label in shown], *[[] for _ in range(rows - 1)]]
    return labelled_sheet(parts, titles, upscale), made, images
