"""``ddpmctl report``."""

from pathlib import Path
from typing import Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.output import Output, task_bars
from ddpmctl.cli.terminal_images import draw, warn_missing_glyphs
from ddpmctl.registry import open_model

DEFAULT = Path("report.html")


def report(
    models: options.ModelsArgument = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="<label>", help="Class whose denoising is shown.", show_default="the fourth class, or the last"
        ),
    ] = None,
    seed: options.SampleSeed = 0,
    output: options.PageOutput = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write an HTML page about one or more models.

    Example: ddpmctl report -o report.html

    Compare two models: ddpmctl report quick standard -o both.html

    The page is one self-contained file.
    """
    from ddpmctl.imaging.files import check_target, free_path, write_atomic

    out = Output("report", as_json=as_json, quiet=quiet)
    path = output or free_path(DEFAULT)
    check_target(path, [".html"])
    references: list[str | None] = [*(models or [])] or [None]
    checkpoints = [open_model(reference) for reference in references]
    for checkpoint in checkpoints:
        warn_missing_glyphs(out, checkpoint.manifest.classes)
    from ddpmctl.report.build import build_report

    with task_bars(out) as progress:
        built = build_report(checkpoints, label=label, seed=seed, device=device, precision=precision, progress=progress)
    for images in built.samples:
        draw(out, images, show)
    write_atomic(path, built.html.encode())
    size = path.stat().st_size
    out.note(f"{size / 1e6:.1f} MB; open it in a browser")
    names = [model.name for model in built.models]
    out.result({"models": names, "file": str(path), "bytes": size}, bare=[str(path)])
