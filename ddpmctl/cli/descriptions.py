"""Models and pictures as facts in words and tables."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ddpmctl.cli.formatting import age, words
from ddpmctl.cli.output import escaped
from ddpmctl.config import SamplingConfig
from ddpmctl.registry import Checkpoint, Manifest, SegmentRecord

if TYPE_CHECKING:
    from ddpmctl.imaging.provenance import Provenance


def describe_picture(path: Path, provenance: "Provenance") -> Iterator[tuple[str, str]]:
    """How a picture was made."""
    from ddpmctl.sampling.reproduce import model_status

    yield "picture", f"{path}, {provenance.kind}"
    yield "shows", ", ".join(provenance.classes[:20]) or "see its array of labels"
    yield "model", f"{provenance.model}, {model_status(provenance)}"
    yield "digest", provenance.digest
    yield "seed", str(provenance.seed)
    yield "sampling", describe_sampling(provenance)
    yield "machine", f"{provenance.device} in {provenance.precision}, {provenance.batch} at once at most"
    enlarged = f"{provenance.upscale} times ({provenance.interpolation})"
    yield "enlarged", enlarged if provenance.upscale > 1 else "no"
    yield "made by", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    yield "again", provenance.command


def describe_sampling(sampling: "SamplingConfig | Provenance") -> str:
    """Sampler, steps and guidance."""
    guidance = "no guidance" if sampling.guidance == 1 else f"guidance {sampling.guidance:g}"
    if sampling.guidance != 1 and sampling.guidance_interval != (0, 1):
        guidance += " from {:g} to {:g} of the chain".format(*sampling.guidance_interval)
    return f"{sampling.sampler}, {sampling.steps} steps, {guidance}"


def describe(checkpoint: Checkpoint, last: Manifest) -> Iterator[tuple[str, str]]:
    """A model; ``last`` is the manifest of its last checkpoint, which records the whole run."""
    manifest, run = checkpoint.manifest, last.run
    config, best = manifest.config, manifest.best
    model, chain, recipe = config.model, config.diffusion, config.training
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
    yield "sampling", describe_sampling(config.sampling)
    yield "made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    total = sum(record.size for record in manifest.files.values())
    yield "files", f"{total / 1e6:.1f} MB in {checkpoint.path}"
    yield "digest", checkpoint.digest


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


def loss_curves(rows: list[dict[str, str]], *, plain: bool) -> Iterator[RenderableType]:
    """Training and validation MSE over the epochs."""
    if len(rows) < 2:
        return
    from ddpmctl.cli.terminal import curve

    for column, title in (("train_mse", "train MSE"), ("validation_mse", "validation MSE")):
        values = [float(row[column]) for row in rows if row.get(column)]
        if len(values) > 1:
            yield f"\n{title} over {len(values)} epochs, logarithmic"
            yield Text(curve(values, plain=plain))


def facts_table(pairs: Iterator[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in pairs:
        table.add_row(Text(name, style="bold"), escaped(value))
    return table


def table(rows: list[dict[str, str]]) -> RenderableType:
    """A row per epoch."""
    if not rows:
        return Text("no epoch is finished yet")
    columns = Table(*rows[0], box=None)
    for row in rows:
        columns.add_row(*row.values())
    return columns


def numbers_table(rows: list[dict[str, Any]]) -> RenderableType:
    """Numbers with four digits."""
    return table([{name: f"{value:.4g}" for name, value in row.items()} for row in rows])


def layers_table(shapes: dict[str, tuple[int, ...]]) -> Table:
    """Shape and parameters of each layer."""
    table = Table("layer", "shape", "parameters", box=None)
    for name, shape in shapes.items():
        table.add_row(name, " x ".join(map(str, shape)), f"{math.prod(shape):,}")
    table.add_row("total", "", f"{sum(map(math.prod, shapes.values())):,}")
    return table
