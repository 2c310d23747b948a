"""Options and arguments of the commands, declared once: names, types, ranges, help texts and help panels."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ddpmctl import config
from ddpmctl.errors import DdpmctlError
from ddpmctl.paths import typed_file, typed_output, typed_path

OF_MODEL = "the model's own"
OF_PRESET = "the preset's"
DEFAULT_MODEL = "the model in use, else the newest"

MOST_IMAGES = 1_000_000


def model_names(incomplete: str) -> list[str]:
    """Names of models that begin so, for completion; none where they cannot be read."""
    from ddpmctl.registry import Registry

    try:
        return [name for name in Registry().names() if name.startswith(incomplete)]
    except DdpmctlError:
        return []


_model_argument = partial(typer.Argument, metavar="MODEL", autocompletion=model_names)
_data = partial(typer.Option, rich_help_panel="Data")
_model = partial(typer.Option, rich_help_panel="Model and diffusion")
_budget = partial(typer.Option, rich_help_panel="Budget")
_optimization = partial(typer.Option, rich_help_panel="Optimization")
_checkpoints = partial(typer.Option, rich_help_panel="Checkpoints and resume")
_sampling = partial(typer.Option, rich_help_panel="Sampling")
_shards = partial(typer.Option, rich_help_panel="Shards, with --all")
_animation = partial(typer.Option, rich_help_panel="Animation")
_inspection = partial(typer.Option, rich_help_panel="Tables")
_probe = partial(typer.Option, rich_help_panel="Denoising probe, with --at")
_evaluation = partial(typer.Option, rich_help_panel="Evaluation")
_files = partial(typer.Option, rich_help_panel="Files")
_output_file = partial(_files, "-o", "--output", parser=typed_file, metavar="<path>")
_hardware = partial(typer.Option, rich_help_panel="Hardware")
_output = partial(typer.Option, rich_help_panel="Output")

# Results

Json = Annotated[bool, _output("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, _output("--quiet", "-q", help="Print bare names or paths, and no notes.")]
Show = Annotated[
    bool | None, _output("--show/--no-show", help="Draw pictures in the terminal.", show_default="on a terminal")
]
NoShow = Annotated[bool, _output("--no-show", help="Draw nothing in the terminal.")]

# Hardware

Device = Annotated[str, _hardware(metavar="<auto|cpu|cuda|cuda:N|mps>", help="Device to compute on.")]
Precision = Annotated[config.PrecisionName, _hardware(help="Precision of the network's arithmetic.")]
Compile = Annotated[
    bool,
    _hardware("--compile/--no-compile", help="Compile the network with torch.compile; starts up to a minute later."),
]

# Models

Model = Annotated[
    str | None,
    _sampling(
        "--model",
        "-m",
        metavar="<name>",
        help="Model name or path, or latest.",
        show_default=DEFAULT_MODEL,
        autocompletion=model_names,
    ),
]
ModelArgument = Annotated[
    str | None, _model_argument(help="Model name or path, or latest.", show_default=DEFAULT_MODEL)
]
ModelsArgument = Annotated[
    list[str] | None, _model_argument(help="Model names or paths, or latest.", show_default=DEFAULT_MODEL)
]
ModelOrPicture = Annotated[
    str | None, _model_argument(help="Model name or path, latest, or a generated picture.", show_default=DEFAULT_MODEL)
]
ExistingModel = Annotated[str, _model_argument(metavar="NAME", help="Model name.")]
ExistingModels = Annotated[list[str], _model_argument(metavar="NAME", help="Model names.")]

# Data

Dataset = Annotated[
    str, _data(metavar="<name>", help="Dataset: mnist, fashion-mnist, strokes, strokes:COUNT or folder:PATH.")
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Dataset: mnist, fashion-mnist, strokes, strokes:COUNT or folder:PATH.")
]
DatasetOrFolder = Annotated[
    str, typer.Argument(metavar="NAME", help="Dataset, a folder of images, or a folder of shards.")
]
DataDir = Annotated[
    Path | None,
    _data(
        parser=typed_path,
        metavar="<path>",
        envvar="DDPMCTL_DATA_DIR",
        help="Folder that contains MNIST/raw; no other place is searched.",
    ),
]
Fit = Annotated[config.FitName | None, _data(help="How images of a folder become square.", show_default="crop")]
Channels = Annotated[
    int | None,
    _data(metavar="<1|3>", help="Grey or colour, for images of a folder.", show_default="3 if any image has colour"),
]
Flip = Annotated[bool, _data("--flip", help="Mirror half of the images at random; not for digits or letters.")]
ImageSize = Annotated[
    int | None,
    _data(metavar="<32|64>", help="Side of the images in pixels; the network follows.", show_default=OF_PRESET),
]

# Model and diffusion

Preset = Annotated[config.PresetName, _model(help="Preset: network, diffusion, training and sampling settings.")]
SampleSize = Annotated[
    int | None,
    _model(
        help="Side at which the network computes.", show_default="28 for MNIST on CUDA or in fp32, else the image size"
    ),
]
Timesteps = Annotated[
    int | None,
    _model(min=config.TIMESTEPS.low, max=config.TIMESTEPS.high, help="Diffusion timesteps.", show_default=OF_PRESET),
]
Schedule = Annotated[config.ScheduleName | None, _model(help="Noise schedule.", show_default=OF_PRESET)]
Target = Annotated[
    config.ParameterizationName | None, _model(help="What the network predicts.", show_default=OF_PRESET)
]
PixelRange = Annotated[
    str | None,
    _model(
        metavar="<-1..1|0..1>", help="Pixel values of black and white in the diffusion process.", show_default=OF_PRESET
    ),
]
Norm = Annotated[config.NormName | None, _model(help="GroupNorm, or BatchNorm in its place.", show_default=OF_PRESET)]

# Budget

Epochs = Annotated[
    int | None,
    _budget(
        min=config.EPOCHS.low,
        max=config.EPOCHS.high,
        help="Largest number of epochs; with --resume, additional epochs.",
        show_default=OF_PRESET,
    ),
]
MaxTime = Annotated[
    str | None, _budget(metavar="<duration>", help="Training time that the run is planned for, such as 90s, 10m or 2h.")
]
MaxSteps = Annotated[int | None, _budget(min=1, help="Training steps that the run is planned for.")]
Patience = Annotated[
    int | None, _budget(min=1, help="Epochs without improvement before early stopping.", show_default=OF_PRESET)
]

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
    float | None, _optimization(min=0, help="Largest gradient norm; 0 for no limit.", show_default=OF_PRESET)
]
Accumulate = Annotated[int, _optimization(min=1, help="Micro-batches per step: the same steps in less memory.")]
OneTimestep = Annotated[
    bool, _optimization("--one-timestep", help="Use one timestep for all images of a batch (an experiment).")
]
FixedSeed = Annotated[int, _optimization("--seed", help="Random seed.")]

# Checkpoints and resume

Name = Annotated[
    str | None,
    _checkpoints(metavar="<name>", help="Name of the model in the registry.", show_default="from dataset and preset"),
]
Force = Annotated[bool, _checkpoints("--force", help="Replace a model of the same name.")]
Resume = Annotated[
    str | None,
    _checkpoints(
        metavar="<name>",
        help="Resume an interrupted training, or add epochs to a finished one; latest for the newest.",
        autocompletion=model_names,
    ),
]
CheckpointEvery = Annotated[
    str | None,
    _checkpoints(
        metavar="<interval>",
        help="Checkpoint interval, such as 30s, 200steps or 1epoch.",
        show_default="30s, longer if saving would take over 2 % of the time",
    ),
]
Log = Annotated[str | None, _output(metavar="<tensorboard>", help="Also log losses and previews for TensorBoard.")]

# Sampling

Labels = Annotated[
    list[str] | None, typer.Argument(metavar="LABEL", help="Class names or indices, such as eight or 8.")
]
Label = Annotated[str | None, typer.Argument(metavar="LABEL", help="Class name or index, such as three or 3.")]
Count = Annotated[
    int | None,
    _sampling("--count", "-n", min=1, help="Images per label; with --all, images in total.", show_default="1"),
]
Rows = Annotated[int, _sampling(min=1, max=1000, help="Samples per class.")]
Sampler = Annotated[
    str | None, _sampling(metavar="<dpmpp|dpmpp-sde|ddim|ddpm>", help="Sampler.", show_default=OF_MODEL)
]
Steps = Annotated[int | None, _sampling(help="Sampling steps.", show_default=OF_MODEL)]
Guidance = Annotated[
    float | None,
    _sampling(
        min=config.GUIDANCE.low,
        max=config.GUIDANCE.high,
        help="Classifier-free guidance scale; 1.0 for none.",
        show_default=OF_MODEL,
    ),
]
Interval = Annotated[
    str | None,
    _sampling(
        "--guidance-interval",
        metavar="<from:to>",
        help="Part of the chain with guidance, such as 0.3:0.85; 0 is the image, 1 the noise.",
        show_default=OF_MODEL,
    ),
]
Seed = Annotated[
    int | None,
    _sampling(help="Random seed of the first image; image k uses seed + k.", show_default="random, and printed"),
]
SampleSeed = Annotated[int, _sampling("--seed", help="Random seed of the first image.")]
Like = Annotated[
    Path | None,
    _sampling(
        parser=typed_path,
        metavar="<picture>",
        help="Generated picture to reproduce; other options override its settings.",
    ),
]
Interactive = Annotated[bool, _sampling("--interactive", "-i", help="Keep the model loaded and ask for labels.")]

# Shards

All = Annotated[
    bool, _shards("--all", help="Generate --count images of all classes in turn, as shards in the folder --output.")
]
ShardSize = Annotated[int | None, _shards(min=1, help="Images per shard.", show_default="10000")]
BatchSize = Annotated[
    int | None,
    _shards("--batch-size", min=1, help="Images sampled together.", show_default="by device"),
]
Share = Annotated[
    str | None, _shards("--shard", metavar="<i/n>", help="Generate the i-th of n equal parts only, counted from 0.")
]

# Pictures

ImagesOutput = Annotated[
    Path | None,
    _files(
        "-o",
        "--output",
        parser=typed_output,
        metavar="<path>",
        help="Target: x.png, x.npz, a folder/, or - for stdout.",
        show_default="the class name, as .png",
    ),
]
SheetOutput = Annotated[
    Path | None,
    _output_file(help="Target, a .png file.", show_default="a free name here"),
]
AnimationOutput = Annotated[
    Path | None,
    _output_file(help="Target: x.gif, x.webp or x.png (animated).", show_default="the class name, as .gif"),
]
PageOutput = Annotated[
    Path | None,
    _output_file(help="Target, an .html file.", show_default="a free name here"),
]
FolderOutput = Annotated[
    Path,
    _files(
        "-o",
        "--output",
        parser=typed_output,
        metavar="<path>",
        help="Folder for the page, its pictures and the networks.",
    ),
]
Upscale = Annotated[int, _files(min=1, help="Integer factor by which images are enlarged.")]
UpscaleOrNone = Annotated[
    int | None, _files("--upscale", min=1, help="Integer factor by which images are enlarged.", show_default="1")
]
Interpolation = Annotated[config.InterpolationName, _files(help="Interpolation of enlarged images.")]
InterpolationOrNone = Annotated[
    config.InterpolationName | None,
    _files("--interpolation", help="Interpolation of enlarged images.", show_default="cubic"),
]

# Animations

Training = Annotated[
    str | None,
    _animation(
        metavar="<name>",
        help="Animate the previews of this model's training, in place of a label.",
        autocompletion=model_names,
    ),
]
Frames = Annotated[
    int, _animation(min=1, max=1000, help="Frames; also the number of sampling steps unless --steps is given.")
]
Fps = Annotated[float | None, _animation(min=1, max=50, help="Frames per second.", show_default="20, of a training 5")]
Hold = Annotated[float, _animation(min=0, max=60, help="Seconds that the last frame stays.")]
View = Annotated[
    str, _animation("--show", metavar="<x|x0|both>", help="The noisy image, the predicted image, or both side by side.")
]
Play = Annotated[bool, _output("--play", help="Play the animation in the terminal.")]

# Inspection, evaluation, report and lessons

Layers = Annotated[bool, _inspection("--layers", help="Show shape and parameter count of each layer.")]
ScheduleTable = Annotated[bool, _inspection("--schedule", help="Show signal and noise levels along the chain.")]
History = Annotated[bool, _inspection("--history", help="Show one row per epoch.")]
At = Annotated[
    list[int] | None, _probe(metavar="<timestep>", help="Denoise a real image at this timestep; repeatable.")
]
ProbeLabel = Annotated[str | None, _probe("--label", metavar="<label>", help="Class of the image.")]
ProbeSeed = Annotated[int, _probe("--seed", help="Random seed of image and noise.")]
ProbeOutput = Annotated[
    Path | None,
    _probe(
        "-o",
        "--output",
        parser=typed_file,
        metavar="<path>",
        help="Target, a .png file.",
        show_default="a free name here",
    ),
]
EvaluationCount = Annotated[
    int, _evaluation("-n", "--count", min=100, max=MOST_IMAGES, help="Images to generate and compare.")
]
Cas = Annotated[
    bool,
    _evaluation(
        "--cas", help="Also train classifiers on generated and on real images (classification accuracy score)."
    ),
]
ShowNearest = Annotated[
    Path | None,
    _evaluation(
        parser=typed_file, metavar="<path>", help="Write samples beside their nearest training images, as a .png sheet."
    ),
]
Sweep = Annotated[
    list[str] | None,
    _evaluation(
        metavar="<key=a,b,..>", help="Compare values of steps, guidance, guidance-interval or sampler; repeatable."
    ),
]
Plot = Annotated[
    Path | None,
    _evaluation(parser=typed_file, metavar="<path>", help="Write a plot of quality against cost, as a .png file."),
]
