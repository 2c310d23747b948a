"""Labelled images by name. `load_dataset` is the way in; nothing here is imported before it is needed."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl import plugins
from ddpmctl.config import FITS, ModelConfig, choose
from ddpmctl.data.report import LoadReport
from ddpmctl.data.sources import SOURCES
from ddpmctl.errors import DataError, Setting, UsageError
from ddpmctl.labels import class_names_problem, is_displayable
from ddpmctl.paths import expand

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset

OWN = "folder"
"""The dataset of a user's own images, of any shape and colour."""

ARRAYS = "arrays"
"""The dataset of a user's own arrays, or of what a model generated."""

ARRAYS_HINT = f"{ARRAYS}:FILE.npz"

PATHS = (OWN, ARRAYS)
"""Datasets that are named by a path."""

STROKES_COUNT = 20_000
STROKES_TEST_COUNT = 10_000

NATIVE_SIZES = {**{name: source.side for name, source in SOURCES.items()}, "strokes": 28}
"""Side of the images as they are stored, before they are resized; other datasets have images of any size."""

DEFAULT_SIZE = 32
"""Side of these images in files, unless another is requested."""


@dataclass(frozen=True, slots=True)
class Request:
    """Arguments of a dataset loader."""

    image_size: int
    """Side of an image in pixels."""
    data_dir: Path | None = None
    """Folder of the files; if given, neither the cache nor the network is used."""
    argument: str = ""
    """What follows ``name:``."""
    train: bool = True
    """Training images, or else test images, which no model is trained on."""
    fit: str = ""
    """``crop`` or ``pad``, for images that are not square; empty for the default."""
    channels: int | None = None
    """1 for grey, 3 for colour; None for what the images have."""
    report: LoadReport = field(default_factory=LoadReport)
    """Collects unused files and conversions."""

    @property
    def notice(self) -> Callable[[str], None]:
        """Records a sentence that a user should read."""
        return self.report.remark


Loader = Callable[[Request], "Dataset"]
"""What a dataset is: a plugin adds one under the entry point group ``ddpmctl.datasets``."""


def _published(name: str, request: Request) -> "Dataset":
    from ddpmctl.data.dataset import Dataset, resized
    from ddpmctl.data.downloads import find_files
    from ddpmctl.data.readers import check_readable, read_source

    if request.argument:
        raise UsageError(f"the dataset {name} takes no argument, got '{request.argument}'", Setting("dataset", name))
    source = SOURCES[name]
    check_readable(source)
    images, labels = read_source(source, find_files(request.data_dir, source), train=request.train)
    return Dataset(name, resized(images, request.image_size), labels, source.classes)


def _strokes(request: Request) -> "Dataset":
    import torch

    from ddpmctl.data.dataset import Dataset, resized
    from ddpmctl.data.sources import DIGITS
    from ddpmctl.data.strokes import draw

    argument = request.argument
    if argument and not (argument.isdecimal() and 10 <= int(argument) <= 1_000_000):
        raise UsageError(
            f"strokes:{argument}: the count must be in 10..1000000", Setting("dataset", f"strokes:{STROKES_COUNT}")
        )
    drawn, labels = draw(int(argument or STROKES_COUNT), seed=0) if request.train else draw(STROKES_TEST_COUNT, seed=1)
    images = resized(torch.from_numpy(drawn)[:, None], request.image_size)
    return Dataset("strokes", images, torch.from_numpy(labels), DIGITS)


def _folder(request: Request) -> "Dataset":
    from ddpmctl.data.folder import load_folder
    from ddpmctl.data.layout import HINT

    if not request.argument:
        raise UsageError(
            "the dataset folder requires a path, as in folder:PATH", Setting("dataset", "folder:PATH"), f", {HINT}"
        )
    return load_folder(
        full_path(request.argument),
        request.image_size,
        channels=request.channels,
        fit=request.fit or "crop",
        train=request.train,
        report=request.report,
    )


def _arrays(request: Request) -> "Dataset":
    from ddpmctl.data.arrays import load_arrays

    if not request.argument:
        raise UsageError("the dataset arrays requires a path, as in arrays:FILE.npz", Setting("dataset", ARRAYS_HINT))
    path = full_path(request.argument)
    return load_arrays(path, request.image_size, train=request.train, report=request.report)


