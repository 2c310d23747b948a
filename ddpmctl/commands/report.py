"""``ddpmctl report``."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpmctl import __version__
from ddpmctl.config import resolve_label
from ddpmctl.console import Output
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.registry import Checkpoint
from ddpmctl.registry.evaluations import kept_evaluation

from . import options
from .evaluate import times_the_floor
from .grid import make_sheet
from .inspect import describe
from .learning import Learning
from .sampling import Request, last_commit, prepare, steps_bar
from .showing import draw

if TYPE_CHECKING:
    from ddpmctl.engine import Engine
    from ddpmctl.report.page import Film, Told

DEFAULT = Path("report.html")
FRAMES = 50
"""Of the chain, and of the learning at most."""

MOST_MODELS = 6


def report(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Names, paths, or latest.", autocompletion=options.model_names),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="PATH", help="A .html file.")] = None,
    label: Annotated[str | None, typer.Option(metavar="LABEL", help="What the chain shows; three, or so.")] = None,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    show: options.Show = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write all about models into one page to look at.

    Example: ddpmctl report -o report.html

    Two models beside each other: ddpmctl report quick standard -o both.html

    The page needs nothing beside it, and no network: mail it, print it, put it on a phone.
    """
    from ddpmctl.imaging.files import check_target, free_path, write_whole
    from ddpmctl.report.page import page

    out = Output("report", as_json=as_json, quiet=quiet)
    path = output or free_path(DEFAULT)
    check_target(path, [".html"])
    references: list[str | None] = [*dict.fromkeys(models or [])] or [None]
    if len(references) > MOST_MODELS:
        raise UsageError(f"{len(references)} models do not fit beside each other", f"name {MOST_MODELS} at most")
    requests = [prepare(out, name, None, None, None, None, seed, device, precision) for name in references]
    indices = [_label(request.checkpoint, label) for request in requests]
    told = [_told(out, request, index, show) for request, index in zip(requests, indices, strict=True)]
    names = [request.checkpoint.name for request in requests]
    shown = {request.checkpoint.manifest.classes[index] for request, index in zip(requests, indices, strict=True)}
    made = f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by ddpmctl {__version__}: ddpmctl report {' '.join(names)}"
    write_whole(path, page(told, " and ".join(sorted(shown)), made).encode())
    size = path.stat().st_size
    out.note(f"{size / 1e6:.1f} MB; open it in a browser")
    out.result({"models": names, "file": str(path), "bytes": size}, bare=[str(path)])


def _label(checkpoint: Checkpoint, label: str | None) -> int:
    classes = checkpoint.manifest.classes
    return min(3, len(classes) - 1) if label is None else resolve_label(label, classes)


def _told(out: Output, request: Request, index: int, show: bool | None) -> "Told":
    """All that the page tells of one model."""
    from ddpmctl.assembly import build_diffusion
    from ddpmctl.report.page import Told

    checkpoint = request.checkpoint
    last = last_commit(out, checkpoint)
    sheet, _, images = make_sheet(out, request, rows=1, upscale=3)
    draw(out, images, show)
    schedule = build_diffusion(checkpoint.manifest.config.diffusion).schedule
    losses, first = _last_losses(last)
    evaluation = kept_evaluation(checkpoint)
    return Told(
        name=checkpoint.name,
        facts=list(_facts(checkpoint, last)),
        history=last.history,
        losses=losses,
        first_step=first,
        signal=schedule.alpha.tolist(),
        noise=schedule.sigma.tolist(),
        sheet=sheet,
        chain=_chain(out, request.load(out), request, index),
        learning=_learning(checkpoint, last),
        figures=_figures(evaluation) if evaluation else {},
        evaluated=_how(evaluation) if evaluation else "",
    )


def _facts(checkpoint: Checkpoint, last: Checkpoint) -> Iterator[tuple[str, str]]:
    """What `describe` says, but for what is true here and now alone."""
    for name, told in describe(checkpoint, last.manifest.run):
        if name == "model":
            yield "made", checkpoint.manifest.created[:16].replace("T", " ") + " UTC"
        elif name == "files":
            yield "size", told.partition(" in ")[0]
        else:
            yield name, told


def _chain(out: Output, engine: "Engine", request: Request, index: int) -> "Film":
    """From noise to an image in so many steps, each with what the network expects behind it."""
    import numpy as np

    from ddpmctl.chain import to_pixels
    from ddpmctl.report.page import Film

    steps, limits = min(FRAMES, len(engine.diffusion.schedule)), engine.diffusion.pixel_range
    sampling = replace(request.sampling, sampler="ddim", steps=steps)
    frames, captions = [], []
    with steps_bar(out, steps) as (bar, task):
        for step in engine.chain([index], request.seed, sampling):
            frames.append(np.concatenate([to_pixels(step.x, limits)[0], to_pixels(step.x0, limits)[0]], axis=1))
            captions.append(f"step {step.index + 1} of {steps}, from t = {step.t}")
            bar.advance(task)
    return Film(frames, captions)


def _learning(checkpoint: Checkpoint, last: Checkpoint) -> "Film | None":
    """What the training kept of its way; None where it kept nothing."""
    from ddpmctl.report.page import Film

    try:
        learning = Learning.read(checkpoint, last).picked(FRAMES)
    except CheckpointError:
        return None
    return Film(learning.rows(), [learning.when(number) for number in range(len(learning.steps))])


def _last_losses(last: Checkpoint) -> tuple[list[float], int]:
    """The loss of each step of the last epoch, and the number of its first step; none where nothing was kept."""
    resume, run = last.manifest.resume, last.manifest.run
    if resume is None or not run.step:
        return [], 0
    count = (run.step - 1) % resume.plan.steps_per_epoch + 1
    return last.state()["progress"][:count, 0].tolist(), run.step - count + 1


def _figures(found: dict[str, Any]) -> dict[str, str]:
    """An evaluation as the page has it; what is missing in it is left out."""
    told = {}
    try:
        told["label accuracy"] = f"{found['accuracy']:.2%}, real {found['real_accuracy']:.2%}"
        for name in ("frechet", "kernel"):
            one = found[name]
            over = times_the_floor(one["value"], one["floor"])
            told[f"{name} distance"] = f"{one['value']:.4g}{over} ({one['floor']:.4g})"
        for name in ("recall", "density", "coverage"):
            told[name] = f"{found['spread'][name]:.3f}, real {found['real_spread'][name]:.3f}"
        told["near-copies"] = f"{found['memory']['near_copies']:.2%}"
        told["speed"] = f"{found['images_per_second']:,.1f} images/s"
    except (LookupError, TypeError, ValueError):
        pass
    return told


def _how(found: dict[str, Any]) -> str:
    way = found.get("sampling", {})
    told = [f"{found.get('count', '?'):,} images from seed {found.get('seed', '?')}"]
    told += [f"{way.get('sampler')} in {way.get('steps')} steps, guidance {way.get('guidance')}"]
    return ", ".join([*told, *(str(found.get(name, "?")) for name in ("device", "precision", "created"))])
