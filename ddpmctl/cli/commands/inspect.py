"""``ddpmctl inspect``."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ddpmctl.cli import options
from ddpmctl.cli.formatting import age, words
from ddpmctl.cli.output import Output, encodes, escaped
from ddpmctl.cli.provenance import as_record, is_picture, tell
from ddpmctl.cli.sampling import last_commit, open_model
from ddpmctl.cli.terminal_images import draw, draw_picture, draw_sheet
from ddpmctl.config import DiffusionConfig
from ddpmctl.errors import CheckpointError
from ddpmctl.paths import expand, typed_file
from ddpmctl.registry import Checkpoint, Manifest, SegmentRecord

SCHEDULE_ROWS = 11
STRIP_LINES = 12


def inspect(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A name, a path, latest; or a picture.", autocompletion=options.model_names
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Shapes and parameters of each layer.")] = False,
    schedule: Annotated[bool, typer.Option("--schedule", help="Signal and noise over the chain.")] = False,
    history: Annotated[bool, typer.Option("--history", help="A row an epoch.")] = False,
    at: options.At = None,
    label: Annotated[str | None, typer.Option(metavar="LABEL", help="Of the image, with --at.")] = None,
    seed: Annotated[int, typer.Option(help="Of image and noise, with --at.")] = 0,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", parser=typed_file, metavar="PATH", help="Of the picture, with --at."),
    ] = None,
    show: options.Show = None,
    as_json: options.Json = False,
) -> None:
    """Tell what a model is, or how a picture was made.

    Example: ddpmctl inspect --schedule
    """
    out = Output("inspect", as_json=as_json)
    if model is not None and is_picture(model):
        picture = expand(model)
        draw_picture(out, picture, show)
        out.result(as_record(picture), _pairs(tell(picture)))
        return
    checkpoint = open_model(out, model)
    if at:
        from ddpmctl.cli.probe import look_at

        path, levels, sheet = look_at(out, checkpoint, at, label, seed, data_dir, device, output)
        draw_sheet(out, sheet, show)
        figures = Group(_numbers(levels), Text(f"\n{escaped(str(path))}"))
        out.result({"name": checkpoint.name, "file": str(path), "levels": levels}, figures)
        return
    last = last_commit(out, checkpoint)
    rows = last.history
    shapes = checkpoint.shapes()
    data = overview(checkpoint, last)
    curves = _loss_curve(rows, plain=not encodes(out.stdout, "\u2800"))
    parts: list[RenderableType] = [_pairs(describe(checkpoint, last.manifest)), *curves]
    _draw_strip(out, last, show)
    if history:
        data["history"] = rows
        parts += ["", _table(rows)]
    if layers:
        data["layers"] = [{"name": name, "shape": of, "parameters": math.prod(of)} for name, of in shapes.items()]
        parts += ["", _layers(shapes)]
    if schedule:
        points = list(schedule_points(checkpoint.manifest.config.diffusion))
        data["schedule"] = points
        parts += ["", _numbers(points)]
    out.result(data, Group(*parts))


def overview(checkpoint: Checkpoint, last: Checkpoint) -> dict[str, Any]:
    """Everything in the manifest, and where it lies; ``run`` and ``resume`` are those of the last commit."""
    manifest: dict[str, Any] = json.loads(checkpoint.manifest.to_json())
    where = {"name": checkpoint.name, "path": str(checkpoint.path), "digest": checkpoint.digest}
    run, resume = last.manifest.run, last.manifest.resume
    return {**where, **manifest, "run": asdict(run), "resume": asdict(resume) if resume else None}


def describe(checkpoint: Checkpoint, last: Manifest) -> Iterator[tuple[str, str]]:
    """What a person wants to know, as names and words; ``last`` is of the last commit, which has the whole run."""
    manifest, run = checkpoint.manifest, last.run
    config, best = manifest.config, manifest.best
    model, chain, recipe, sampling = config.model, config.diffusion, config.training, config.sampling
    made = age(manifest.created)
    yield "model", f"{checkpoint.name}, made {'just now' if made == 'now' else f'{made} ago'}"
    size = f"{model.image_size}x{model.image_size} {'grey' if model.channels == 1 else 'colour'}"
    yield "images", f"{size}, {model.num_classes} classes: {', '.join(manifest.classes[:12])}"
    norm = ", BatchNorm" if model.norm == "batch" else ""
    widths = "-".join(map(str, model.widths))
    yield "network", f"{model.network}, {manifest.parameters:,} parameters, widths {widths}{norm}"
    pixels = "" if chain.pixel_range == (-1, 1) else ", pixels from {:g} to {:g}".format(*chain.pixel_range)
    yield "chain", f"{chain.timesteps} steps, {chain.schedule} schedule, predicts {chain.parameterization}{pixels}"
    data = manifest.dataset
    images = f"{data.count:,} images, digest {data.digest[:12]}" if data.digest else "images not recorded"
    yield "data", f"{data.name}, {images}"
    if run.planned_steps:
        yield (
            "training",
            (
                f"preset {manifest.preset}, {run.step:,} of {run.planned_steps:,} steps, epoch {run.epochs}, "
                f"{run.images:,} images in {words(run.seconds)} ({_ending(run.stopped)})"
            ),
        )
        if last.resume:
            plan, count = last.resume.plan, len(last.resume.plan.segments)
            early = ", ends before the learning rate is zero" if plan.ends_early else ""
            yield "plan", f"{plan.steps:,} steps in {count} rate segment{'' if count == 1 else 's'}{early}"
        yield "recipe", f"{recipe.optimizer}, learning rate {recipe.lr:g}, batch {recipe.batch_size}, seed {run.seed}"
        yield "machine", f"{run.device}, {run.precision}"
    else:
        yield "training", f"preset {manifest.preset}, not recorded"
    if len(run.segments) > 1 or (run.segments and run.segments[0].why != "begun"):
        yield "parts", "\n".join(map(_segment, run.segments))
    if best:
        yield "best", f"{best.title} {best.value:.5f} of {best.parameterization}, epoch {best.epoch}"
    guidance = "no guidance" if sampling.guidance == 1 else f"guidance {sampling.guidance:g}"
    if sampling.guidance != 1 and sampling.guidance_interval != (0, 1):
        guidance += " from {:g} to {:g} of the chain".format(*sampling.guidance_interval)
    yield "sampling", f"{sampling.sampler}, {sampling.steps} steps, {guidance}"
    yield "made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    total = sum(record.size for record in manifest.files.values())
    yield "files", f"{total / 1e6:.1f} MB in {checkpoint.path}"
    yield "digest", checkpoint.digest


def schedule_points(config: DiffusionConfig) -> Iterator[dict[str, float]]:
    """Signal, noise and their ratio at timesteps spread over the chain."""
    from ddpmctl.build import build_diffusion

    chain = build_diffusion(config).schedule
    count = min(SCHEDULE_ROWS, len(chain))
    for i in range(count):
        t = round(i * (len(chain) - 1) / max(1, count - 1))
        yield {
            "t": t,
            "beta": float(chain.betas[t]),
            "alpha_bar": float(chain.alpha_bar[t]),
            "signal": float(chain.alpha[t]),
            "noise": float(chain.sigma[t]),
            "snr": float(chain.snr[t]),
        }


def _ending(stopped: str) -> str:
    return {
        "running": "more may follow",
        "done": "to its end",
        "early": "stopped early",
        "interrupted": "interrupted",
    }.get(stopped, stopped)


def _segment(part: SegmentRecord) -> str:
    exactly = "" if part.exact else ", not bit for bit"
    return f"{part.why} at step {part.step:,} of {part.planned_steps:,}, rate {part.peak_lr:g}, {part.device}{exactly}"


def _draw_strip(out: Output, last: Checkpoint, show: bool | None) -> None:
    """Draw what the training made last of the noise that it was always given, where that was kept."""
    if not out.draws(show) or last.manifest.resume is None:
        return
    try:
        strips, _ = last.strips()
    except CheckpointError as error:
        out.warn(error.message)
        return
    if len(strips) > 1:
        draw(out, strips[-1], show, STRIP_LINES)


def _loss_curve(rows: list[dict[str, str]], *, plain: bool) -> Iterator[RenderableType]:
    if len(rows) < 2:
        return
    from ddpmctl.cli.terminal import curve

    for column, title in (("train_mse", "train MSE"), ("validation_mse", "validation MSE")):
        values = [float(row[column]) for row in rows if row.get(column)]
        if len(values) > 1:
            yield f"\n{title} over {len(values)} epochs, logarithmic"
            yield Text(curve(values, plain=plain))


def _pairs(pairs: Iterator[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in pairs:
        table.add_row(Text(name, style="bold"), escaped(value))
    return table


def _table(rows: list[dict[str, str]]) -> RenderableType:
    if not rows:
        return Text("no epoch is finished yet")
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*row.values())
    return table


def _numbers(rows: list[dict[str, Any]]) -> RenderableType:
    return _table([{name: f"{value:.4g}" for name, value in row.items()} for row in rows])


def _layers(shapes: dict[str, tuple[int, ...]]) -> Table:
    table = Table("layer", "shape", "parameters", box=None)
    for name, shape in shapes.items():
        table.add_row(name, " x ".join(map(str, shape)), f"{math.prod(shape):,}")
    table.add_row("total", "", f"{sum(map(math.prod, shapes.values())):,}")
    return table