DATASETS: dict[str, Loader] = {
    **{name: partial(_published, name) for name in SOURCES},
    "strokes": _strokes,
    OWN: _folder,
    ARRAYS: _arrays,
}


def full_path(typed: str) -> Path:
    """The path that ``folder:typed`` or ``arrays:typed`` names, absolute and without links."""
    try:
        return Path(os.path.realpath(expand(typed)))  # Path.resolve raises for symlink loops
    except OSError as error:
        raise DataError(f"'{typed}' cannot be found: {error.strerror}", "pass the full path") from error


def default_sample_size(model: ModelConfig, name: str, kind: str, precision: str) -> int:
    """The default resolution of the network for a dataset.

    MNIST has 28x28 pixels and is resized to 32x32 for files. At 28x28 a step is cheaper but learns less per image. On a
    GPU, and in fp32 on a CPU, the first counts for more; in bf16 on a CPU the step is hardly faster (all measured:
    tests/benchmarks/LOG.md). The classic network stays as the original has it. ``kind`` is the type of the device.
    """
    native = NATIVE_SIZES.get(name.partition(":")[0])
    pays = kind == "cuda" or precision == "fp32"
    computes_less = pays and model.network == "unet" and model.image_size == DEFAULT_SIZE
    return native if native is not None and computes_less else model.image_size


def find_loader(name: str) -> tuple[Loader, str]:
    """The loader of ``name`` or ``name:argument``, also from a plugin, and that argument."""
    kind = known_kind(name)
    loader: Loader = DATASETS[kind] if kind in DATASETS else plugins.available(plugins.DATASETS)[kind].load()
    return loader, name.partition(":")[2]


def known_kind(name: str) -> str:
    """What comes before the colon in the name of a dataset that exists; raises UsageError for any other."""
    kind = name.partition(":")[0]
    known = [*DATASETS, *plugins.available(plugins.DATASETS)]
    if kind not in known and name.lower().endswith(".npz"):
        raise UsageError(f"unknown dataset '{name}'", f"for an archive: {shlex.quote(f'{ARRAYS}:{name}')}")
    if kind not in known and (os.sep in name or name.startswith("~") or os.path.isdir(name)):  # noqa: PTH112  never raises
        raise UsageError(f"unknown dataset '{name}'", f"for a folder: {shlex.quote(f'{OWN}:{name}')}")
    return choose("dataset", kind, known)


def resolve_dataset(name: str, fit: str | None = None, channels: int | None = None) -> tuple[str, str, int | None]:
    """The name of a dataset with the full path of its folder or file, and the fit and channels of its images.

    ``fit`` is empty and ``channels`` None for other datasets, which do not accept them.
    """
    kind, path = known_kind(name), name.partition(":")[2]
    full = f"{kind}:{full_path(path)}" if kind in PATHS and path else name
    # It goes into the manifest, which would be rejected when it is read again.
    if not is_displayable(full):
        raise UsageError(f"the dataset '{full}' contains characters that cannot be displayed", "rename the folder")
    if kind == OWN:
        if channels is not None:
            choose("number of channels", str(channels), ("1", "3"))
        return full, choose("fit", fit or "crop", FITS), channels
    for setting, value in (("fit", fit), ("channels", channels)):
        if value is not None:
            raise UsageError(f"{setting} applies only to image folders, not to {kind}", "omit ", Setting(setting))
    return full, "", None


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
        name: one of `SOURCES`, ``strokes`` or ``strokes:COUNT``, ``folder:PATH``, ``arrays:PATH``, or one of a plugin.
        image_size: side of an image in pixels.
        data_dir: folder of its files; if given, neither the cache nor the network is used.
        train: training images, or else test images, which no model is trained on.
        fit: ``crop`` or ``pad``, for images that are not square; empty for the default.
        channels: 1 for grey, 3 for colour; None for what the images have.
        notice: called with each sentence of a short report, also when loading fails.
        report: takes the whole report.
    """
    loader, argument = find_loader(name)
    if not is_displayable(name):
        raise DataError(f"the name {name!r} contains characters that cannot be displayed", "rename the folder")
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
