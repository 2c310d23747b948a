"""``ddpmctl report``."""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmctl import __version__
from ddpmctl.cli import options
from ddpmctl.cli.commands.grid import make_sheet
from ddpmctl.cli.commands.inspect import describe
from ddpmctl.cli.output import Output
from ddpmctl.cli.provenance import told_name
from ddpmctl.cli.sampling import Request, label_index, last_commit, prepare, steps_bar
from ddpmctl.cli.terminal_images import draw
from ddpmctl.cli.training_film import Learning
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.labels import typed_label
from ddpmctl.paths import typed_file
from ddpmctl.registry import Checkpoint
from ddpmctl.registry.archive import without_place
from ddpmctl.registry.evaluations import kept_evaluation

if TYPE_CHECKING:
    from ddpmctl.report.page import Film, Told
    from ddpmctl.sampling.engine import Engine

DEFAULT = Path("report.html")
FRAMES = 50
"""Of the chain, and of the learning at most."""

ENLARGED = 3
MOST_MODELS = 6


def report(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Names, paths, or latest.", autocompletion=options.model_names),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", parser=typed_file, metavar="PATH", help="A .html file.")
    ] = None,
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
    references: list[str | None] = [*(models or [])] or [None]
    asked = [prepare(out, name, None, None, None, None, seed, device, precision) for name in references]
    requests = list({(request.checkpoint.digest, request.checkpoint.path): request for request in asked}.values())
    if len(requests) > MOST_MODELS:
        raise UsageError(f"{len(requests)} models do not fit beside each other", f"name {MOST_MODELS} at most")
    indices = [_label(out, request.checkpoint, label) for request in requests]
    told = [_told(out, request, index, show) for request, index in zip(requests, indices, strict=True)]
    names = [model.name for model in told]
    shown = {request.checkpoint.manifest.classes[index] for request, index in zip(requests, indices, strict=True)}
    # The same class for all models is recorded by its name; else each model keeps its own reading of what was typed.
    named = typed_label(indices[0], requests[0].checkpoint.manifest.classes) if len(shown) == 1 else label
    typed = ["ddpmctl", "report", *names, "--seed", str(seed), *(["--label", named] if label and named else [])]
    made = f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by ddpmctl {__version__}: {shlex.join(typed)}"
    write_whole(path, page(told, " and ".join(sorted(shown)), made).encode())
    size = path.stat().st_size
    out.note(f"{size / 1e6:.1f} MB; open it in a browser")
    out.result({"models": names, "file": str(path), "bytes": size}, bare=[str(path)])


def _label(out: Output, checkpoint: Checkpoint, label: str | None) -> int:
    classes = checkpoint.manifest.classes
    return min(3, len(classes) - 1) if label is None else label_index(out, label, classes)


def _told(out: Output, request: Request, index: int, show: bool | None) -> "Told":
    """All that the page tells of one model."""
    from ddpmctl.build import build_diffusion
    from ddpmctl.imaging.upscale import check_upscale
    from ddpmctl.report.page import Told

    checkpoint = request.checkpoint
    shape = checkpoint.manifest.config.model
    check_upscale(ENLARGED, "cubic", shape.num_classes, shape.image_size, shape.channels)
    last = last_commit(out, checkpoint)
    engine = request.load(out)
    sheet, _, images = make_sheet(out, request, rows=1, upscale=ENLARGED, engine=engine)
    draw(out, images, show)
    schedule = build_diffusion(checkpoint.manifest.config.diffusion).schedule
    losses, first = _last_losses(last)
    figures, how = _evaluation(checkpoint)
    return Told(
        name=told_name(checkpoint),
        facts=list(_facts(checkpoint, last)),
        history=last.history,
        losses=losses,
        first_step=first,
        signal=schedule.alpha.tolist(),
        noise=schedule.sigma.tolist(),
        sheet=sheet,
        chain=_chain(out, engine, request, index),
        learning=_learning(checkpoint, last),
        figures=figures,
        evaluated=how,
    )


def _facts(checkpoint: Checkpoint, last: Checkpoint) -> Iterator[tuple[str, str]]:
    """What `describe` says, but for what is true here and now alone."""
    for name, told in describe(checkpoint, last.manifest):
        if name == "model":
            yield "made", checkpoint.manifest.created[:16].replace("T", " ") + " UTC"
        elif name == "files":
            yield "size", told.partition(" in ")[0]
        elif name == "data":  # where its owner keeps the images is nobody's business
            yield name, told.replace(checkpoint.manifest.dataset.name, without_place(checkpoint.manifest.dataset.name))
        else:
            yield name, told


def _chain(out: Output, engine: "Engine", request: Request, index: int) -> "Film":
    """From noise to an image in so many steps, each with what the network expects behind it."""
    import numpy as np

    from ddpmctl.report.page import Film
    from ddpmctl.sampling.loop import to_pixels

    steps, limits = min(FRAMES, len(engine.diffusion.schedule)), engine.diffusion.pixel_range
    sampling = replace(request.sampling, sampler="ddim", steps=steps)
    frames, captions, size = [], [], engine.config.model.image_size
    with steps_bar(out, steps) as (bar, task):
        for step in engine.chain([index], request.seed, sampling):
            pair = [to_pixels(image, limits, size)[0] for image in (step.x, step.x0)]
            frames.append(np.concatenate(pair, axis=1))
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


def _evaluation(checkpoint: Checkpoint) -> tuple[dict[str, str], str]:
    """What was found of a model as the page has it, and how; nothing where nothing whole is kept."""
    found = kept_evaluation(checkpoint)
    if found is None:
        return {}, ""
    try:
        figures = {"label accuracy": f"{found['accuracy']:.2%}, real {found['real_accuracy']:.2%}"}
        for name in ("frechet", "kernel"):
            one = found[name]
            over = "" if one["ratio"] is None else f", {one['ratio']:.2f} times the floor"
            figures[f"{name} distance"] = f"{_number(one['value'], '.4g')}{over} ({_number(one['floor'], '.4g')})"
        if found["spread"] is not None and found["real_spread"] is not None:
            for name in ("recall", "density", "coverage"):
                figures[name] = f"{found['spread'][name]:.3f}, real {found['real_spread'][name]:.3f}"
        figures["near-copies"] = f"{found['memory']['near_copies']:.2%}"
        figures["speed"] = f"{found['images_per_second']:,.1f} images/s"
        way = found["sampling"]
        how = f"{found['count']:,} images from seed {found['seed']}, {way['sampler']} in {way['steps']} steps, "
        how += f"guidance {way['guidance']:g}, {found['device']} in {found['precision']}, {found['created']}"
    except (LookupError, TypeError, ValueError):
        return {}, ""
    return figures, how


def _number(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)
