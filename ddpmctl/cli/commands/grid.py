"""``ddpmctl grid``."""

from pathlib import Path

from ddpmctl.cli import options
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import SamplingArguments, interpolated, steps_bar
from ddpmctl.cli.terminal_images import draw, warn_missing_glyphs
from ddpmctl.errors import UsageError
from ddpmctl.registry import open_model
from ddpmctl.sampling.variation import PLAIN, Between, Variation

DEFAULT = Path("test_results.png")


def grid(
    output: options.SheetOutput = None,
    rows: options.Rows = None,
    between: options.Between = None,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    upscale: options.Upscale = 4,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Generate a grid with titled samples of every class.

    Example: ddpmctl grid -o sheet.png --rows 3

    From the noise of one seed to that of another: ddpmctl grid --between 1 2
    """
    from ddpmctl.imaging.files import check_target, free_path, png, write_atomic
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.grid import grid_labels, sample_grid

    out = Output("grid", as_json=as_json, quiet=quiet)
    path = output or free_path(DEFAULT)
    check_target(path, [".png"])
    sampling = SamplingArguments(
        model=model, sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed,
        device=device, precision=precision,
    )  # fmt: skip
    rows = (7 if between else 1) if rows is None else rows
    if between:
        if rows == 1:
            raise UsageError("--between needs at least two rows", "--rows 7")
        sampling = interpolated(sampling, between)
    checkpoint = open_model(model)
    classes = checkpoint.manifest.classes
    variation = Variation(between=Between.spread(between, rows, len(classes))) if between else PLAIN
    request = sampling.request(checkpoint, grid_labels(len(classes), rows), variation=variation)
    Enlargement(upscale).check(checkpoint.manifest.config.model, len(request.labels))
    warn_missing_glyphs(out, classes)
    engine, request = sampling.load(out, request)
    with steps_bar(out, engine.step_count(request) * len(request.labels)) as on_step:
        sheet = sample_grid(engine, request, upscale, on_step)
    write_atomic(path, png(sheet.pixels, sheet.provenance))
    draw(out, sheet.images, show)
    out.result({**request.to_dict(), "rows": rows, "upscale": upscale, "files": [str(path)]}, bare=[str(path)])
