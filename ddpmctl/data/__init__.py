"""Labelled images by name. `load_dataset` is the way in; nothing here is imported before it is needed."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl import plugins
from ddpmctl.config import ModelConfig, choose
from ddpmctl.data.report import LoadReport
from ddpmctl.errors import DataError, UsageError
from ddpmctl.labels import class_names_problem, is_displayable
from ddpmctl.paths import expand

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Request:
    """What a loader is asked for.

    Attributes:
        image_size: side of an image in pixels.
        data_dir: where to find the files; when given, neither the cache nor the network is asked.
        argument: what follows ``name:``, empty where nothing does.
        train: training images, or else test images, which no model sees.
        fit: ``crop`` or ``pad``, for pictures that are not square; empty for the default.
        channels: 1 for grey, 3 for colour; None for what the pictures have.
        report: records what is not used of the data set, and what was done to the rest.
    """

    image_size: int
    data_dir: Path | None = None
    argument: str = ""
    train: bool = True
    fit: str = ""
    channels: int | None = None
    report: LoadReport = field(default_factory=LoadReport)

    @property
    def notice(self) -> Callable[[str], None]:
        """Records a sentence that a user should read."""
        return self.report.remark


Loader = Callable[[Request], "Dataset"]
"""What a dataset is: a plugin adds one under the entry point group ``ddpmctl.datasets``."""

STROKES_COUNT = 20_000
STROKES_TEST_COUNT = 10_000


def _mnist(request: Request) -> "Dataset":
    from ddpmctl.data.mnist import load_mnist

    if request.argument:
        raise UsageError(f"the dataset mnist takes nothing after a colon: '{request.argument}'", "--dataset mnist")
    return load_mnist(request.image_size, request.data_dir, train=request.train)


def _fashion_mnist(request: Request) -> "Dataset":
    from ddpmctl.data.mnist import FASHION, load_mnist

    if request.argument:
        raise UsageError(
            f"the dataset fashion-mnist takes nothing after a colon: '{request.argument}'", "--dataset fashion-mnist"
        )
    return load_mnist(request.image_size, request.data_dir, train=request.train, source=FASHION)


def _strokes(request: Request) -> "Dataset":
    import torch

    from ddpmctl.data.dataset import DIGITS, Dataset, resized
    from ddpmctl.data.strokes import draw

    argument = request.argument
    if argument and not (argument.isdecimal() and 10 <= int(argument) <= 1_000_000):
        raise UsageError(f"strokes:{argument}: the count lies in 10..1000000", f"--dataset strokes:{STROKES_COUNT}")
    drawn, labels = draw(int(argument or STROKES_COUNT), seed=0) if request.train else draw(STROKES_TEST_COUNT, seed=1)
    images = resized(torch.from_numpy(drawn)[:, None], request.image_size)
    return Dataset("strokes", images, torch.from_numpy(labels), DIGITS)


def _folder(request: Request) -> "Dataset":
    from ddpmctl.data.folder import load_folder
    from ddpmctl.data.layout import HINT

    if not request.argument:
        raise UsageError("the dataset folder needs a path after a colon", f"--dataset folder:PATH, {HINT}")
    return load_folder(
        full_path(request.argument),
        request.image_size,
        channels=request.channels,
        fit=request.fit or "crop",
        train=request.train,
        report=request.report,
    )


OWN = "folder"
"""The dataset whose pictures are of any shape and colour."""


def full_path(typed: str) -> Path:
    """The folder that is meant by ``folder:typed``, absolute and without links.

    Raises:
        UsageError: where it cannot be the path of anything.
        DataError: when it cannot be found out.
    """
    try:
        return Path(os.path.realpath(expand(typed)))  # Path.resolve raises where links form a circle
    except OSError as error:
        raise DataError(f"'{typed}' cannot be found: {error.strerror}", "--dataset folder:/full/path") from error


DATASETS: dict[str, Loader] = {"mnist": _mnist, "fashion-mnist": _fashion_mnist, "strokes": _strokes, OWN: _folder}


NATIVE_SIZES = {"mnist": 28, "fashion-mnist": 28, "strokes": 28}
"""Side of the images as they are stored, before they are resized; other data sets have pictures of any size."""

RESIZED_TO = 32
"""Side of these images in files, where nothing else is asked for."""


def default_sample_size(model: ModelConfig, name: str, kind: str, precision: str) -> int:
    """The side at which a network computes the images of a data set unless it is given.

    MNIST has 28x28 pixels and is resized to 32x32 for files. At 28x28 a step costs less and an image teaches less. On a
    GPU, and in float32 on a CPU, the first counts for more; in bf16 on a CPU the step is hardly faster (all measured:
    tests/benchmarks/LOG.md). The classic network stays as the original has it.

    Args:
        model: the network's settings.
        name: of the data set.
        kind: of the device: ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32`` or ``bf16``.
    """
    native = NATIVE_SIZES.get(name.partition(":")[0])
    pays = kind == "cuda" or precision == "fp32"
    computes_less = pays and model.network == "unet" and model.image_size == RESIZED_TO
    return native if native is not None and computes_less else model.image_size


def find_loader(name: str, usage: str = "--dataset") -> tuple[Loader, str]:
    """The loader of ``name`` or ``name:argument``, also from a plugin, and that argument.

    Args:
        name: as typed.
        usage: what is typed before the name of a dataset, for hints.

    Raises:
        UsageError: for an unknown dataset.
    """
    stem = known_kind(name, usage)
    loader: Loader = DATASETS[stem] if stem in DATASETS else plugins.available(plugins.DATASETS)[stem].load()
    return loader, name.partition(":")[2]


def known_kind(name: str, usage: str = "--dataset") -> str:
    """What comes before the colon in the name of a dataset that exists. Arguments and errors as `find_loader`."""
    stem = name.partition(":")[0]
    known = [*DATASETS, *plugins.available(plugins.DATASETS)]
    if stem not in known and (os.sep in name or name.startswith("~") or os.path.isdir(name)):  # noqa: PTH112  never raises
        raise UsageError(f"there is no dataset '{name}'", f"{usage} {shlex.quote(f'{OWN}:{name}')}")
    return choose("dataset", stem, known)


def load_dataset(
    name: str,
    image_size: int,
    data_dir: Path | None = None,
    *,
    train: bool = True,
    fit: str = "",
    channels: int | None = None,
    notice: Callable[[str], None] = lambda sentence: None,
    report: LoadReport | None = None,
) -> "Dataset":
    """Load the images of a dataset.

    Args:
        name: ``mnist``, ``fashion-mnist``, ``strokes`` or ``strokes:COUNT``, ``folder:PATH``, or one of a plugin.
        image_size: side of an image in pixels.
        data_dir: where its files are; if given, neither the cache nor the network is used.
        train: training images, or else test images, which no model is trained on.
        fit: ``crop`` or ``pad``, for pictures that are not square; empty for the default.
        channels: 1 for grey, 3 for colour; None for what the pictures have.
        notice: called with each sentence of a short report, also when loading fails.
        report: takes the whole report.

    Raises:
        UsageError: for an unknown dataset.
        DataError: when its images cannot be loaded, or its names cannot be shown or told apart.
    """
    loader, argument = find_loader(name)
    if not is_displayable(name):
        raise DataError(f"the name {name!r} holds characters that cannot be displayed", "rename the folder")
    report = LoadReport() if report is None else report
    try:
        loaded = loader(Request(image_size, data_dir, argument, train, fit, channels, report))
    finally:
        for sentence in report.summary(f"ddpmctl data verify {shlex.quote(name)}"):
            notice(sentence)
    if problem := class_names_problem(loaded.classes):
        own = name.partition(":")[0] == OWN
        raise DataError(f"{name}: {problem}", "rename one of the folders" if own else "rename the classes")
    return loaded
