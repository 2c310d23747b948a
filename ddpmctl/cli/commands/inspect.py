"""``ddpmctl inspect``."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ddpmctl.cli import options
from ddpmctl.cli.descriptions import (
    describe,
    describe_image,
    facts_table,
    layers_table,
    loss_curves,
    numbers_table,
    table,
)
from ddpmctl.cli.output import Output, encodes, escaped
from ddpmctl.cli.terminal_images import draw, draw_file, draw_wide
from ddpmctl.config import DiffusionConfig
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.paths import expand, expand_home
from ddpmctl.registry import Checkpoint, last_readable, open_model
from ddpmctl.sampling.request import SamplingRequest, check_timesteps

IMAGE_SUFFIXES = (".png", ".gif", ".webp", ".npz")
SCHEDULE_ROWS = 11
PREVIEW_LINES = 12


def inspect(
    model: options.ModelOrImage = None,
    layers: options.Layers = False,
    schedule: options.ScheduleTable = False,
    history: options.History = False,
    at: options.At = None,
    label: options.ProbeLabel = None,
    seed: options.ProbeSeed = 0,
    output: options.ProbeOutput = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    show: options.Show = None,
    as_json: options.Json = False,
) -> None:
    """Describe a model, or show how an image was generated.

    Example: ddpmctl inspect --schedule
    """
    out = Output("inspect", as_json=as_json)
    if model is not None and is_image_file(model):
        _inspect_image(out, expand(model), show)
        return
    checkpoint = open_model(model)
    if at:
        if label is None:
            raise UsageError("--at requires --label", f"--at {at[0]} --label 8")
        request = SamplingRequest.resolve(checkpoint, [label], seed=seed, device=device, precision="fp32")
        _probe(out, request, at, data_dir, output, show)
        return
    last = last_readable(checkpoint)
    rows = last.history
    shapes = checkpoint.shapes()
    data = overview(checkpoint, last)
    curves = loss_curves(rows, plain=not encodes(out.stdout, "\u2800"))
    parts: list[RenderableType] = [facts_table(describe(checkpoint, last.manifest)), *curves]
    _draw_preview(out, last, show)
    if history:
        data["history"] = rows
        parts += ["", table(rows)]
    if layers:
        data["layers"] = [{"name": name, "shape": of, "parameters": math.prod(of)} for name, of in shapes.items()]
        parts += ["", layers_table(shapes)]
    if schedule:
        points = list(schedule_points(checkpoint.manifest.config.diffusion))
        data["schedule"] = points
        parts += ["", numbers_table(points)]
    out.result(data, Group(*parts))


def is_image_file(reference: str) -> bool:
    """Whether the argument is an image file and not a model."""
    return Path(reference).suffix.lower() in IMAGE_SUFFIXES and not expand_home(reference).is_dir()


def _inspect_image(out: Output, path: Path, show: bool | None) -> None:
    from ddpmctl.imaging.provenance import read_provenance
    from ddpmctl.sampling.reproduce import find_model

    draw_file(out, path, show)
    provenance = read_provenance(path)
    found = find_model(provenance)
    record = {"file": str(path), **asdict(provenance), "model_now": found.name if found else None}
    out.result(record, facts_table(describe_image(path, provenance)))


def _probe(
    out: Output,
    request: SamplingRequest,
    timesteps: list[int],
    data_dir: Path | None,
    output: Path | None,
    show: bool | None,
) -> None:
    """Probe the denoising of one image at several timesteps."""
    from ddpmctl.imaging.files import check_target, free_path, png, write_atomic

    check_timesteps(request.checkpoint, timesteps)
    path = output or free_path(Path(f"at-{'-'.join(map(str, timesteps))}.png"))
    check_target(path, [".png"])
    from ddpmctl.sampling.engine import Engine
    from ddpmctl.sampling.probe import probe_grid

    engine = Engine(request.checkpoint, request.device, request.precision)
    grid = probe_grid(engine, request.labels[0], timesteps, request.seed, data_dir)
    write_atomic(path, png(grid.pixels, grid.provenance))
    draw_wide(out, grid.pixels, show)
    figures = Group(numbers_table(grid.measurements), Text(f"\n{escaped(str(path))}"))
    out.result({"name": request.checkpoint.name, "file": str(path), "levels": grid.measurements}, figures)


def overview(checkpoint: Checkpoint, last: Checkpoint) -> dict[str, object]:
    """The manifest and its path; ``run`` and ``resume`` are those of the last checkpoint."""
    manifest: dict[str, object] = json.loads(checkpoint.manifest.to_json())
    where = {"name": checkpoint.name, "path": str(checkpoint.path), "digest": checkpoint.digest}
    run, resume = last.manifest.run, last.manifest.resume
    return {**where, **manifest, "run": asdict(run), "resume": asdict(resume) if resume else None}


def schedule_points(config: DiffusionConfig) -> Iterator[dict[str, float]]:
    """Signal, noise and their ratio at evenly spaced timesteps."""
    from ddpmctl.build import build_diffusion

    schedule = build_diffusion(config).schedule
    count = min(SCHEDULE_ROWS, len(schedule))
    for i in range(count):
        t = round(i * (len(schedule) - 1) / max(1, count - 1))
        yield {
            "t": t,
            "beta": float(schedule.betas[t]),
            "alpha_bar": float(schedule.alpha_bar[t]),
            "signal": float(schedule.alpha[t]),
            "noise": float(schedule.sigma[t]),
            "snr": float(schedule.snr[t]),
        }


def _draw_preview(out: Output, last: Checkpoint, show: bool | None) -> None:
    """Show the last preview of the training, if previews were saved."""
    if not out.draws(show) or last.manifest.resume is None:
        return
    try:
        previews, _ = last.previews()
    except CheckpointError as error:
        out.warn(error.message)
        return
    if len(previews) > 1:
        draw(out, previews[-1], show, PREVIEW_LINES)
