"""Options and arguments of the commands: names, types, ranges, help texts and help panels.

Those of training are in `training_options`.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ddpmctl import config
from ddpmctl.errors import DdpmctlError
from ddpmctl.paths import typed_file, typed_output, typed_path

OF_MODEL = "the model's own"
OF_PRESET = "the preset's"
DEFAULT_MODEL = "the default model, otherwise the newest"

MOST_IMAGES = 1_000_000


def model_names(incomplete: str) -> list[str]:
    """Names of models that start with the typed text, for completion; none if they cannot be read."""
    from ddpmctl.registry import Registry

    try:
        return [name for name in Registry().names() if name.startswith(incomplete)]
    except DdpmctlError:
        return []


_model_argument = partial(typer.Argument, metavar="MODEL", autocompletion=model_names)
_data = partial(typer.Option, rich_help_panel="Data")
_sampling = partial(typer.Option, rich_help_panel="Sampling")
_editing = partial(typer.Option, rich_help_panel="Editing")
_shards = partial(typer.Option, rich_help_panel="Shards, with --all")
_animation = partial(typer.Option, rich_help_panel="Animation")
_inspection = partial(typer.Option, rich_help_panel="Tables")
_probe = partial(typer.Option, rich_help_panel="Denoising probe, with --at")
_evaluation = partial(typer.Option, rich_help_panel="Evaluation")
_test_images = partial(typer.Option, rich_help_panel="Test images")
_files = partial(typer.Option, rich_help_panel="Files")
_output_file = partial(_files, "-o", "--output", parser=typed_file, metavar="<path>")
_hardware = partial(typer.Option, rich_help_panel="Hardware")
_output = partial(typer.Option, rich_help_panel="Output")

# Results

Json = Annotated[bool, _output("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, _output("--quiet", "-q", help="Print only names or paths.")]
Show = Annotated[
    bool | None, _output("--show/--no-show", help="Show images in the terminal.", show_default="on a terminal")
]
NoShow = Annotated[bool, _output("--no-show", help="Do not show images in the terminal.")]

# Hardware

Device = Annotated[str, _hardware(metavar="<auto|cpu|cuda|cuda:N|mps>", help="Device.")]
Precision = Annotated[config.PrecisionName, _hardware(help="Compute precision of the network.")]
Compile = Annotated[
    bool,
    _hardware(
        "--compile/--no-compile", help="Compile the network with torch.compile; adds up to a minute of start-up."
    ),
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
ModelOrImage = Annotated[
    str | None,
    _model_argument(help="Model name or path, latest, or a generated image file.", show_default=DEFAULT_MODEL),
]
ExistingModel = Annotated[str, _model_argument(metavar="NAME", help="Model name.")]
ExistingModels = Annotated[list[str], _model_argument(metavar="NAME", help="Model names.")]

# Data

_DATASETS = "Dataset: a name that ddpmctl data lists, strokes:COUNT, folder:PATH or arrays:PATH."
Dataset = Annotated[str, _data(metavar="<name>", help=_DATASETS)]
DatasetArgument = Annotated[str, typer.Argument(metavar="NAME", help=_DATASETS)]
DatasetOrFolder = Annotated[
    str, typer.Argument(metavar="NAME", help="Dataset, a folder of images, or a folder of shards.")
]
DataDir = Annotated[
    Path | None,
    _data(
        parser=typed_path,
        metavar="<path>",
        envvar="DDPMCTL_DATA_DIR",
        help="Folder that contains the files, as in MNIST/raw; if given, neither cache nor network is used.",
    ),
]
Fit = Annotated[
    config.FitName | None, _data(help="How images of an image folder are made square.", show_default="crop")
]
Channels = Annotated[
    int | None,
    _data(
        metavar="<1|3>",
        help="Channels of an image folder: 1 (grey) or 3 (RGB).",
        show_default="3 if any image has colour",
    ),
]
Flip = Annotated[bool, _data("--flip", help="Random horizontal flip; not for digits or letters.")]
ImageSize = Annotated[
    int | None,
    _data(metavar="<32|64>", help="Image size in pixels; the network is sized accordingly.", show_default=OF_PRESET),
]

# Sampling

Labels = Annotated[
    list[str] | None, typer.Argument(metavar="LABEL", help="Class names or indices, such as eight or 8.")
]
Label = Annotated[str | None, typer.Argument(metavar="LABEL", help="Class name or index, such as three or 3.")]
Count = Annotated[
    int | None,
    _sampling("--count", "-n", min=1, help="Images per label; with --all, images in total.", show_default="1"),
]
Rows = Annotated[
    int | None,
    _sampling("--rows", min=1, max=1000, help="Samples per class.", show_default="1; 7 with --between"),
]
Sampler = Annotated[
    str | None, _sampling(metavar="<dpmpp|dpmpp-sde|ddim|ddpm>", help="Sampler.", show_default=OF_MODEL)
]
Steps = Annotated[int | None, _sampling(help="Sampling steps.", show_default=OF_MODEL)]
Guidance = Annotated[
    float | None,
    _sampling(
        min=config.GUIDANCE.low,
        max=config.GUIDANCE.high,
        help="Classifier-free guidance scale; 1.0 disables guidance.",
        show_default=OF_MODEL,
    ),
]
Interval = Annotated[
    str | None,
    _sampling(
        "--guidance-interval",
        metavar="<from:to>",
        help="Interval of t/T with guidance, such as 0.3:0.85; 0 is the clean image, 1 is pure noise.",
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
        metavar="<path>",
        help="Generated image to reproduce; other options override its settings.",
    ),
]
Interactive = Annotated[bool, _sampling("--interactive", "-i", help="Prompt for labels; the model stays loaded.")]

Between = Annotated[
    tuple[int, int] | None,
    _sampling(
        metavar="<seed> <seed>", help="Interpolate between the noise of two seeds, with a deterministic sampler."
    ),
]

# Editing

Strength = Annotated[
    float | None,
    _editing(
        metavar="<0..1>",
        help="How much a picture changes: it is noised to this fraction of the timesteps.",
        show_default="0.6; 1 with a mask",
    ),
]
PictureFit = Annotated[
    str | None,
    _editing(
        "--fit",
        metavar="<digit|crop|pad>",
        help="Place a picture as MNIST's digits are, or crop or pad it to a square.",
        show_default="digit for models of digits, otherwise crop",
    ),
]
Invert = Annotated[
    bool | None,
    _editing("--invert/--no-invert", help="Exchange light and dark in a picture.", show_default="recognized"),
]

# Shards

All = Annotated[
    bool, _shards("--all", help="Generate --count images, cycling through all classes, as shards in --output.")
]
ShardSize = Annotated[int | None, _shards(min=1, help="Images per shard.", show_default="10000")]
BatchSize = Annotated[
    int | None,
    _shards("--batch-size", min=1, help="Batch size of sampling.", show_default="depends on the device"),
]
Share = Annotated[str | None, _shards("--shard", metavar="<i/n>", help="Generate only part i of n, counted from 0.")]

# Image files

ImagesOutput = Annotated[
    Path | None,
    _files(
        "-o",
        "--output",
        parser=typed_output,
        metavar="<path>",
        help="Output file: x.png, x.npz, a folder/, or - for stdout.",
        show_default="the class name, as .png",
    ),
]
SheetOutput = Annotated[
    Path | None,
    _output_file(help="Output file, a .png.", show_default="an unused name in the current folder"),
]
AnimationOutput = Annotated[
    Path | None,
    _output_file(help="Output file: x.gif, x.webp or x.png (animated).", show_default="the class name, as .gif"),
]
PageOutput = Annotated[
    Path | None,
    _output_file(help="Output file, an .html.", show_default="an unused name in the current folder"),
]
FolderOutput = Annotated[
    Path,
    _files(
        "-o",
        "--output",
        parser=typed_output,
        metavar="<path>",
        help="Folder for the page, its figures and the models.",
    ),
]
Upscale = Annotated[int, _files(min=1, help="Integer upscaling factor.")]
UpscaleOrNone = Annotated[int | None, _files("--upscale", min=1, help="Integer upscaling factor.", show_default="1")]
Interpolation = Annotated[config.InterpolationName, _files(help="Interpolation for upscaling.")]
InterpolationOrNone = Annotated[
    config.InterpolationName | None,
    _files("--interpolation", help="Interpolation for upscaling.", show_default="cubic"),
]

# Animations

Training = Annotated[
    str | None,
    _animation(
        metavar="<name>",
        help="Animate the previews of this model's training, instead of denoising a label.",
        autocompletion=model_names,
    ),
]
Frames = Annotated[
    int, _animation(min=1, max=1000, help="Frames; also the number of sampling steps unless --steps is given.")
]
Fps = Annotated[
    float | None, _animation(min=1, max=50, help="Frames per second.", show_default="20; 5 with --training")
]
Hold = Annotated[float, _animation(min=0, max=60, help="Seconds to hold the last frame.")]
View = Annotated[str, _animation("--show", metavar="<x|x0|both>", help="x_t, the predicted x_0, or both side by side.")]
Play = Annotated[bool, _output("--play", help="Play the animation in the terminal.")]

# Inspection, evaluation, report and lessons

Layers = Annotated[bool, _inspection("--layers", help="Show shape and parameter count of each layer.")]
ScheduleTable = Annotated[
    bool, _inspection("--schedule", help="Show signal and noise levels at evenly spaced timesteps.")
]
History = Annotated[bool, _inspection("--history", help="Show one row per epoch.")]
At = Annotated[
    list[int] | None,
    _probe(metavar="<timestep>", help="Predict x_0 of a real image noised to this timestep; repeatable."),
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
        help="Output file, a .png.",
        show_default="an unused name in the current folder",
    ),
]
EvaluationCount = Annotated[
    int | None,
    _evaluation(
        "-n",
        "--count",
        min=100,
        max=MOST_IMAGES,
        help="Images to generate and compare, or test images.",
        show_default="2000, or all test images",
    ),
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
        parser=typed_file, metavar="<path>", help="Write a .png grid of samples and their nearest training images."
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
ClassifyTestImages = Annotated[
    bool, _test_images("--classify", help="Classify the test images by the model's own errors, class by class.")
]
LikelihoodOfTestImages = Annotated[
    bool, _test_images("--likelihood", help="Bits per dimension of the test images, by the variational bound.")
]
TestSheet = Annotated[
    Path | None,
    _test_images(
        "-o",
        "--output",
        parser=typed_file,
        metavar="<path>",
        help="Write a .png sheet: images classified wrongly, or the least and most surprising ones.",
    ),
]
