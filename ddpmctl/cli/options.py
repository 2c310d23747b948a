"""Options that several commands share, said once, and those that would crowd a command's own page."""

from pathlib import Path
from typing import Annotated

import typer

from ddpmctl.errors import DdpmctlError
from ddpmctl.paths import typed_file, typed_path
from ddpmctl.registry import Registry


def model_names(incomplete: str) -> list[str]:
    """Names of models that begin so, for completion; none where they cannot be read."""
    try:
        return [name for name in Registry().names() if name.startswith(incomplete)]
    except DdpmctlError:
        return []


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print bare results and nothing else.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="What to compute on.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the noise; drawn and printed when not given.")]
Upscale = Annotated[int, typer.Option(metavar="K", help="Enlarge K times with OpenCV.")]
Interpolation = Annotated[str, typer.Option(metavar="nearest|linear|cubic|lanczos", help="How to enlarge.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="A name, a path, or latest; the one in use when not given.", autocompletion=model_names
    ),
]
Sampler = Annotated[str | None, typer.Option(metavar="dpmpp|dpmpp-sde|ddim|ddpm", help="Recommended by the model.")]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Steps of the sampler; recommended by the model.")]
Guidance = Annotated[float | None, typer.Option(metavar="G", help="1.0 is none; recommended by the model.")]
Interval = Annotated[
    str | None,
    typer.Option(
        "--guidance-interval",
        metavar="A:B",
        help="Where guidance acts, 0 the image and 1 the noise; recommended by the model.",
    ),
]
Precision = Annotated[str, typer.Option(metavar="auto|fp32|bf16", help="Of the network's arithmetic.")]
Show = Annotated[
    bool | None, typer.Option("--show/--no-show", help="Draw it in the terminal; done on one unless told otherwise.")
]
Dataset = Annotated[str, typer.Option(metavar="NAME", help="mnist, fashion-mnist, strokes or folder:PATH.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        parser=typed_path,
        metavar="PATH",
        envvar="DDPMCTL_DATA_DIR",
        help="The folder that holds MNIST/raw; nothing else is then tried.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a model that has this name.")]
MaxSteps = Annotated[
    int | None, typer.Option(metavar="N", help="Lay the run out in so many steps; with other limits, the shortest.")
]
Like = Annotated[
    Path | None,
    typer.Option(parser=typed_path, metavar="PICTURE", help="As this one was made, but for what else is given."),
]
Fit = Annotated[str | None, typer.Option(metavar="crop|pad", help="How pictures become squares; crop when not given.")]
Channels = Annotated[
    str | None, typer.Option(metavar="1|3", help="Grey or colour; what the pictures have when not given.")
]
Flip = Annotated[bool, typer.Option("--flip", help="Mirror half of the images; never digits or letters.")]
ImageSize = Annotated[str | None, typer.Option(metavar="32|64", help="Side of the images; the network follows.")]
SampleSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Side at which the network computes; for MNIST 28 on CUDA and in fp32, else that of the images.",
    ),
]
PixelRange = Annotated[str | None, typer.Option(metavar="-1..1|0..1", help="What black and white are in the chain.")]
Norm = Annotated[str | None, typer.Option(metavar="group|batch", help="GroupNorm, or BatchNorm in its place.")]
OneTimestep = Annotated[bool, typer.Option("--one-timestep", help="Give all images of a batch the same timestep.")]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Go on with a training that was cut short, or give it more epochs.",
        autocompletion=model_names,
    ),
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(metavar="30s|200steps|1epoch", help="Save the training so often; 30s, or rarer if that costs 2 %."),
]
Clip = Annotated[float | None, typer.Option(metavar="NORM", help="Largest norm of a step's gradient; 0 for no limit.")]
Accumulate = Annotated[
    int, typer.Option(metavar="K", help="Compute each batch in K parts at most: the same steps in less memory.")
]
Log = Annotated[str | None, typer.Option(metavar="tensorboard", help="Write it down for TensorBoard, too.")]
At = Annotated[
    list[int] | None, typer.Option(metavar="T", help="Look at this timestep through the network; repeatable.")
]
MaxTime = Annotated[
    str | None,
    typer.Option(metavar="90s|10m|2h", help="Lay the run out to fit; with --epochs, whichever is shorter."),
]
Cas = Annotated[bool, typer.Option("--cas", help="Also train classifiers on made and on real images.")]
Patience = Annotated[int | None, typer.Option(metavar="N", help="Epochs without a better MSE.")]
Compiled = Annotated[
    bool, typer.Option("--compile/--no-compile", help="Compile the network; a minute's start on a CPU.")
]
ShowNearest = Annotated[
    Path | None,
    typer.Option(parser=typed_file, metavar="sheet.png", help="Samples beside the training images nearest to them."),
]
All = Annotated[bool, typer.Option("--all", help="All classes in turn, in shards: -n COUNT in all, -o FOLDER.")]
ShardSize = Annotated[
    int | None, typer.Option("--shard-size", metavar="N", help="With --all: images an archive; 10000.")
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="B", help="With --all: images that are made together."),
]
Share = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="With --all: only the I-th of N shares, from 0.")
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=A,B,..", help="Compare steps, guidance, guidance-interval or sampler; repeatable."),
]
Plot = Annotated[
    Path | None,
    typer.Option(parser=typed_file, metavar="quality.png", help="A picture of quality against cost, a point a way."),
]
