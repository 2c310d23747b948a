"""Labelled images by name. `load_dataset` is the way in; nothing here is imported before it is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl import plugins
from ddpmctl.config import choose
from ddpmctl.errors import UsageError

if TYPE_CHECKING:
    from .dataset import Dataset

Loader = Callable[[int, Path | None, str], "Dataset"]
"""``loader(image_size, data_dir, argument)``, where the argument is what follows ``name:``."""

STROKES_COUNT = 20_000


def _mnist(size: int, data_dir: Path | None, argument: str) -> "Dataset":
    from .mnist import load_mnist

    if argument:
        raise UsageError(f"the dataset mnist takes nothing after a colon, got '{argument}'", "--dataset mnist")
    return load_mnist(size, data_dir)


def _strokes(size: int, data_dir: Path | None, argument: str) -> "Dataset":
    import torch

    from .dataset import DIGITS, Dataset, resized
    from .strokes import draw

    if argument and not (argument.isdecimal() and 10 <= int(argument) <= 1_000_000):
        raise UsageError(f"strokes:{argument}: the count lies in 10..1000000", f"--dataset strokes:{STROKES_COUNT}")
    images, labels = draw(int(argument or STROKES_COUNT), seed=0)
    return Dataset("strokes", resized(torch.from_numpy(images)[:, None], size), torch.from_numpy(labels), DIGITS)


DATASETS: dict[str, Loader] = {"mnist": _mnist, "strokes": _strokes}


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


def load_dataset(name: str, image_size: int, data_dir: Path | None = None) -> "Dataset":
    """Load the training images of a dataset.

    Args:
        name: ``mnist``, ``strokes`` or ``strokes:COUNT``, or what a plugin adds.
        image_size: side of an image in pixels.
        data_dir: where to find it; when given, neither the cache nor the network is asked.

    Raises:
        UsageError: for a dataset that nobody knows.
        DataError: when its images are not to be had.
    """
    loader, argument = find_loader(name)
    return loader(image_size, data_dir, argument)
