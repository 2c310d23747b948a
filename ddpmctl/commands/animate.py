"""``ddpmctl animate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmctl.config import choose, resolve_label
from ddpmctl.console import Output
from ddpmctl.errors import UsageError

from . import options
from .making import made_by
from .sampling import Request, prepare, steps_bar

if TYPE_CHECKING:
    from ddpmctl.core.samplers import Step
    from ddpmctl.engine import Engine
    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images

SUFFIXES = (".gif", ".webp", ".png")
SHOWS = ("x", "x0", "both")


def animate(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A class name or index: three, 3.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PATH", help="x.gif, x.webp or x.png (animated).")
    ] = None,
    frames: Annotated[int, typer.Option(metavar="N", help="Frames; as many steps unless told otherwise.")] = 60,
    fps: Annotated[float, typer.Option(metavar="F", help="Frames a second.")] = 20,
    hold: Annotated[float, typer.Option(metavar="SECONDS", help="How long the last frame stays.")] = 2.0,
    show: Annotated[str, typer.Option(metavar="x|x0|both", help="The noisy image, the predicted one, or both.")] = "x",
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
    """Show a digit being carved out of noise.

    Example: ddpmctl animate 3 -o three.gif

    The full chain: ddpmctl animate 3 --sampler ddpm --steps 1000
    """
    from ddpmctl.imaging.files import check_target, free_path, safe_stem, write_whole
    from ddpmctl.imaging.upscale import check_upscale

    out = Output("animate", as_json=as_json, quiet=quiet)
    check_timing(frames, fps, hold)
    choose("view", show, SHOWS)
    way = (sampler, steps, guidance, guidance_interval)
    request = prepare(out, model, *way, seed, device, precision, default_sampler=("ddim", frames))
    manifest = request.checkpoint.manifest
    index = resolve_label(label, manifest.classes)
    shape = manifest.config.model
    check_upscale(upscale, interpolation, frames * (2 if show == "both" else 1), shape.image_size, shape.channels)
    path = output or free_path(Path(f"{safe_stem(manifest.classes[index])}.gif"))
    check_target(path, SUFFIXES)

    engine = request.load(out)
    pictures = sample_frames(out, engine, request, index, frames, show)
    typed: list[object] = ["animate", index, "--frames", frames, "--fps", f"{fps:g}", "--hold", f"{hold:g}"]
    typed += ["--show", show, "--interpolation", interpolation]
    made = made_by(request, engine, "animation", [index], typed, upscale=upscale, interpolation=interpolation)
    write_whole(path, encode(pictures, path.suffix.lower(), fps, hold, upscale, interpolation, made))
    if len(pictures) < frames:
        out.note(f"{len(pictures)} frames, since there are as many steps")
    record = {**request.record(), "label": index, "class": manifest.classes[index], "frames": len(pictures)}
    out.result({**record, "show": show, "files": [str(path)]}, bare=[str(path)])


def check_timing(frames: int, fps: float, hold: float) -> None:
    """See that an animation of these numbers can be made.

    Raises:
        UsageError: when it cannot.
    """
    if not 1 <= frames <= 1000:
        raise UsageError(f"{frames} frames are not possible", "--frames 1..1000")
    if not 1 <= fps <= 50:
        raise UsageError(f"{fps:g} frames a second are not possible", "--fps 1..50")
    if not 0 <= hold <= 60:
        raise UsageError(f"a hold of {hold:g} seconds is not possible", "--hold 0..60")


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
                pictures.append(_frame(step, show, engine.diffusion.pixel_range))
            bar.advance(task)
    return pictures


def encode(
    pictures: "list[Images]", suffix: str, fps: float, hold: float, factor: int, how: str, made: "Provenance"
) -> bytes:
    """Enlarge the frames and encode them, with how they were made."""
    from ddpmctl.imaging.animation import animation
    from ddpmctl.imaging.upscale import upscale

    return animation([upscale(picture, factor, how) for picture in pictures], suffix, fps, hold, made)


def _frame(step: "Step", show: str, pixel_range: tuple[float, float]) -> "Images":
    import numpy as np

    from ddpmctl.chain import to_pixels

    views = {"x": [step.x], "x0": [step.x0], "both": [step.x, step.x0]}[show]
    return np.concatenate([to_pixels(view, pixel_range)[0] for view in views], axis=1)
