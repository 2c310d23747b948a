"""Options of the commands that train a model: `train` and `distill`."""

from functools import partial
from typing import Annotated

import typer

from ddpmctl import config
from ddpmctl.cli.options import OF_PRESET, model_names

_model = partial(typer.Option, rich_help_panel="Model and diffusion")
_budget = partial(typer.Option, rich_help_panel="Budget")
_optimization = partial(typer.Option, rich_help_panel="Optimization")
_checkpoints = partial(typer.Option, rich_help_panel="Checkpoints and resume")
_output = partial(typer.Option, rich_help_panel="Output")

# Model and diffusion

Preset = Annotated[config.PresetName, _model(help="Preset: network, diffusion, training and sampling settings.")]
SampleSize = Annotated[
    int | None,
    _model(help="Resolution of the network.", show_default="28 for MNIST on CUDA or in fp32, else the image size"),
]
Timesteps = Annotated[
    int | None,
    _model(min=config.TIMESTEPS.low, max=config.TIMESTEPS.high, help="Diffusion timesteps.", show_default=OF_PRESET),
]
Schedule = Annotated[config.ScheduleName | None, _model(help="Noise schedule.", show_default=OF_PRESET)]
Target = Annotated[config.ParameterizationName | None, _model(help="Prediction type.", show_default=OF_PRESET)]
PixelRange = Annotated[
    str | None,
    _model(
        metavar="<-1..1|0..1>",
        help="Pixel range in the diffusion process, from black to white.",
        show_default=OF_PRESET,
    ),
]
Norm = Annotated[config.NormName | None, _model(help="Normalization: GroupNorm or BatchNorm.", show_default=OF_PRESET)]
GaussianRank = Annotated[
    int | None,
    _model(
        metavar="INTEGER",
        min=config.GAUSSIAN_RANK.low,
        max=config.GAUSSIAN_RANK.high,
        help="Components per cluster of the Gaussian denoiser that the network corrects; 0 for none.",
        show_default=OF_PRESET,
    ),
]

# Budget

Epochs = Annotated[
    int | None,
    _budget(
        min=config.EPOCHS.low,
        max=config.EPOCHS.high,
        help="Maximum number of epochs; with --resume, additional epochs.",
        show_default=OF_PRESET,
    ),
]
MaxTime = Annotated[str | None, _budget(metavar="<duration>", help="Time limit of training, such as 90s, 10m or 2h.")]
MaxSteps = Annotated[int | None, _budget(min=1, help="Total number of training steps.")]
Patience = Annotated[
    int | None, _budget(min=1, help="Epochs without improvement before early stopping.", show_default=OF_PRESET)
]

StudentSteps = Annotated[int, _budget("--steps", metavar="<1|2|4>", help="Sampling steps of the distilled model.")]

# Optimization

TrainBatchSize = Annotated[
    int | None,
    _optimization(
        "--batch-size",
        min=config.BATCH_SIZE.low,
        max=config.BATCH_SIZE.high,
        help="Images per step, over all processes.",
        show_default=OF_PRESET,
    ),
]
LearningRate = Annotated[
    float | None, _optimization("--lr", help="Peak learning rate, at most 1.", show_default=OF_PRESET)
]
Clip = Annotated[
    float | None, _optimization(min=0, help="Gradient clipping norm; 0 disables clipping.", show_default=OF_PRESET)
]
Accumulate = Annotated[int, _optimization(min=1, help="Gradient accumulation: micro-batches per step.")]
OneTimestep = Annotated[
    bool, _optimization("--one-timestep", help="Use one timestep for all images of a batch (experimental).")
]
FixedSeed = Annotated[int, _optimization("--seed", help="Random seed.")]

# Checkpoints and resume

Name = Annotated[
    str | None,
    _checkpoints(
        metavar="<name>", help="Name of the model in the registry.", show_default="generated from dataset and preset"
    ),
]
Force = Annotated[bool, _checkpoints("--force", help="Overwrite an existing model of the same name.")]
Resume = Annotated[
    str | None,
    _checkpoints(
        metavar="<name>",
        help="Resume an interrupted run, or add epochs to a finished one; latest selects the newest.",
        autocompletion=model_names,
    ),
]
CheckpointEvery = Annotated[
    str | None,
    _checkpoints(
        metavar="<interval>",
        help="Checkpoint interval, such as 30s, 200steps or 1epoch.",
        show_default="30s, or longer if saving takes more than 2 % of the time",
    ),
]
Log = Annotated[str | None, _output(metavar="<tensorboard>", help="Also log losses and previews for TensorBoard.")]
