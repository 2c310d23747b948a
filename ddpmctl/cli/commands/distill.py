"""``ddpmctl distill``."""

from functools import partial

import typer

from ddpmctl.cli import options
from ddpmctl.cli.output import Output
from ddpmctl.cli.training import report_trained, run_training
from ddpmctl.durations import parse_duration
from ddpmctl.training import runs
from ddpmctl.training.teachers import ADJUSTABLE


def distill(
    context: typer.Context,
    model: options.ModelArgument = None,
    steps: options.StudentSteps = 4,
    name: options.Name = None,
    force: options.Force = False,
    max_time: options.MaxTime = None,
    max_steps: options.MaxSteps = None,
    batch_size: options.TrainBatchSize = None,
    lr: options.LearningRate = None,
    data_dir: options.DataDir = None,
    seed: options.FixedSeed = 0,
    checkpoint_every: options.CheckpointEvery = None,
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
