"""``ddpmctl train``."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from ddpmctl.cli import options
from ddpmctl.cli.formatting import parse_duration
from ddpmctl.cli.orders import PLANNED, Order, Resumption, Watch
from ddpmctl.cli.output import Output
from ddpmctl.cli.training import Trained, carry_out, go_on
from ddpmctl.config import (
    DEVICES,
    EPOCHS,
    IMAGE_SIZES,
    PIXEL_RANGES,
    PRECISIONS,
    STEPS,
    Config,
    check_seed,
    choose,
    load_preset,
)
from ddpmctl.data import resolve_dataset
from ddpmctl.errors import DdpmctlError, UsageError
from ddpmctl.ranks import ranks
from ddpmctl.registry import Registry, last_of
from ddpmctl.training.saving import Every


def train(
    context: typer.Context,
    preset: options.Preset = "standard",
    sample_size: options.SampleSize = None,
    timesteps: options.Timesteps = None,
    schedule: options.Schedule = None,
    target: options.Target = None,
    pixel_range: options.PixelRange = None,
    norm: options.Norm = None,
    dataset: options.Dataset = "mnist",
    data_dir: options.DataDir = None,
    fit: options.Fit = None,
    channels: options.Channels = None,
    flip: options.Flip = False,
    image_size: options.ImageSize = None,
    epochs: options.Epochs = None,
    max_time: options.MaxTime = None,
    max_steps: options.MaxSteps = None,
    patience: options.Patience = None,
    batch_size: options.TrainBatchSize = None,
    lr: options.LearningRate = None,
    clip: options.Clip = None,
    accumulate: options.Accumulate = 1,
    one_timestep: options.OneTimestep = False,
    seed: options.FixedSeed = 0,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    compiled: options.Compile = False,
    name: options.Name = None,
    force: options.Force = False,
    resume: options.Resume = None,
    checkpoint_every: options.CheckpointEvery = None,
    log: options.Log = None,
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model and save it in the registry.

    Example: ddpmctl train --preset quick

    Ctrl-C stops and saves everything; --resume NAME continues as if the run had not been interrupted.

    With several processes: torchrun --standalone --nproc-per-node=2 -m ddpmctl train
    """
    out = Output("train", as_json=as_json, quiet=quiet)
    every = parse_every(checkpoint_every) if checkpoint_every else None
    watch = Watch(show=show, log=is_logged(log))
    if resume is not None:
        trained = go_on(out, _resumption(resume, _given_options(context), data_dir, every, watch))
    else:
        check_words(device, precision, seed, accumulate, max_steps)
        chosen = load_preset(preset)
        order = _order(context.params, _config(context.params, chosen.config), every, watch)
        # A learning rate belongs to a batch: who gives one of them gets the other of the preset, on every device.
        trained = carry_out(out, order if batch_size or lr else replace(order, by_device=chosen.by_device))
    if ranks().is_main_process:
        out.note(_next_command(trained))
        out.result(_outcome(trained.name), bare=[trained.name])


def _config(typed: dict[str, Any], preset: Config) -> Config:
    """The preset's settings, with what was typed in their place."""
    training = {name: typed[name] for name in ("epochs", "batch_size", "lr", "patience")} | {"clip_norm": typed["clip"]}
    training |= {"one_timestep": True, "stratified": False} if typed["one_timestep"] else {}
    training |= {"flip": True} if typed["flip"] else {}
    diffusion = {name: typed[name] for name in ("timesteps", "schedule", "pixel_range")}
    diffusion["parameterization"] = typed["target"]
    config = changed(preset, training, diffusion, {"norm": typed["norm"]})
    return sized(config, typed["image_size"], typed["sample_size"])


def _next_command(trained: Trained) -> str:
    """What to do with the model now: look at it, or train it better."""
    if trained.has_learned:
        return f"see it: ddpmctl grid --model {trained.name}"
    lower = f"ddpmctl train --lr {trained.lr / 10:.1g}" if trained.lr else "ddpmctl train"
    return f"train again, for longer or with a lower learning rate: {lower}"


def _order(typed: dict[str, Any], config: Config, every: Every | None, watch: Watch) -> Order:
    """What was asked of a new training.

    Args:
        typed: the command's parameters.
        config: checked settings.
        every: how often to commit.
        watch: what is seen of it.
    """
    if typed["accumulate"] > 1 and config.model.norm == "batch":
        raise UsageError(
            "BatchNorm in parts of a batch is another BatchNorm", "leave --accumulate out, or --norm group"
        )
    dataset, fit, channels = resolve_dataset(typed["dataset"], typed["fit"], typed["channels"])
    same = ("preset", "device", "precision", "seed", "name", "force", "accumulate", "compiled")
    return Order(
        config=config,
        dataset=dataset,
        fit=fit,
        channels=channels,
        data_dir=Path(typed["data_dir"]) if typed["data_dir"] else None,
        max_time=parse_duration(typed["max_time"]) if typed["max_time"] else None,
        max_steps=typed["max_steps"],
        within_epochs=typed["epochs"] is not None,
        any_sample_size=typed["sample_size"] is None,
        every=every,
        watch=watch,
        **{name: typed[name] for name in same},
    )


