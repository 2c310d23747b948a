"""``ddpmctl generate``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmctl.config import resolve_label
from ddpmctl.console import Output
from ddpmctl.errors import UsageError

from . import options
from .sampling import Request, prepare, steps_bar

if TYPE_CHECKING:
    from ddpmctl.imaging.upscale import Images

STDOUT = Path("-")
SUFFIXES = (".png", ".npz")
MAX_COUNT = 1_000_000


def generate(
    labels: Annotated[list[str], typer.Argument(metavar="LABEL", help="Class names or indices: eight, 8.")],
    count: Annotated[int, typer.Option("-n", "--count", metavar="COUNT", help="Images a label.")] = 1,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    upscale: options.Upscale = 1,
    interpolation: options.Interpolation = "cubic",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PATH", help="x.png, x.npz, a folder, or - for stdout.")
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make images of the labels you name.

    Example: ddpmctl generate 8 --upscale 4 -o eight.png

    Image k of the whole request is made from seed + k, so that any one can be made again alone.
    """
    from ddpmctl.imaging.upscale import check_upscale

    out = Output("generate", as_json=as_json, quiet=quiet)
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"a count of {count} is out of range", f"-n 1..{MAX_COUNT}")
    if output == STDOUT and as_json:
        raise UsageError("-o - and --json both want stdout", "choose one of them")
    request = prepare(out, model, sampler, steps, guidance, guidance_interval, seed, device, precision)
    manifest = request.checkpoint.manifest
    wanted = [index for text in labels for index in [resolve_label(text, manifest.classes)] * count]
    shape = manifest.config.model
    check_upscale(upscale, interpolation, len(wanted), shape.image_size, shape.channels)
    targets = plan_files(output, wanted, manifest.classes)

    images = _sample(out, request, wanted)
    images = _enlarged(images, upscale, interpolation)
    _write(targets, images, wanted, request.seed)
    paths = [str(path) for path in targets if path != STDOUT]
    made = [
        {"label": index, "class": manifest.classes[index], "seed": request.seed + k} for k, index in enumerate(wanted)
    ]
    if output != STDOUT:
        out.result({**request.record(), "upscale": upscale, "files": paths, "images": made}, bare=paths)


def plan_files(output: Path | None, wanted: list[int], classes: tuple[str, ...]) -> list[Path]:
    """Where the images go: one archive, one file each, or stdout; checked, but nothing is written yet."""
    from ddpmctl.imaging.files import check_target, free_path, numbered_paths, safe_stem

    if output == STDOUT:
        if len(wanted) > 1:
            raise UsageError(f"stdout takes one image, not {len(wanted)}", "-o images.npz holds any number")
        if sys.stdout.isatty():
            raise UsageError("a terminal cannot show the bytes of a PNG", "pipe them on, or name a file with -o")
        return [STDOUT]
    given = output is not None and not output.is_dir()
    stem = safe_stem(classes[wanted[0]]) if len(set(wanted)) == 1 else "images"
    path = output if output is not None and given else (output or Path()) / f"{stem}.png"
    check_target(path, SUFFIXES)
    if path.suffix.lower() == ".npz":
        return [path]
    if len(wanted) == 1:
        return [path if given else free_path(path)]
    return numbered_paths(path, len(wanted), fresh=not given)


def _sample(out: Output, request: Request, wanted: list[int]) -> "Images":
    engine = request.load(out)
    with steps_bar(out, request.sampling.steps * len(wanted)) as (bar, task):
        return engine.generate(wanted, **request.keywords(), on_step=lambda done: bar.advance(task, done))


def _enlarged(images: "Images", factor: int, interpolation: str) -> "Images":
    if factor == 1:
        return images
    import numpy as np

    from ddpmctl.imaging.upscale import upscale

    return np.stack([upscale(image, factor, interpolation) for image in images])


def _write(targets: list[Path], images: "Images", wanted: list[int], seed: int) -> None:
    from ddpmctl.imaging.files import npz, png, write_whole

    if targets == [STDOUT]:
        sys.stdout.buffer.write(png(images[0]))
        sys.stdout.buffer.flush()
    elif targets[0].suffix.lower() == ".npz":
        write_whole(targets[0], npz(images, wanted, [seed + k for k in range(len(wanted))]))
    else:
        for path, image in zip(targets, images, strict=True):
            write_whole(path, png(image))
