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
from ddpmctl.cli.descriptions import describe
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import SamplingArguments, last_commit, open_model, steps_bar
from ddpmctl.cli.terminal_images import draw, warn_of_boxes
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.labels import typed_label
from ddpmctl.registry import Checkpoint
from ddpmctl.registry.archive import without_place
from ddpmctl.registry.evaluations import kept_evaluation
from ddpmctl.sampling.request import SamplingRequest, public_name

if TYPE_CHECKING:
    from ddpmctl.report.page import Film, Told
    from ddpmctl.sampling.engine import Engine

DEFAULT = Path("report.html")
FRAMES = 50
"""Of the chain, and of the learning at most."""

ENLARGED = 3
MOST_MODELS = 6


def report(
    models: options.ModelsArgument = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="<label>", help="Class whose denoising is shown.", show_default="three, or another"),
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

    The page is one file that loads nothing from the network.
    """
    from ddpmctl.imaging.files import check_target, free_path, write_whole
    from ddpmctl.report.page import page

    out = Output("report", as_json=as_json, quiet=quiet)
    path = output or free_path(DEFAULT)
    check_target(path, [".html"])
    references: list[str | None] = [*(models or [])] or [None]
    sampling = SamplingArguments(seed=seed, device=device, precision=precision)
    asked = [_request(out, sampling, name, label) for name in references]
    requests = list({(request.checkpoint.digest, request.checkpoint.path): request for request in asked}.values())
    if len(requests) > MOST_MODELS:
        raise UsageError(f"{len(requests)} models do not fit beside each other", f"name {MOST_MODELS} at most")
    told = [_told(out, sampling, request, show) for request in requests]
    names = [model.name for model in told]
    shown = {request.classes[0] for request in requests}
    # The same class for all models is recorded by its name; else each model keeps its own reading of what was typed.
    named = typed_label(requests[0].labels[0], requests[0].checkpoint.manifest.classes) if len(shown) == 1 else label
    typed = ["ddpmctl", "report", *names, "--seed", str(seed), *(["--label", named] if label and named else [])]
    made = f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by ddpmctl {__version__}: {shlex.join(typed)}"
    write_whole(path, page(told, " and ".join(sorted(shown)), made).encode())
    size = path.stat().st_size
    out.note(f"{size / 1e6:.1f} MB; open it in a browser")
    out.result({"models": names, "file": str(path), "bytes": size}, bare=[str(path)])


def _request(out: Output, sampling: SamplingArguments, name: str | None, label: str | None) -> SamplingRequest:
    """The request for the image whose chain is shown."""
    checkpoint = open_model(out, name)
    default = min(3, len(checkpoint.manifest.classes) - 1)
    return sampling.request(checkpoint, [default if label is None else label])


def _told(out: Output, sampling: SamplingArguments, request: SamplingRequest, show: bool | None) -> "Told":
    """All that the page tells of one model."""
    from ddpmctl.build import build_diffusion
    from ddpmctl.imaging.upscale import check_upscale
    from ddpmctl.report.page import Told
    from ddpmctl.sampling.sheet import sample_sheet, sheet_labels

    checkpoint = request.checkpoint
    shape = checkpoint.manifest.config.model
    check_upscale(ENLARGED, "cubic", shape.num_classes, shape.image_size, shape.channels)
    last = last_commit(out, checkpoint)
    engine, request = sampling.load(out, request)
    warn_of_boxes(out, engine.classes)
    every = engine.request(sheet_labels(len(engine.classes), 1), request.seed, **request.options)
    with steps_bar(out, every.sampling.steps * len(every.labels)) as on_step:
        sheet = sample_sheet(engine, every, ENLARGED, on_step)
    draw(out, sheet.images, show)
    schedule = build_diffusion(checkpoint.manifest.config.diffusion).schedule
    losses, first = _last_losses(last)
    figures, how = _evaluation(checkpoint)
    return Told(
        name=public_name(checkpoint),
        facts=list(_facts(checkpoint, last)),
        history=last.history,
        losses=losses,
        first_step=first,
        signal=schedule.alpha.tolist(),
        noise=schedule.sigma.tolist(),
        sheet=sheet.pixels,
        chain=_chain(out, engine, request),
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


def _chain(out: Output, engine: "Engine", request: SamplingRequest) -> "Film":
    """From noise to an image in so many steps, each with what the network expects behind it."""
    import numpy as np

    from ddpmctl.report.page import Film
    from ddpmctl.sampling.loop import to_pixels

    steps, limits = min(FRAMES, len(engine.diffusion.schedule)), engine.diffusion.pixel_range
    shown = replace(request, sampling=replace(request.sampling, sampler="ddim", steps=steps))
    frames, captions, size = [], [], engine.config.model.image_size
    with steps_bar(out, steps) as on_step:
        for step in engine.steps(shown):
            pair = [to_pixels(image, limits, size)[0] for image in (step.x, step.x0)]
            frames.append(np.concatenate(pair, axis=1))
            captions.append(f"step {step.index + 1} of {steps}, from t = {step.t}")
            on_step(1)
    return Film(frames, captions)


def _learning(checkpoint: Checkpoint, last: Checkpoint) -> "Film | None":
    """What the training kept of its way; None where it kept nothing."""
    from ddpmctl.report.page import Film
    from ddpmctl.sampling.training_film import TrainingFilm

    try:
        film = TrainingFilm.read(checkpoint, last).pick(FRAMES)
    except CheckpointError:
        return None
    return Film(film.tiles(), film.captions)


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
