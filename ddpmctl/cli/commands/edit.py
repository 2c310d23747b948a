"""``ddpmctl edit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.images import write_images
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import PictureArguments, SamplingArguments, steps_bar
from ddpmctl.cli.terminal_images import draw
from ddpmctl.paths import expand, typed_path
from ddpmctl.registry import open_model
from ddpmctl.sampling.variation import Variation

if TYPE_CHECKING:
    from ddpmctl.sampling.request import SamplingRequest

DEFAULT_SHEET = Path("edited.png")

Picture = Annotated[str, typer.Argument(metavar="IMAGE", help="Picture in any image format.")]
EditLabel = Annotated[
    str, typer.Option("--label", metavar="<label>", rich_help_panel="Editing", help="Class name or index.")
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="<path>",
        parser=typed_path,
        rich_help_panel="Editing",
        help="Image of the same size: white changes, black is kept.",
    ),
]
Variants = Annotated[
    int,
    typer.Option("--count", "-n", min=1, max=1000, rich_help_panel="Editing", help="Variants, with seed, seed + 1, .."),
]
Sheet = Annotated[
    bool, typer.Option("--sheet", rich_help_panel="Files", help="Write one sheet: the picture and its variants.")
]


def edit(
    image: Picture,
    label: EditLabel,
    strength: options.Strength = None,
    mask: Mask = None,
    fit: options.PictureFit = None,
    invert: options.Invert = None,
    count: Variants = 1,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    output: options.ImagesOutput = None,
    sheet: Sheet = False,
    upscale: options.Upscale = 1,
    interpolation: options.Interpolation = "cubic",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a drawing or a photograph of one into images of a class.

    Example: ddpmctl edit drawing.png --label 8 --strength 0.6 -o eight.png

    For models of digits, the ink is found and placed as MNIST's digits are; dark on light is recognized and inverted.

    Keep a part of the picture: ddpmctl edit drawing.png --label 8 --mask mask.png

    The picture beside nine variants: ddpmctl edit drawing.png --label 8 -n 9 --sheet -o sheet.png
    """
    from ddpmctl.sampling.files import Enlargement

    out = Output("edit", as_json=as_json, quiet=quiet)
    sampling = SamplingArguments(
        model=model, sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed,
        device=device, precision=precision,
    )  # fmt: skip
    checkpoint = open_model(model)
    picture = PictureArguments(path=expand(image), strength=strength, fit=fit, invert=invert, mask=mask)
    varied = Variation(start=picture.read(out, checkpoint))
    request = sampling.request(checkpoint, [label] * count, variation=varied)
    if sheet:
        _write_sheet(out, sampling, request, output, upscale, show)
    else:
        write_images(out, sampling, request, Enlargement(upscale, interpolation), output, show)


def _write_sheet(
    out: Output,
    sampling: SamplingArguments,
    request: "SamplingRequest",
    output: Path | None,
    upscale: int,
    show: bool | None,
) -> None:
    """Sample the variants into one titled sheet."""
    from ddpmctl.imaging.files import check_target, free_path, png, write_atomic
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.grid import edit_grid

    path = output or free_path(DEFAULT_SHEET)
    check_target(path, [".png"])
    count = len(request.labels)
    Enlargement(upscale).check(request.checkpoint.manifest.config.model, count + 1)
    engine, request = sampling.load(out, request)
    with steps_bar(out, engine.step_count(request) * count) as on_step:
        grid = edit_grid(engine, request, upscale, on_step)
    write_atomic(path, png(grid.pixels, grid.provenance))
    draw(out, grid.images, show)
    out.result({**request.to_dict(), "count": count, "upscale": upscale, "files": [str(path)]}, bare=[str(path)])
