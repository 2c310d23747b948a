"""``ddpmctl animate``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.output import Output
from ddpmctl.cli.provenance import made_by
from ddpmctl.cli.sampling import Request, label_index, prepare, steps_bar
from ddpmctl.cli.terminal_images import draw, play, warn_of_boxes
from ddpmctl.config import choose
from ddpmctl.errors import UsageError
from ddpmctl.labels import typed_label
from ddpmctl.paths import typed_file

if TYPE_CHECKING:
    from ddpmctl.core.samplers import Step
    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.engine import Engine

SUFFIXES = (".gif", ".webp", ".png")
SHOWS = ("x", "x0", "both")
DRAWN, LINES = 5, 12
"""Frames that a terminal is shown of an animation that does not play, and lines that they fill at most."""


def animate(
    label: Annotated[str | None, typer.Argument(metavar="LABEL", help="A class name or index: three, 3.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", parser=typed_file, metavar="PATH", help="x.gif, x.webp or x.png (animated)."),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Show this model learning, in place of a label.", autocompletion=options.model_names
        ),
    ] = None,
    frames: Annotated[int, typer.Option(metavar="N", help="Frames; as many steps unless told otherwise.")] = 60,
    fps: Annotated[float | None, typer.Option(metavar="F", help="Frames a second; 20, or 5 of a training.")] = None,
    hold: Annotated[float, typer.Option(metavar="SECONDS", help="How long the last frame stays.")] = 2.0,
    show: Annotated[str, typer.Option(metavar="x|x0|both", help="The noisy image, the predicted one, or both.")] = "x",
    plays: Annotated[bool, typer.Option("--play", help="Play it in the terminal.")] = False,
    no_show: Annotated[bool, typer.Option("--no-show", help="Draw nothing in the terminal.")] = False,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    upscale: options.Upscale = 4,
    interpolation: options.Interpolation = "nearest",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a digit being carved out of noise, or a model learning.

    Example: ddpmctl animate 3 -o three.gif

    The full chain: ddpmctl animate 3 --sampler ddpm --steps 1000

    A model learning: ddpmctl animate --training demo -o learning.gif
    """
    out = Output("animate", as_json=as_json, quiet=quiet)
    timing = Timing(frames, (20 if training is None else 5) if fps is None else fps, hold)
    check_timing(timing)
    seen = Seen(plays, not no_show)
    if training is not None:
        chosen = (label, model, sampler, steps, guidance, guidance_interval, seed)
        usual = (show, interpolation, device, precision) == ("x", "nearest", "auto", "auto")
        if any(value is not None for value in chosen) or not usual:
            raise UsageError("a training is shown as it was kept", "ddpmctl animate --training MODEL, and no label")
        _show_learning(out, training, output, timing, upscale, seen)
        return
    if label is None:
        raise UsageError("no label was given", "ddpmctl animate 3, or ddpmctl animate --training MODEL")
    choose("view", show, SHOWS)
    way = (sampler, steps, guidance, guidance_interval)
    request = prepare(out, model, *way, seed, device, precision, default_sampler=("ddim", frames))
    _show_carving(out, request, label, output, timing, show, (upscale, interpolation), seen)


def _show_carving(
    out: Output,
    request: Request,
    label: str,
    output: Path | None,
    timing: "Timing",
    show: str,
    enlarged: tuple[int, str],
    seen: "Seen",
) -> None:
    from ddpmctl.imaging.files import check_target, free_path, safe_stem, write_whole
    from ddpmctl.imaging.upscale import check_upscale

    manifest, (upscale, interpolation) = request.checkpoint.manifest, enlarged
    index = label_index(out, label, manifest.classes)
    shape, count = manifest.config.model, timing.frames * (2 if show == "both" else 1)
    check_upscale(upscale, interpolation, count, shape.image_size, shape.channels)
    path = output or free_path(Path(f"{safe_stem(manifest.classes[index])}.gif"))
    check_target(path, SUFFIXES)

    engine = request.load(out)
    pictures = sample_frames(out, engine, request, index, timing.frames, show)
    named = typed_label(index, manifest.classes)
    typed: list[object] = ["animate", named, *timing.typed(), "--show", show, "--interpolation", interpolation]
    made = made_by(request, engine, "animation", [index], typed, upscale=upscale, interpolation=interpolation)
    write_whole(path, encode(pictures, path.suffix.lower(), timing.fps, timing.hold, upscale, interpolation, made))
    if len(pictures) < timing.frames:
        out.note(f"{len(pictures)} frames, since there are as many steps")
    seen.show_frames(out, pictures, timing)
    record = {**request.record(), "label": index, "class": manifest.classes[index], "frames": len(pictures)}
    out.result({**record, "show": show, "files": [str(path)]}, bare=[str(path)])


