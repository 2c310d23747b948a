"""``ddpmctl demo``."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import SamplingArguments, steps_bar
from ddpmctl.cli.terminal_images import draw, warn_missing_glyphs
from ddpmctl.cli.training import run_training
from ddpmctl.config import load_preset
from ddpmctl.errors import CheckpointError, DataError, DdpmctlError, Setting
from ddpmctl.registry import Checkpoint, Registry, last_of, open_model
from ddpmctl.registry.manifest import FINISHED
from ddpmctl.training import runs
from ddpmctl.training.run_spec import RunSpec

NAME = "demo"
FOLDER = Path("ddpmctl-demo")
MAX_TRAINING = 120.0
"""Seconds: together with start-up and sampling, three minutes are enough on two slow cores."""

SEED = 0


def demo(
    retrain: Annotated[bool, typer.Option("--retrain", help="Train again even if a demo model exists.")] = False,
    data_dir: options.DataDir = None,
    show: options.Show = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a small model, generate its first images and write a page to play with it.

    Example: ddpmctl demo

    Takes up to three minutes on two CPU cores; a network connection is not needed.
    """
    out = Output("demo", as_json=as_json, quiet=quiet)
    try:
        FOLDER.mkdir(exist_ok=True)
    except OSError as error:
        raise DdpmctlError(
            f"cannot create the folder {FOLDER}: {error.strerror}", "change to a writable folder"
        ) from error
    checkpoint = None if retrain else finished_demo()
    if checkpoint is None and not retrain and is_unfinished():
        try:
            given = None if device == "auto" else device
            run_training(out, partial(runs.resume, NAME, data_dir=data_dir, device=given))
        except DataError as error:
            raise DataError(
                error.message, "pass the original ", Setting("data_dir"), ", or use ", Setting("retrain")
            ) from error
    elif checkpoint is None:
        _train(out, data_dir, device)
    else:
        dataset = checkpoint.manifest.dataset.name
        out.note(f"using the existing model '{NAME}' (trained on {dataset}); --retrain trains it again")
    files = write_images(out, device, show)
    out.note(
        "\nnext steps:\n"
        "  ddpmctl generate 8 --upscale 4 -o eight.png    generate one digit\n"
        "  ddpmctl animate 3 -o three.gif                 animate the denoising of a digit\n"
        "  ddpmctl grid --rows 5                          more samples of every class\n"
        "  ddpmctl inspect demo                           describe the model and its training\n"
        "  ddpmctl train                                  a better model, in hours or on a GPU\n"
        f"\nplay with the model: open {FOLDER / 'play.html'} in a browser"
    )
    out.result({"model": NAME, "files": files}, bare=files)


def finished_demo() -> Checkpoint | None:
    """The demo model, if its training finished."""
    if NAME not in Registry().names():
        return None
    try:
        checkpoint = Registry().open(NAME)
        ended = last_of(checkpoint).manifest.run.stopped
    except CheckpointError:
        return None
    return checkpoint if ended in FINISHED else None


def is_unfinished() -> bool:
    """Whether there is a demo run that can be resumed."""
    return any(isinstance(last, Checkpoint) and last.name == NAME for last in Registry().unfinished())


def write_images(out: Output, device: str, show: bool | None = None) -> list[str]:
    """Write a digit, a grid and an animation, and show the grid."""
    from ddpmctl.exports.api import export
    from ddpmctl.imaging.animation import Timing
    from ddpmctl.imaging.files import png, write_atomic
    from ddpmctl.sampling.animation import animate
    from ddpmctl.sampling.files import Enlargement, save_images
    from ddpmctl.sampling.grid import grid_labels, sample_grid

    sampling = SamplingArguments(model=NAME, seed=SEED, device=device)
    checkpoint = open_model(NAME)
    classes = checkpoint.manifest.classes
    engine, request = sampling.load(out, sampling.request(checkpoint, grid_labels(len(classes), 1)))
    eight, three = engine.request([8], SEED), engine.request([3], SEED, sampler="ddim", steps=60)
    paths = [FOLDER / name for name in ("eight.png", "sheet.png", "three.gif")]
    enlargement = Enlargement(8)
    save_images(paths[:1], enlargement.apply(engine.run(eight)), eight, enlargement)
    warn_missing_glyphs(out, classes)
    with steps_bar(out, request.sampling.steps * len(request.labels)) as on_step:
        sheet = sample_grid(engine, request, on_step=on_step)
    write_atomic(paths[1], png(sheet.pixels, sheet.provenance))
    with steps_bar(out, three.sampling.steps) as on_step:
        animation = animate(engine, three, Timing(), on_step=on_step)
    write_atomic(paths[2], animation.encode(".gif"))
    draw(out, sheet.images, show)
    paths.append(FOLDER / "play.html")
    export(checkpoint, paths[-1])
    return list(map(str, paths))


def _train(out: Output, data_dir: Path | None, device: str) -> None:
    from ddpmctl.data.downloads import mnist_or_strokes

    spec = RunSpec(
        preset="quick",
        dataset=mnist_or_strokes(data_dir),
        data_dir=data_dir,
        device=device,
        name=NAME,
        force=True,
        max_time=MAX_TRAINING,
        epochs=load_preset("quick").config.training.epochs,
    )
    run_training(out, partial(runs.train, spec))
