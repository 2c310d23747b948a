"""``ddpmctl animate``."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import PictureArguments, SamplingArguments, interpolated, steps_bar
from ddpmctl.cli.terminal_images import draw, play, warn_missing_glyphs
from ddpmctl.config import choose
from ddpmctl.errors import UsageError
from ddpmctl.paths import typed_path
from ddpmctl.registry import last_readable, open_model
from ddpmctl.sampling.variation import PLAIN, Between, Variation

if TYPE_CHECKING:
    from ddpmctl.imaging.animation import Timing
    from ddpmctl.sampling.animation import Animation

SUFFIXES = (".gif", ".webp", ".png")
DRAWN, LINES = 5, 12
"""Frames shown in the terminal for an animation that is not played, and the maximum number of lines."""

From = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="<path>", parser=typed_path, rich_help_panel="Editing", help="Picture to edit, as by edit."
    ),
]


def animate(
    label: options.Label = None,
    training: options.Training = None,
    frames: options.Frames = 60,
    fps: options.Fps = None,
    hold: options.Hold = 2.0,
    show: options.View = "x",
    picture: From = None,
    strength: options.Strength = None,
    fit: options.PictureFit = None,
    invert: options.Invert = None,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    between: options.Between = None,
    output: options.AnimationOutput = None,
    upscale: options.Upscale = 4,
    interpolation: options.Interpolation = "nearest",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    plays: options.Play = False,
    no_show: options.NoShow = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Animate the denoising of an image, or a model's training.

    Example: ddpmctl animate 3 -o three.gif

    All timesteps: ddpmctl animate 3 --sampler ddpm --steps 1000

    From a drawing: ddpmctl animate 8 --from drawing.png --strength 0.6

    From the noise of one seed to that of another: ddpmctl animate 3 --between 1 2

    Animate the previews of a training run: ddpmctl animate --training demo -o learning.gif
    """
    from ddpmctl.imaging.animation import Timing

    out = Output("animate", as_json=as_json, quiet=quiet)
    timing = Timing(frames, (20 if training is None else 5) if fps is None else fps, hold)
    sampling = SamplingArguments(
        model=model, sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed,
        device=device, precision=precision,
    )  # fmt: skip
    drawn = (plays, None if not no_show else False)
    edit = PictureArguments(path=picture, strength=strength, fit=fit, invert=invert)
    if training is not None:
        usual = (label, show, interpolation, between) == (None, "x", "nearest", None)
        if not usual or edit != PictureArguments() or sampling != SamplingArguments():
            raise UsageError("--training takes no label and no sampling options", "ddpmctl animate --training MODEL")
        _animate_training(out, training, output, timing, upscale, drawn)
        return
    if label is None:
        raise UsageError("missing argument LABEL", "ddpmctl animate 3, or ddpmctl animate --training MODEL")
    _animate_sampling(out, sampling, label, (edit, between), output, timing, (show, upscale, interpolation), drawn)


def _animate_sampling(
    out: Output,
    sampling: SamplingArguments,
    label: str,
    varied: tuple[PictureArguments, tuple[int, int] | None],
    output: Path | None,
    timing: "Timing",
    look: tuple[str, int, str],
    drawn: tuple[bool, bool | None],
) -> None:
    """Animate the denoising of one image, or the images between two seeds."""
    from ddpmctl.imaging.files import check_target, free_path, safe_stem, write_atomic
    from ddpmctl.sampling.animation import VIEWS, animate, interpolate
    from ddpmctl.sampling.files import Enlargement

    view, enlargement = choose("view", look[0], VIEWS), Enlargement(*look[1:])
    picture, between = varied
    if between and (picture.path or view != "x"):
        raise UsageError("--between cannot be combined with --from or --show", f"ddpmctl animate {label} --between 1 2")
    checkpoint = open_model(sampling.model)
    config, variation, count = checkpoint.manifest.config, PLAIN, 1
    if between:
        sampling, count = interpolated(sampling, between), timing.frames
        variation = Variation(between=Between.spread(between, count))
    elif picture != PictureArguments():
        variation = Variation(start=picture.read(out, checkpoint))
    if count == 1 and sampling.sampler is None and sampling.steps is None:
        strength = variation.start.record.strength if variation.start else 1.0
        steps = min(math.ceil(timing.frames / strength), config.diffusion.timesteps)
        sampling = replace(sampling, sampler="ddim", steps=steps)
    request = sampling.request(checkpoint, [label] * count, variation=variation)
    enlargement.check(config.model, timing.frames * (2 if view == "both" else 1))
    path = output or free_path(Path(f"{safe_stem(request.classes[0])}.gif"))
    check_target(path, SUFFIXES)
    engine, request = sampling.load(out, request)
    with steps_bar(out, engine.step_count(request) * count) as on_step:
        if variation.between:
            animation = interpolate(engine, request, timing, enlargement, on_step)
        else:
            animation = animate(engine, request, timing, view, enlargement, on_step)
    write_atomic(path, animation.encode(path.suffix.lower()))
    kept = len(animation.frames)
    if kept < timing.frames:
        out.note(f"{kept} frames: there are only {kept} sampling steps")
    _draw(out, animation, *drawn)
    record = {**request.to_dict(), "label": request.labels[0], "class": request.classes[0], "frames": kept}
    out.result({**record, "show": view, "files": [str(path)]}, bare=[str(path)])


def _animate_training(
    out: Output, reference: str, output: Path | None, timing: "Timing", upscale: int, drawn: tuple[bool, bool | None]
) -> None:
    """Animate the stored previews of a run."""
    from ddpmctl.imaging.files import check_target, write_atomic
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.training_film import TrainingFilm

    checkpoint = open_model(reference)
    film = TrainingFilm.read(checkpoint, last_readable(checkpoint), timing.frames)
    Enlargement(upscale).check(checkpoint.manifest.config.model, len(film.labels) * len(film.steps))
    path = output or film.default_file()
    check_target(path, SUFFIXES)
    warn_missing_glyphs(out, checkpoint.manifest.classes)
    animation = film.animate(timing, upscale)
    write_atomic(path, animation.encode(path.suffix.lower()))
    _draw(out, animation, *drawn)
    record = {"model": checkpoint.name, "digest": checkpoint.digest, "steps": film.steps}
    out.result({**record, "frames": len(film.steps), "files": [str(path)]}, bare=[str(path)])


def _draw(out: Output, animation: "Animation", plays: bool, show: bool | None) -> None:
    """Play it in the terminal, or show some of its frames in a row."""
    from ddpmctl.imaging.animation import pick

    frames = animation.small_frames
    if plays:
        play(out, frames, animation.timing.fps, animation.timing.hold)
    else:
        draw(out, [frames[k] for k in pick(len(frames), DRAWN)], show, LINES)