def _show_learning(
    out: Output, reference: str, output: Path | None, timing: "Timing", upscale: int, seen: "Seen"
) -> None:
    from ddpmctl.cli.training_film import Learning
    from ddpmctl.imaging.animation import animation
    from ddpmctl.imaging.files import check_target, write_whole
    from ddpmctl.imaging.upscale import check_upscale

    whole = Learning.of(out, reference)
    shape = whole.checkpoint.manifest.config.model
    learning = whole.picked(timing.frames)
    count = len(learning.labels) * len(learning.steps)
    check_upscale(upscale, "cubic", count, shape.image_size, shape.channels)
    path = output or learning.default_file()
    check_target(path, SUFFIXES)
    warn_of_boxes(out, learning.classes)
    made = learning.made([*map(str, timing.typed()), "--upscale", str(upscale)], upscale)
    write_whole(path, animation(learning.sheets(upscale), path.suffix.lower(), timing.fps, timing.hold, made))
    seen.show_frames(out, learning.rows(), timing)
    record = {"model": learning.checkpoint.name, "digest": learning.checkpoint.digest, "steps": learning.steps}
    out.result({**record, "frames": len(learning.steps), "files": [str(path)]}, bare=[str(path)])


@dataclass(frozen=True, slots=True)
class Timing:
    """How an animation runs.

    Attributes:
        frames: at most.
        fps: frames a second.
        hold: seconds that the last one stays.
    """

    frames: int
    fps: float
    hold: float

    def typed(self) -> list[object]:
        """As options."""
        return ["--frames", self.frames, "--fps", f"{self.fps:g}", "--hold", f"{self.hold:g}"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of an animation in the terminal.

    Attributes:
        play: all of it, moving.
        show: a few of its frames.
    """

    play: bool
    show: bool

    def show_frames(self, out: Output, frames: "list[Images]", timing: Timing) -> None:
        """Play it, or draw it as a row of frames from the first to the last."""
        from ddpmctl.imaging.animation import pick

        if self.play:
            play(out, frames, timing.fps, timing.hold)
        else:
            draw(out, [frames[k] for k in pick(len(frames), DRAWN)], None if self.show else False, LINES)


def check_timing(timing: Timing) -> None:
    """See that an animation of these numbers can be made.

    Raises:
        UsageError: when it cannot.
    """
    if not 1 <= timing.frames <= 1000:
        raise UsageError(f"{timing.frames} frames are not possible", "--frames 1..1000")
    if not 1 <= timing.fps <= 50:
        raise UsageError(f"{timing.fps:g} frames a second are not possible", "--fps 1..50")
    if not 0 <= timing.hold <= 60:
        raise UsageError(f"a hold of {timing.hold:g} seconds is not possible", "--hold 0..60")


def sample_frames(
    out: Output, engine: "Engine", request: Request, index: int, frames: int, show: str
) -> "list[Images]":
    """Run the chain once and keep ``frames`` of its steps, spread evenly, the last among them."""
    from ddpmctl.imaging.animation import pick

    kept = set(pick(request.sampling.steps, frames))
    pictures = []
    with steps_bar(out, request.sampling.steps) as (bar, task):
        for step in engine.trajectory(index, **request.keywords()):
            if step.index in kept:
                pictures.append(_frame(step, show, engine.diffusion.pixel_range, engine.config.model.image_size))
            bar.advance(task)
    return pictures


def encode(
    pictures: "list[Images]", suffix: str, fps: float, hold: float, factor: int, how: str, made: "Provenance"
) -> bytes:
    """Enlarge the frames and encode them, with how they were made."""
    from ddpmctl.imaging.animation import animation
    from ddpmctl.imaging.upscale import upscale

    return animation([upscale(picture, factor, how) for picture in pictures], suffix, fps, hold, made)


def _frame(step: "Step", show: str, pixel_range: tuple[float, float], size: int) -> "Images":
    import numpy as np

    from ddpmctl.sampling.loop import to_pixels

    views = {"x": [step.x], "x0": [step.x0], "both": [step.x, step.x0]}[show]
    return np.concatenate([to_pixels(view, pixel_range, size)[0] for view in views], axis=1)
