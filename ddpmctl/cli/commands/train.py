"""``ddpmctl train``."""

from functools import partial
from importlib.util import find_spec

import typer

from ddpmctl.cli import options, training_options
from ddpmctl.cli.output import Output
from ddpmctl.cli.training import report_trained, run_training
from ddpmctl.config import choose
from ddpmctl.durations import parse_duration
from ddpmctl.errors import DdpmctlError
from ddpmctl.training import runs
from ddpmctl.training.run_spec import RunSpec

TENSORBOARD_HINT = "in the project's folder: pip install '.[tensorboard]'"


def train(
    context: typer.Context,
    preset: training_options.Preset = "standard",
    sample_size: training_options.SampleSize = None,
    timesteps: training_options.Timesteps = None,
    schedule: training_options.Schedule = None,
    target: training_options.Target = None,
    pixel_range: training_options.PixelRange = None,
    norm: training_options.Norm = None,
    gaussian_rank: training_options.GaussianRank = None,
    dataset: options.Dataset = "mnist",
    data_dir: options.DataDir = None,
    fit: options.Fit = None,
    channels: options.Channels = None,
    flip: options.Flip = False,
    image_size: options.ImageSize = None,
    epochs: training_options.Epochs = None,
    max_time: training_options.MaxTime = None,
    max_steps: training_options.MaxSteps = None,
    patience: training_options.Patience = None,
    batch_size: training_options.TrainBatchSize = None,
    lr: training_options.LearningRate = None,
    clip: training_options.Clip = None,
    accumulate: training_options.Accumulate = 1,
    one_timestep: training_options.OneTimestep = False,
    seed: training_options.FixedSeed = 0,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    compiled: options.Compile = False,
    name: training_options.Name = None,
    force: training_options.Force = False,
    resume: training_options.Resume = None,
    checkpoint_every: training_options.CheckpointEvery = None,
    log: training_options.Log = None,
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model and save it in the registry.

    Example: ddpmctl train --preset quick

    Ctrl-C saves a checkpoint and stops; --resume NAME continues as if the run had not been interrupted.

    With several processes: torchrun --standalone --nproc-per-node=2 -m ddpmctl train
    """
    out = Output("train", as_json=as_json, quiet=quiet)
    tensorboard = is_logged(log)
    given = {name: value for name, value in context.params.items() if name in RunSpec.__dataclass_fields__}
    given |= {"compile": compiled, "max_time": parse_duration(max_time) if max_time else None}
    if resume is None:
        spec = RunSpec(**given).checked()
        trained = run_training(out, partial(runs.train, spec), show=show, tensorboard=tensorboard)
    else:
        typed = {"compile" if name == "compiled" else name for name in context.params if _was_typed(context, name)}
        # The folder may also come from the environment.
        overrides = {name: value for name, value in given.items() if name in typed or name == "data_dir"}
        trained = run_training(out, partial(runs.resume, resume, **overrides), show=show, tensorboard=tensorboard)
    report_trained(out, trained)


def is_logged(log: str | None) -> bool:
    """Whether to log for TensorBoard, which must be installed then."""
    if log is None:
        return False
    choose("log", log, ("tensorboard",))
    if find_spec("tensorboard") is None:
        raise DdpmctlError("tensorboard is not installed", TENSORBOARD_HINT)
    return True


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
