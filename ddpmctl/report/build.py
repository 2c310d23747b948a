"""`build_report`: models side by side on one page."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from ddpmctl import __version__
from ddpmctl.build import build_diffusion
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.evaluation.api import Progress, count_steps, no_progress
from ddpmctl.imaging.upscale import check_upscale
from ddpmctl.labels import typed_label
from ddpmctl.registry import Checkpoint, Registry, last_readable
from ddpmctl.registry.archive import without_folder
from ddpmctl.registry.evaluations import stored_evaluation
from ddpmctl.report.description import describe_model
from ddpmctl.report.page import FrameSequence, ModelReport, render_page
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.grid import grid_labels, sample_grid
from ddpmctl.sampling.loop import Images, to_pixels
from ddpmctl.sampling.request import SamplingRequest, command_line, public_name
from ddpmctl.sampling.training_film import TrainingFilm

log = logging.getLogger("ddpmctl")

FRAMES = 50
"""Maximum number of frames of a trajectory and of the previews."""

UPSCALE = 3
MAX_MODELS = 6
DEFAULT_LABEL = 3


@dataclass(frozen=True, slots=True)
class Report:
    """A page about models, and their samples: uint8[N,..] for each."""

    html: str
    models: tuple[ModelReport, ...]
    samples: tuple[Images, ...]


def build_report(
    models: Sequence[str | Checkpoint | None] = (None,),
    *,
    label: str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress = no_progress,
) -> Report:
    """Sample models and collect everything about them on one page: settings, curves, samples, a trajectory, metrics.

    Args:
        models: names or paths; the newest for None. A model given twice is shown once.
        label: the class whose denoising is shown; the fourth by default.
        seed: of the first sample.
    """
    requests: dict[object, SamplingRequest] = {}
    for model in models:
        checkpoint = model if isinstance(model, Checkpoint) else Registry().open(model)
        shown = min(DEFAULT_LABEL, len(checkpoint.manifest.classes) - 1) if label is None else label
        requests[checkpoint.digest, checkpoint.path] = SamplingRequest.resolve(
            checkpoint, [shown], seed=seed, device=device, precision=precision
        )
    if len(requests) > MAX_MODELS:
        raise UsageError(f"too many models: {len(requests)}", f"at most {MAX_MODELS}")
    reports, samples = zip(*(_report(request, progress) for request in requests.values()), strict=True)
    classes = {request.classes[0] for request in requests.values()}
    if label is not None and len(classes) == 1:
        # A class common to all models is recorded by its name; otherwise each model resolves the given label.
        first = next(iter(requests.values()))
        label = typed_label(first.labels[0], first.checkpoint.manifest.classes)
    argv = command_line("report", *(report.name for report in reports), seed=seed, label=label)
    created = f"Created {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by ddpmctl {__version__}: {shlex.join(argv)}"
    return Report(render_page(reports, " and ".join(sorted(classes)), created), reports, samples)


def _report(request: SamplingRequest, progress: Progress) -> tuple[ModelReport, Images]:
    """One model, and its samples."""
    checkpoint = request.checkpoint
    shape = checkpoint.manifest.config.model
    check_upscale(UPSCALE, "cubic", shape.num_classes, shape.image_size, shape.channels)
    last = last_readable(checkpoint)
    engine = Engine(checkpoint, request.device, request.precision)
    request = engine.resolve(request)
    every = engine.request(grid_labels(len(engine.classes), 1), request.seed, **request.options)
    grid = sample_grid(engine, every, UPSCALE, count_steps(progress, every))
    schedule = build_diffusion(checkpoint.manifest.config.diffusion).schedule
    losses, first_step = _last_losses(last)
    metrics, evaluation = _evaluation(checkpoint)
    report = ModelReport(
        name=public_name(checkpoint),
        settings=_settings(checkpoint, last),
        history=last.history,
        losses=losses,
        first_step=first_step,
        signal=schedule.alpha.tolist(),
        noise=schedule.sigma.tolist(),
        sheet=grid.pixels,
        chain=_chain(engine, request, progress),
        training=_training(checkpoint, last),
        metrics=metrics,
        evaluation=evaluation,
    )
    return report, grid.images


def _settings(checkpoint: Checkpoint, last: Checkpoint) -> list[tuple[str, str]]:
    """The description of a model, without the folder of its data, which is private."""
    dataset = checkpoint.manifest.dataset.name
    created = ("created", checkpoint.manifest.created[:16].replace("T", " ") + " UTC")
    described = describe_model(checkpoint, last.manifest)
    public = without_folder(dataset)
    return [
        created,
        *((name, text.replace(dataset, public) if name == "dataset" else text) for name, text in described),
    ]


def _chain(engine: Engine, request: SamplingRequest, progress: Progress) -> FrameSequence:
    """From noise to an image in `FRAMES` steps of DDIM, or a student's own: x_t next to the predicted x_0."""
    config, shown = engine.config, request
    if not config.distillation:
        sampling = replace(request.sampling, sampler="ddim", steps=min(FRAMES, config.chain_length))
        shown = replace(request, sampling=sampling)
    steps, limits = engine.step_count(shown), engine.diffusion.pixel_range
    frames, captions, size = [], [], engine.config.model.image_size
    for step in engine.steps(shown):
        pair = [to_pixels(image, limits, size)[0] for image in (step.x, step.x0)]
        frames.append(np.concatenate(pair, axis=1))
        captions.append(f"step {step.index + 1} of {steps}, from t = {step.t}")
        progress("sampling trajectory", step.index + 1, steps)
    return FrameSequence(frames, captions)


