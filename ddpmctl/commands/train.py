"""``ddpmctl train``."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from ddpmctl.config import PRECISIONS, PRESETS, Config, choose, load_preset
from ddpmctl.console import Output
from ddpmctl.errors import UsageError
from ddpmctl.registry import Registry, last_of

from . import options
from .duration import parse_duration
from .training import Order, carry_out


def train(
    preset: Annotated[str, typer.Option(metavar="|".join(PRESETS), help="A set of good settings.")] = "standard",
    dataset: options.Dataset = "mnist",
    data_dir: options.DataDir = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="At most so many epochs.")] = None,
    max_time: Annotated[
        str | None,
        typer.Option(metavar="90s|10m|2h", help="Lay the run out to fit; with --epochs, whichever is shorter."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="B", help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(metavar="LR", help="Peak learning rate.")] = None,
    clip: options.Clip = None,
    accumulate: options.Accumulate = 1,
    compiled: options.Compiled = False,
    patience: Annotated[int | None, typer.Option(metavar="N", help="Epochs without a better MSE.")] = None,
    timesteps: Annotated[int | None, typer.Option(metavar="T", help="Length of the Markov chain.")] = None,
    schedule: Annotated[str | None, typer.Option(metavar="linear|cosine", help="Noise schedule.")] = None,
    target: Annotated[str | None, typer.Option(metavar="epsilon|v", help="What the network predicts.")] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the model; one is made up when not given.")] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model and keep it in the registry.

    Example: ddpmctl train --preset quick

    Ctrl-C ends a training and keeps the best so far.
    """
    out = Output("train", as_json=as_json, quiet=quiet)
    found = load_preset(preset)
    seconds = parse_duration(max_time) if max_time else None
    training = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "patience": patience, "clip_norm": clip}
    diffusion = {"timesteps": timesteps, "schedule": schedule, "target": target}
    _check_words(device, precision, seed, accumulate)
    order = Order(
        config=changed(found.config, training, diffusion),
        preset=preset,
        dataset=dataset,
        data_dir=data_dir,
        device=device,
        precision=precision,
        seed=seed,
        name=name,
        force=force,
        max_time=seconds,
        within_epochs=epochs is not None,
        accumulate=accumulate,
        compiled=compiled,
    )
    trained = carry_out(out, order)
    out.note(f"see it: ddpmctl grid --model {trained}")
    out.result(_outcome(trained), bare=[trained])


def changed(config: Config, training: dict[str, Any], diffusion: dict[str, Any]) -> Config:
    """Settings with those replaced that are not None.

    Raises:
        UsageError: for a value out of range.
    """
    for kind, allowed in (("schedule", ("linear", "cosine")), ("target", ("epsilon", "v"))):
        if diffusion[kind] is not None:
            choose(kind, diffusion[kind], allowed)
    try:
        chain = replace(config.diffusion, **_given(diffusion))
        full = config.sampling.steps == config.diffusion.timesteps
        steps = chain.timesteps if full else min(config.sampling.steps, chain.timesteps)
        return replace(
            config,
            diffusion=chain,
            training=replace(config.training, **_given(training)),
            sampling=replace(config.sampling, steps=steps),
        )
    except ValueError as error:
        raise UsageError(f"that cannot be trained: {error}", "ddpmctl train --help") from error


def _outcome(name: str) -> dict[str, Any]:
    """What came of a training, for ``--json``."""
    checkpoint = Registry().open(name)
    run, best = last_of(checkpoint).manifest.run, checkpoint.manifest.best
    return {
        "name": name,
        "path": str(checkpoint.path),
        "steps": run.step,
        "seconds": run.seconds,
        "best": {"name": best.name, "target": best.target, "value": best.value, "epoch": best.epoch},
    }


def _check_words(device: str, precision: str, seed: int, accumulate: int) -> None:
    """Refuse early, before torch is imported, what was typed wrong."""
    choose("device", device.partition(":")[0], ["auto", "cpu", "cuda", "mps"])
    choose("precision", precision, PRECISIONS)
    if not 0 <= seed < 2**63:
        raise UsageError(f"the seed {seed} is out of range", "--seed 0..9000000000000000000")
    if accumulate < 1:
        raise UsageError(f"a batch cannot be computed in {accumulate} parts", "--accumulate 1 or more")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
