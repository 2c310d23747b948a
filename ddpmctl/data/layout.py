"""Finds the training and test images of each class in a folder."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ddpmctl.data.pictures import is_picture
from ddpmctl.data.report import LoadReport, counted
from ddpmctl.errors import DataError
from ddpmctl.labels import label_key, natural_key

HINT = "one folder per class: PATH/cats/1.jpg, PATH/dogs/2.png"

TEST_EVERY = 10
"""Every tenth image of a class is kept for evaluation, unless there is a folder of test images."""

TRAIN = ("train", "training")
EVALUATION = ("test", "testing", "val", "valid", "validation")
"""Folder names of a dataset that is already split, in any case; the first that exists is used for evaluation."""

JUNK = (".ds_store", ".git", "thumbs.db", "__macosx")
"""Files of systems and tools, which are ignored without a report."""


@dataclass(frozen=True, slots=True)
class ClassFiles:
    """The candidates for the training and test images of one class; not every candidate need be an image."""

    name: str
    folder: str
    """A path inside the dataset that ends with ``/``."""
    train: list[Path]
    test: list[Path]


def find_classes(path: Path, report: LoadReport) -> list[ClassFiles]:
    """The classes of a folder in natural order of their names: of ``PATH/CLASS/..`` or of ``PATH/train/CLASS/..``."""
    try:
        top = _Folder.read(path)
    except OSError as error:
        raise DataError(f"the folder {path} cannot be read: {error.strerror}", HINT) from error
    walk = _Walk(path, report)
    walk.check(path)
    split = _find_split(top)
    classes = _whole(walk, path) if split is None else _split(walk, top, *split)
    if len(classes) == 1 and _holds_classes(path / classes[0].folder):
        only = path / classes[0].folder
        place = shlex.quote(f"folder:{only}")
        report.remark(f"there is one class, {only.name}; if its folders are the classes, name the dataset {place}")
    if classes:
        return sorted(classes, key=lambda found: natural_key(found.name))
    loose = sum(_is_candidate(file) for file in top.files)
    if loose:
        pictures = counted(loose, "image", "images")
        raise DataError(f"{path} contains {pictures} outside class folders", HINT)
    raise DataError(f"{path} contains no class folder with images", HINT)


def _whole(walk: "_Walk", path: Path) -> list[ClassFiles]:
    """The classes of an unsplit dataset: every tenth image is kept for evaluation."""
    found = []
    for folder, files in walk.classes(path):
        kept = [file for k, file in enumerate(files) if k % TEST_EVERY == TEST_EVERY - 1]
        train = [file for k, file in enumerate(files) if k % TEST_EVERY != TEST_EVERY - 1]
        found.append(ClassFiles(folder.name, walk.name(folder), train, kept))
    return found


def _split(walk: "_Walk", top: "_Folder", train: Path, tests: list[Path]) -> list[ClassFiles]:
    """The classes of a dataset that is split into folders."""
    report = walk.report
    outside = f"is outside {walk.name(train)}"
    for file in top.files:
        report.skip(walk.relative(file), outside)
    walk.report_others(top)
    for folder in (*top.folders, *top.links):
        if folder not in (train, *tests):
            report.skip(walk.name(folder), outside)
    walk.check(train)
    classes = _whole(walk, train)
    by_key = {label_key(found.name): found for found in classes}
    evaluation: dict[str, list[Path]] = {}
    used = None
    for folder in tests:
        if used is not None:
            report.skip(walk.name(folder), f"the images of {walk.name(used)} are used for evaluation")
            continue
        for place, files in walk.classes(folder) if walk.check(folder) else ():
            if label_key(place.name) in by_key:
                evaluation.setdefault(label_key(place.name), []).extend(files)
            else:
                report.skip(walk.name(place), f"{walk.name(train)} has no class of this name")
        used = folder if evaluation else None
    if used is None:
        report.remark(f"training images are taken from {walk.name(train)}, and every tenth is kept for evaluation")
        return classes
    report.remark(f"training images are taken from {walk.name(train)}, test images from {walk.name(used)}")
    return [
        ClassFiles(found.name, found.folder, sorted([*found.train, *found.test]), evaluation.get(key, []))
        for key, found in by_key.items()
    ]


def _find_split(top: "_Folder") -> tuple[Path, list[Path]] | None:
    """The folder of training images and those of test images, the preferred first; None if ``top`` contains classes.

    A class may be called ``train`` too: what counts is whether that folder contains class folders.
    """
    named = {folder.name.casefold(): folder for folder in (*top.links, *top.folders)}
    train = next((named[name] for name in TRAIN if name in named), None)
    if train is None or not _holds_classes(train):
        return None
    tests = [named[name] for name in EVALUATION if name in named]
    if not any(_holds_classes(folder) for folder in tests):
        others = [folder for folder in (*top.folders, *top.links) if folder not in (train, *tests)]
        if _holds_pictures(train) or any(_holds_pictures(folder, deep=True) for folder in others):
            return None
    return train, tests


def _holds_classes(path: Path) -> bool:
    try:
        content = _Folder.read(path)
    except OSError:
        return False
    return any(_holds_pictures(folder, deep=True) for folder in (*content.folders, *content.links))


def _holds_pictures(path: Path, *, deep: bool = False) -> bool:
    """Whether there are images in a folder, or with ``deep`` anywhere below it; links inside it are not followed."""
    for _, _, names in os.walk(path):
        if any(Path(name).suffix.lower() in _suffixes() for name in names):
            return True
        if not deep:
            break
    return False


@dataclass(slots=True)
class _Folder:
    """The content of a folder, sorted by name."""

    folders: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    """To folders."""
    files: list[Path] = field(default_factory=list)
    """Regular files, and links to such."""
    others: dict[str, str] = field(default_factory=dict)
    """Why anything else but junk is not used."""

    @classmethod
    def read(cls, path: Path) -> "_Folder":
        """Raises OSError for a folder that cannot be read."""
        found = cls()
        with os.scandir(path) as entries:
            ordered = sorted(entries, key=lambda entry: natural_key(entry.name))
        for entry in ordered:
            if entry.name.casefold() not in JUNK:
                found._sort(entry, path / entry.name)
        return found

    def _sort(self, entry: "os.DirEntry[str]", path: Path) -> None:
        linked = entry.is_symlink()
        try:
            is_folder = entry.is_dir()
            if linked:
                path.stat()  # of a broken link DirEntry only says that it is neither a folder nor a file
        except OSError as error:
            self.others[entry.name] = (
                f"broken link: {error.strerror}" if linked else f"cannot be read: {error.strerror}"
            )
            return
        if entry.name.startswith("."):
            self.others[f"{entry.name}/" if is_folder else entry.name] = "hidden"
        elif is_folder:
            (self.links if linked else self.folders).append(path)
        elif entry.is_file():
            self.files.append(path)
        else:
            self.others[entry.name] = "not a regular file"


class _Linked(NamedTuple):
    """A link to a folder inside the folder of a class."""

    path: Path
    files: list[Path]


class _Walk:
    """Goes through folders and the links between them, each folder once."""

    def __init__(self, root: Path, report: LoadReport) -> None:
        self.root = root
        self.report = report
        self._visited: dict[tuple[int, int], str] = {}

    def relative(self, path: Path) -> str:
        """A path inside the dataset."""
        return path.relative_to(self.root).as_posix()

    def name(self, folder: Path) -> str:
        """A folder inside the dataset, with ``/``."""
        return f"{self.relative(folder)}/"

    def check(self, folder: Path) -> bool:
        """Whether a folder is visited for the first time; reported if not."""
        try:
            status = folder.stat()
        except OSError as error:
            self.report.skip(self.name(folder), f"cannot be read: {error.strerror}")
            return False
        other = self._visited.setdefault((status.st_dev, status.st_ino), self.name(folder))
        if other == self.name(folder):
            return True
        self.report.skip(self.name(folder), f"the same folder as {other}")
        return False

    def read(self, folder: Path) -> "_Folder | None":
        """The content of a folder; None, which is reported, if it cannot be read."""
        try:
            found = _Folder.read(folder)
        except OSError as error:
            self.report.skip(self.name(folder), f"cannot be read: {error.strerror}")
            return None
        self.report_others(found, folder)
        return found

    def report_others(self, content: "_Folder", folder: Path | None = None) -> None:
        """Report what is neither a folder nor a regular file."""
        for name, reason in content.others.items():
            path = self.relative((folder or self.root) / name)
            self.report.skip(f"{path}/" if name.endswith("/") else path, reason)

    def classes(self, folder: Path) -> Iterator[tuple[Path, list[Path]]]:
        """The class folders in a folder, each with the candidates in it and below it; those without any are reported.

        Real folders come before links: if a link leads to a class, the class keeps its own name.
        """
        content = self.read(folder)
        if content is None:
            return
        for file in content.files:
            self.report.skip(self.relative(file), "is outside the class folders")
        places = [place for place in (*content.folders, *content.links) if self.check(place)]
        pending: list[_Linked] = []
        files = {place: self._files(place, pending) for place in places}
        # Links inside a class are followed once all classes have their own files.
        while pending:
            link = pending.pop(0)
            if self.check(link.path):
                link.files.extend(self._files(link.path, pending, link.files))
        for place, found in files.items():
            if found:
                yield place, sorted(found)
            else:
                self.report.skip(self.name(place), "contains no images")

    def _files(self, top: Path, pending: list[_Linked], into: list[Path] | None = None) -> list[Path]:
        """The candidates in a folder and below it, without those behind links, which become pending."""
        found: list[Path] = []
        owner = found if into is None else into
        stack = [top]
        while stack:
            folder = stack.pop()
            content = self.read(folder)
            if content is None:
                continue
            if content == _Folder():
                self.report.skip(self.name(folder), "empty folder")
            for file in content.files:
                if _is_candidate(file):
                    found.append(file)
                else:
                    self.report.skip(self.relative(file), "not an image in a supported format")
            stack += [inner for inner in content.folders if self.check(inner)]
            pending += [_Linked(link, owner) for link in content.links]
        return found


def _is_candidate(file: Path) -> bool:
    """Whether a file may be an image."""
    # Other files must not affect the split: if captions lie next to images, every tenth file may be one.
    return file.suffix.lower() in _suffixes() or is_picture(file)


@cache
def _suffixes() -> set[str]:
    formats = Image.registered_extensions()
    return {suffix for suffix, name in formats.items() if name in Image.OPEN}
