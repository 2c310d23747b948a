"""Labelled images by name. `load_dataset` is the way in; nothing here is imported before it is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl import plugins
from ddpmctl.config import ModelConfig, choose
from ddpmctl.errors import UsageError

if TYPE_CHECKING:
    from .dataset import Dataset


@dataclass(frozen=True, slots=True)
class Request:
    """What a loader is asked for.

    Attributes:
        image_size: side of an image in pixels.
        data_dir: where to find the files; when given, neither the cache nor the network is asked.
        argument: what follows ``name:``, empty where nothing does.
        train: training images, or else test images, which no model sees.
        fit: ``crop`` or ``pad``, for pictures that are no squares; empty for the usual.
        channels: 1 for grey, 3 for colour; None for what the pictures have.
        notice: is told, in words, what a user should know.
    """

    image_size: int
    data_dir: Path | None = None
    argument: str = ""
    train: bool = True
    fit: str = ""
    channels: int | None = None
    notice: Callable[[str], None] = lambda words: None


Loader = Callable[[Request], "Dataset"]
"""What a dataset is: a plugin adds one under the entry point group ``ddpmctl.datasets``."""

STROKES_COUNT = 20_000
STROKES_TEST_COUNT = 10_000


def _mnist(request: Request) -> "Dataset":
    from .mnist import load_mnist

    if request.argument:
        raise UsageError(f"the dataset mnist takes nothing after a colon: '{request.argument}'", "--dataset mnist")
    return load_mnist(request.image_size, request.data_dir, train=request.train)


def _fashion_mnist(request: Request) -> "Dataset":
    from .mnist import FASHION, load_mnist

    if request.argument:
        raise UsageError(
            f"the dataset fashion-mnist takes nothing after a colon: '{request.argument}'", "--dataset fashion-mnist"
        )
    return load_mnist(request.image_size, request.data_dir, train=request.train, source=FASHION)


def _strokes(request: Request) -> "Dataset":
    import torch

    from .dataset import DIGITS, Dataset, resized
    from .strokes import draw

    argument = request.argument
    if argument and not (argument.isdecimal() and 10 <= int(argument) <= 1_000_000):
        raise UsageError(f"strokes:{argument}: the count lies in 10..1000000", f"--dataset strokes:{STROKES_COUNT}")
    drawn, labels = draw(int(argument or STROKES_COUNT), seed=0) if request.train else draw(STROKES_TEST_COUNT, seed=1)
    images = resized(torch.from_numpy(drawn)[:, None], request.image_size)
    return Dataset("strokes", images, torch.from_numpy(labels), DIGITS)


def _folder(request: Request) -> "Dataset":
    from .folder import LAYOUT, load_folder

    if not request.argument:
        raise UsageError("the dataset folder needs a path after a colon", f"--dataset folder:PATH, {LAYOUT}")
    return load_folder(
        Path(request.argument).expanduser(),
        request.image_size,
        channels=request.channels,
        fit=request.fit or "crop",
        train=request.train,
        notice=request.notice,
    )


OWN = "folder"
"""The dataset whose pictures are of any shape and colour."""

DATASETS: dict[str, Loader] = {"mnist": _mnist, "fashion-mnist": _fashion_mnist, "strokes": _strokes, OWN: _folder}


NATIVE_SIZES = {"mnist": 28, "fashion-mnist": 28, "strokes": 28}
"""Side of the images as they are stored, before they are resized; other data sets have pictures of any size."""

RESIZED_TO = 32
"""Side of these images in files, where nothing else is asked for."""


def default_sample_size(model: ModelConfig, name: str) -> int:
    """The side at which a network computes the images of a data set unless it is given.

    MNIST has 28x28 pixels and is resized to 32x32 for files: nothing is gained by computing more than there is. The
    classic network stays as the original has it.
    """
    native = NATIVE_SIZES.get(name.partition(":")[0])
    computes_less = native is not None and model.network == "unet" and model.image_size == RESIZED_TO
    return native if native is not None and computes_less else model.image_size


def find_loader(name: str) -> tuple[Loader, str]:
    """The loader of ``name`` or ``name:argument``, a plugin's too, and that argument.

    Raises:
        UsageError: for a dataset that nobody knows.
    """
    stem, _, argument = name.partition(":")
    added = plugins.available(plugins.DATASETS)
    choose("dataset", stem, [*DATASETS, *added])
    loader: Loader = DATASETS[stem] if stem in DATASETS else added[stem].load()
    return loader, argument


def load_dataset(
    name: str,
    image_size: int,
    data_dir: Path | None = None,
    *,
    train: bool = True,
    fit: str = "",
    channels: int | None = None,
    notice: Callable[[str], None] = lambda words: None,
) -> "Dataset":
    """Load the images of a dataset.

    Args:
        name: ``mnist``, ``fashion-mnist``, ``strokes`` or ``strokes:COUNT``, ``folder:PATH``, or what a plugin adds.
        image_size: side of an image in pixels.
        data_dir: where to find it; when given, neither the cache nor the network is asked.
        train: training images, or else test images, which no model sees.
        fit: ``crop`` or ``pad``, for pictures that are no squares; empty for the usual.
        channels: 1 for grey, 3 for colour; None for what the pictures have.
        notice: is told, in words, what a user should know.

    Raises:
        UsageError: for a dataset that nobody knows.
        DataError: when its images are not to be had.
    """
    loader, argument = find_loader(name)
    return loader(Request(image_size, data_dir, argument, train, fit, channels, notice))
