"""``ddpmctl distill``."""

from functools import partial

import typer

from ddpmctl.cli import options, training_options
from ddpmctl.cli.output import Output
from ddpmctl.cli.training import report_trained, run_training
from ddpmctl.durations import parse_duration
from ddpmctl.training import runs
from ddpmctl.training.teachers import ADJUSTABLE


def distill(
    context: typer.Context,
    model: options.ModelArgument = None,
    steps: training_options.StudentSteps = 4,
    name: training_options.Name = None,
    force: training_options.Force = False,
    max_time: training_options.MaxTime = None,
    max_steps: training_options.MaxSteps = None,
    batch_size: training_options.TrainBatchSize = None,
    lr: training_options.LearningRate = None,
    data_dir: options.DataDir = None,
    seed: training_options.FixedSeed = 0,
    checkpoint_every: training_options.CheckpointEvery = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    compiled: options.Compile = False,
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a copy of a model that samples in a few steps.

    Example: ddpmctl distill quick --steps 4

    The student learns to do in each of its steps what its teacher does in several, with the teacher's guidance, on the
    images that the teacher was trained on. It is a model like any other: generate, evaluate or distill it again.

    Ctrl-C saves a checkpoint and stops; train --resume NAME continues.
    """
    out = Output("distill", as_json=as_json, quiet=quiet)
    given = {name: value for name, value in context.params.items() if name in ADJUSTABLE}
    given |= {"compile": compiled, "max_time": parse_duration(max_time) if max_time else None}
    report_trained(out, run_training(out, partial(runs.distill, model, steps, **given), show=show))
