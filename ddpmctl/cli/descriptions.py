"""Tables that describe models and images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ddpmctl.cli.formatting import age
from ddpmctl.cli.output import escaped
from ddpmctl.registry import Checkpoint, Manifest
from ddpmctl.report.description import describe_model, describe_sampling

if TYPE_CHECKING:
    from ddpmctl.imaging.provenance import Provenance


def describe_image(path: Path, provenance: "Provenance") -> Iterator[tuple[str, str]]:
    """How an image was generated."""
    from ddpmctl.sampling.reproduce import model_status

    yield "file", f"{path}, {provenance.kind}"
    yield "classes", ", ".join(provenance.classes[:20]) or "see the array 'labels'"
    yield "model", f"{provenance.model}, {model_status(provenance)}"
    yield "digest", provenance.digest
    yield "seed", str(provenance.seed)
    yield "sampling", describe_sampling(provenance)
    if provenance.mix:
        yield "mix", ", ".join(f"{weight:g} of class {label}" for label, weight in provenance.mix)
    if provenance.between:
        yield "noise", "interpolated from seed {} to seed {}".format(*provenance.between)
    if picture := provenance.picture:
        inverted = ", inverted" if picture.inverted else ""
        how = f"strength {picture.strength:g}, fit {picture.fit}{inverted}, sha256 {picture.digest[:12]}"
        yield "picture", f"{picture.file}, {how}"
        if picture.mask:
            yield "mask", f"{picture.mask}, sha256 {picture.mask_digest[:12]}"
    yield "device", f"{provenance.device} in {provenance.precision}, batch size {provenance.batch}"
    upscaling = f"x {provenance.upscale} ({provenance.interpolation})"
    yield "upscaling", upscaling if provenance.upscale > 1 else "none"
    yield "versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    yield "command", provenance.command


def describe(checkpoint: Checkpoint, last: Manifest) -> Iterator[tuple[str, str]]:
    """A model; ``last`` is the manifest of its last checkpoint, which records the whole run."""
    created = age(checkpoint.manifest.created)
    yield "model", f"{checkpoint.name}, created {'just now' if created == 'now' else f'{created} ago'}"
    for name, text in describe_model(checkpoint, last):
        yield ("files", f"{text} in {checkpoint.path}") if name == "size" else (name, text)


def loss_curves(rows: list[dict[str, str]], *, plain: bool) -> Iterator[RenderableType]:
    """Training and validation MSE over the epochs."""
    if len(rows) < 2:
        return
    from ddpmctl.cli.terminal import curve

    for column, title in (("train_mse", "train MSE"), ("validation_mse", "validation MSE")):
        values = [float(row[column]) for row in rows if row.get(column)]
        if len(values) > 1:
            yield f"\n{title} over {len(values)} epochs (log scale)"
            yield Text(curve(values, plain=plain))


def facts_table(pairs: Iterator[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in pairs:
        table.add_row(Text(name, style="bold"), escaped(value))
    return table


def table(rows: list[dict[str, str]]) -> RenderableType:
    """One row per epoch."""
    if not rows:
        return Text("no epoch has finished yet")
    columns = Table(*rows[0], box=None)
    for row in rows:
        columns.add_row(*row.values())
    return columns


def numbers_table(rows: Sequence[Mapping[str, float]]) -> RenderableType:
    """Numbers with four digits."""
    return table([{name: f"{value:.4g}" for name, value in row.items()} for row in rows])


def layers_table(shapes: dict[str, tuple[int, ...]]) -> Table:
    """Shape and parameters of each layer."""
    table = Table("layer", "shape", "parameters", box=None)
    for name, shape in shapes.items():
        table.add_row(name, " x ".join(map(str, shape)), f"{math.prod(shape):,}")
    table.add_row("total", "", f"{sum(map(math.prod, shapes.values())):,}")
    return table