def _resumption(
    reference: str, given: dict[str, Any], data_dir: Path | None, every: Every | None, watch: Watch
) -> Resumption:
    """What was asked of a run that goes on.

    Raises:
        UsageError: for what cannot be asked of it.
    """
    epochs, accumulate = given.get("epochs"), given.get("accumulate")
    if epochs is not None and epochs not in EPOCHS:
        raise UsageError(f"{epochs} epochs more are not possible", f"--epochs {EPOCHS}")
    if "force" in given:
        raise UsageError("--resume goes on with a run and --force begins another in its place", "give one of the two")
    check_words(given.get("device", "auto"), given.get("precision", "auto"), 0, accumulate or 1)
    return Resumption(
        reference=reference,
        more_epochs=epochs,
        data_dir=data_dir,
        device=given.get("device"),
        precision=given.get("precision"),
        accumulate=accumulate,
        compiled=given.get("compile"),
        every=every,
        watch=watch,
        keeps={name: value for name, value in given.items() if name in PLANNED},
    )


def sized(config: Config, image_size: str | None, sample_size: int | None) -> Config:
    """Settings for images of this side; twice the side takes a level more, so that the bottleneck stays as small.

    Args:
        config: the preset's settings.
        image_size: side of the files; None for the preset's.
        sample_size: side at which the network computes; None for the same.

    Raises:
        UsageError: for a side that the network does not have.
    """
    model = config.model
    side = model.image_size if image_size is None else int(choose("image size", image_size, IMAGE_SIZES))
    widths = model.widths + model.widths[-1:] * (side // model.image_size // 2)
    try:
        computed = side if sample_size is None else sample_size
        return replace(config, model=replace(model, image_size=side, sample_size=computed, widths=widths))
    except ValueError as error:
        raise UsageError(f"that cannot be trained: {error}", "--preset standard or quick") from error


def is_logged(log: str | None) -> bool:
    """Whether a training is written down for TensorBoard, which must be here then.

    Raises:
        UsageError: for another name.
        DdpmctlError: where it is not installed.
    """
    if log is None:
        return False
    choose("log", log, ("tensorboard",))
    if find_spec("tensorboard") is None:
        raise DdpmctlError("tensorboard is not installed", "in the project's folder: pip install '.[tensorboard]'")
    return True


def parse_every(text: str) -> Every:
    """``30s``, ``200steps``, ``1epoch``.

    Raises:
        UsageError: for anything else.
    """
    try:
        return Every.parse(text)
    except ValueError as error:
        raise UsageError(str(error), "--checkpoint-every 30s, 200steps or 1epoch") from error


def changed(config: Config, training: dict[str, Any], diffusion: dict[str, Any], model: dict[str, Any]) -> Config:
    """Settings with those replaced that are not None.

    Raises:
        UsageError: for a value out of range.
    """
    pixel_range = diffusion["pixel_range"]
    if pixel_range is not None:
        diffusion = {**diffusion, "pixel_range": PIXEL_RANGES[choose("pixel range", pixel_range, PIXEL_RANGES)]}
    words = {"schedule": ("linear", "cosine"), "target": ("epsilon", "v", "x0"), "norm": ("group", "batch")}
    for kind, allowed in words.items():
        value = {**diffusion, **model, "target": diffusion["parameterization"]}[kind]
        if value is not None:
            choose(kind, value, allowed)
    try:
        chain = replace(config.diffusion, **_given(diffusion))
        full = config.sampling.steps == config.diffusion.timesteps
        steps = chain.timesteps if full else min(config.sampling.steps, chain.timesteps)
        return replace(
            config,
            model=replace(config.model, **_given(model)),
            diffusion=chain,
            training=replace(config.training, **_given(training)),
            sampling=replace(config.sampling, steps=steps),
        )
    except ValueError as error:
        raise UsageError(f"that cannot be trained: {error}", "ddpmctl train --help") from error


def _given_options(context: typer.Context) -> dict[str, Any]:
    """What was typed, by the name of the option."""
    typed = {name: value for name, value in context.params.items() if _was_typed(context, name)}
    if "max_time" in typed:
        typed["max_time"] = parse_duration(typed["max_time"])
    return {{"compiled": "compile"}.get(name, name.replace("_", "-")): value for name, value in typed.items()}


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _outcome(name: str) -> dict[str, Any]:
    """What came of a training, for ``--json``."""
    checkpoint = Registry().open(name)
    run, best = last_of(checkpoint).manifest.run, checkpoint.manifest.best
    assert best is not None, "a training ends with a best epoch"
    return {
        "name": name,
        "path": str(checkpoint.path),
        "steps": run.step,
        "seconds": run.seconds,
        "best": {
            "name": best.name,
            "parameterization": best.parameterization,
            "value": best.value,
            "epoch": best.epoch,
        },
    }


def check_words(device: str, precision: str, seed: int, accumulate: int, max_steps: int | None = None) -> None:
    """Refuse early, before torch is imported, what was typed wrong."""
    choose("device", device.partition(":")[0], DEVICES)
    choose("precision", precision, PRECISIONS)
    check_seed(seed)
    if max_steps is not None and max_steps not in STEPS:
        raise UsageError(f"a training of {max_steps} steps is not possible", f"--max-steps {STEPS}")
    if accumulate < 1:
        raise UsageError(f"a batch cannot be computed in {accumulate} parts", "--accumulate 1 or more")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
