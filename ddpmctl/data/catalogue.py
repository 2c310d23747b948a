"""The available datasets: where their files are, whether they are complete, downloading and verifying them."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from ddpmctl import plugins
from ddpmctl.data import ARRAYS, ARRAYS_HINT, DATASETS, OWN, PATHS, downloads, known_kind, load_dataset, resolve_dataset
from ddpmctl.data.report import LoadReport, byte_count, counted
from ddpmctl.data.sources import SOURCES, Source
from ddpmctl.errors import DataError, UsageError

log = logging.getLogger("ddpmctl")

VERIFIED_SIZE = 32


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """A dataset, where its images come from, and the state of its files."""

    name: str
    place: str
    state: str


@dataclass(frozen=True, slots=True)
class DatasetVerification:
    """The outcome of reading a complete dataset."""

    name: str
    images: int
    digest: str
    classes: int
    test_images: int | None
    """Of images of the user's own, whose test images are among them; None for other datasets."""
    problems: list[str] = field(default_factory=list)
    """One for each file or folder that is not used."""
    notes: list[str] = field(default_factory=list)
    """Conversions of the images that are used."""

    @property
    def summary(self) -> str:
        """Human-readable summary in one line."""
        size = counted(self.images, "image", "images")
        if self.test_images is not None:
            size = counted(self.images, "training image", "training images")
            size += f" and {counted(self.test_images, 'test image', 'test images')}"
        return f"{self.name}: {size} of {counted(self.classes, 'class', 'classes')}, digest {self.digest}"


def list_datasets(data_dir: Path | None = None) -> list[DatasetStatus]:
    """All datasets, built-in ones first; ``data_dir`` is where to look for files instead of the cache."""
    plugin_datasets = plugins.available(plugins.DATASETS)
    found = []
    for name in [*DATASETS, *plugin_datasets]:
        if name == "strokes":
            status = DatasetStatus(name, "generated", "always available")
        elif name == OWN:
            status = DatasetStatus(name, "folder:PATH", "your own images, one folder per class")
        elif name == ARRAYS:
            status = DatasetStatus(name, ARRAYS_HINT, "images and labels, as generate writes them")
        elif name in plugin_datasets:
            status = DatasetStatus(name, f"the plugin {plugin_datasets[name].distribution}", "not checked")
        else:
            status = _file_status(SOURCES[name], data_dir)
        found.append(status)
    return found


def fetch(name: str) -> Path:
    """Download a dataset into the cache unless it is complete there, and return its folder."""
    source, root = _source(name), downloads.cached_root()
    if downloads.is_complete(root, source):
        log.info("%s is already downloaded", source.title)
    else:
        downloads.download(root, source)
    return root / Path(source.folder).parts[0]


def verify_dataset(name: str, data_dir: Path | None = None) -> DatasetVerification:
    """Read a complete dataset, for a user's own images including the test images."""
    name, fit, _ = resolve_dataset(name)
    report = LoadReport()
    loaded = load_dataset(name, VERIFIED_SIZE, data_dir, fit=fit, report=report)
    test_images = None
    if name.partition(":")[0] in PATHS:
        test_images = _count_test_images(name, fit, int(loaded.images.shape[1]), report)
    return DatasetVerification(
        name=name,
        images=len(loaded),
        digest=loaded.digest(),
        classes=len(loaded.classes),
        test_images=test_images,
        problems=report.unused_lines(),
        notes=report.notes(),
    )


def _count_test_images(name: str, fit: str, channels: int, report: LoadReport) -> int:
    try:
        return len(load_dataset(name, VERIFIED_SIZE, train=False, fit=fit, channels=channels, report=report))
    except DataError as error:
        report.remark(error.message)
        return 0


def _file_status(source: Source, data_dir: Path | None) -> DatasetStatus:
    root = data_dir or downloads.cached_root()
    try:
        downloads.check_complete(root, source)
        state = "complete"
    except DataError as error:
        state = error.message
        if not downloads.files_folder(root, source).is_dir():
            size = byte_count(source.size)
            state = "not in this folder" if data_dir else f"not downloaded ({size}): ddpmctl data fetch {source.name}"
    return DatasetStatus(source.name, str(root), state)


def _source(name: str) -> Source:
    """The dataset of this name that can be downloaded; raises UsageError for any other."""
    known_kind(name)
    if name not in SOURCES:
        raise UsageError(f"{name} cannot be downloaded", f"one of: {', '.join(SOURCES)}")
    return SOURCES[name]