def _training(checkpoint: Checkpoint, last: Checkpoint) -> FrameSequence | None:
    try:
        film = TrainingFilm.read(checkpoint, last, FRAMES)
    except CheckpointError:
        return None
    return FrameSequence(film.tiles(), film.captions)


def _last_losses(last: Checkpoint) -> tuple[list[float], int]:
    """The loss of each step of the last epoch, and the number of its first step; none if they were not stored."""
    resume, run = last.manifest.resume, last.manifest.run
    if resume is None or not run.step:
        return [], 0
    count = (run.step - 1) % resume.plan.steps_per_epoch + 1
    return last.state()["progress"][:count, 0].tolist(), run.step - count + 1


def _evaluation(checkpoint: Checkpoint) -> tuple[dict[str, str], str]:
    """The metrics that `evaluate` saved, and how they were measured; empty if nothing intact is saved."""
    saved = stored_evaluation(checkpoint)
    if saved is None:
        return {}, ""
    try:
        metrics = {"label accuracy": f"{saved['accuracy']:.2%}, real {saved['real_accuracy']:.2%}"}
        for name in ("frechet", "kernel"):
            distance = saved[name]
            ratio = "" if distance["ratio"] is None else f", {distance['ratio']:.2f} x the real-data floor"
            metrics[f"{name} distance"] = f"{_number(distance['value'])}{ratio} ({_number(distance['floor'])})"
        if saved["diversity"] is not None and saved["real_diversity"] is not None:
            for name in ("recall", "density", "coverage"):
                metrics[name] = f"{saved['diversity'][name]:.3f}, real {saved['real_diversity'][name]:.3f}"
        metrics["near-duplicates"] = f"{saved['memorization']['near_duplicates']:.2%}"
        metrics["speed"] = f"{saved['images_per_second']:,.1f} images/s"
        sampling = saved["sampling"]
        evaluation = (
            f"{saved['count']:,} images from seed {saved['seed']}, {sampling['sampler']} in {sampling['steps']} steps, "
            f"guidance {sampling['guidance']:g}, {saved['device']} in {saved['precision']}, {saved['created']}"
        )
    except (LookupError, TypeError, ValueError):
        return {}, ""
    return metrics, evaluation


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
