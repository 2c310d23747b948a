"""A folder of pictures of any format, size and depth as a dataset, with one scale and one background for all."""

import os
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ddpmctl.data.dataset import Dataset
from ddpmctl.data.layout import HINT, TEST_SHARE, ClassFiles, find_classes
from ddpmctl.data.pictures import LOW_DEPTH, Kind, Picture, Range, developed, read
from ddpmctl.data.report import LoadReport, counted
from ddpmctl.errors import DataError

MAX_IMAGES = 2_000_000

BACKGROUNDS = {"white": 1.0, "black": 0.0, "grey": 0.5}
"""Brightness behind transparent pictures."""

MIN_CONTRAST = 0.15
"""Of ink with its background, where black on white has 1; ink with less is hardly visible."""

MAX_HIDDEN = 0.1
"""Fraction of pictures whose ink may be invisible on white or black before grey is chosen."""

PALE = 16
"""Grey levels between the darkest and the brightest pixel; a picture with fewer is reported."""


def load_folder(
    path: Path,
    size: int,
    *,
    channels: int | None = None,
    fit: str = "crop",
    train: bool = True,
    report: LoadReport | None = None,
) -> Dataset:
    """The pictures of a folder: ``PATH/CLASS/..``, or ``PATH/train/CLASS/..`` and ``PATH/test/CLASS/..``.

    The range of the pixels and the background of transparent pictures are chosen for the training and the test pictures
    together. Arguments as in `Request`; without ``channels``, pictures are grey if none of them has colour.
    """
    report = report or LoadReport()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about files that `read` refuses or repairs
        classes = find_classes(path, report)
        count = sum(len(found.train) + len(found.test) for found in classes)
        if count > MAX_IMAGES:
            raise DataError(f"{path} holds {count:,} pictures, more than {MAX_IMAGES:,}", "use a part of them")
        pictures = _Reader(path, size, fit, channels, report).read(classes, train)
    chosen = [(label, file) for label, found in enumerate(classes) for file in (found.train if train else found.test)]
    usable = {label for label, found in enumerate(classes) if any(file in pictures for file in found.train)}
    for label, found in enumerate(classes):
        if label not in usable:
            report.leave_out(found.folder, "no picture to train on can be read")
    if not usable:
        raise DataError(f"no picture in {path} can be read", HINT)
    numbers = {label: number for number, label in enumerate(sorted(usable))}
    kept = [(numbers[label], file) for label, file in chosen if label in numbers and file in pictures]
    if not kept:
        raise DataError(
            f"{path} holds no test pictures",
            f"{TEST_SHARE} or more pictures of a class, or PATH/train and PATH/test with the same class folders",
        )
    images = _develop(path, {file: pictures[file] for _, file in kept}, pictures.values(), channels, report)
    labels = torch.tensor([number for number, _ in kept], dtype=torch.int64)
    names = tuple(classes[label].name for label in sorted(usable))
    return Dataset(f"folder:{path}", torch.from_numpy(images), labels, names)


class _Reader:
    """Reads files in several threads and reports those that are not pictures."""

    def __init__(self, root: Path, size: int, fit: str, channels: int | None, report: LoadReport) -> None:
        self.root = root
        self.size = size
        self.fit = fit
        self.channels = channels
        self.report = report

    def read(self, classes: list[ClassFiles], train: bool) -> dict[Path, Picture]:
        """The pictures of one part by file, and of the other part what the scale of the dataset depends on."""
        wanted = [file for found in classes for file in (found.train if train else found.test)]
        others = [file for found in classes for file in (found.test if train else found.train)]
        pictures = self._read(wanted)
        dark = all(picture.high <= LOW_DEPTH for picture in pictures.values() if picture.kind == "8-bit")
        pictures |= self._read(others, glance=not dark)
        if not train:
            # A class needs a picture to train on: for each, one of the files that were only glanced at is decoded.
            for found in classes:
                broken = self._undecodable(found.train, pictures)
                for file in broken:
                    del pictures[file]
        return pictures

    def _read(self, files: list[Path], *, glance: bool = False) -> dict[Path, Picture]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            all_read = pool.map(lambda file: read(file, self.size, self.fit, self.channels, glance=glance), files)
            pairs = zip(files, all_read, strict=True)
            return {file: found for file, found in pairs if self._is_picture(file, found)}  # type: ignore[misc]

    def _undecodable(self, files: list[Path], pictures: Mapping[Path, Picture]) -> list[Path]:
        """The files before the first one that can be decoded."""
        broken = []
        for file in (file for file in files if file in pictures):
            decoded = pictures[file].pixels is not None
            if decoded or self._is_picture(file, read(file, self.size, self.fit, self.channels)):
                break
            broken.append(file)
        return broken

    def _is_picture(self, file: Path, found: Picture | str) -> bool:
        name = file.relative_to(self.root).as_posix()
        if isinstance(found, str):
            self.report.leave_out(name, found)
            return False
        if found.several:
            self.report.point_out(name, "of several frames or pages, of which the first is used")
        return True


def _develop(
    path: Path,
    chosen: Mapping[Path, Picture],
    everything: Iterable[Picture],
    channels: int | None,
    report: LoadReport,
) -> NDArray[np.uint8]:
    """The chosen pictures as uint8[N,C,S,S], with the scale and the background of everything."""
    everything = list(everything)
    kinds = sorted({picture.kind for picture in everything})
    ranges = {kind: _range(kind, [one for one in everything if one.kind == kind], report) for kind in kinds}
    inks = [_level(one.ink, ranges[one.kind]) for one in everything if one.ink is not None]
    background = _background(inks, report)
    shapes = {picture.pixels.shape for picture in chosen.values() if picture.pixels is not None}
    depth = channels or max(shape[2] for shape in shapes)
    side = next(iter(shapes))[0]
    images = np.empty((len(chosen), depth, side, side), np.uint8)
    for image, picture in zip(images, chosen.values(), strict=True):
        image[:] = developed(picture, ranges[picture.kind], BACKGROUNDS[background]).transpose(2, 0, 1)
    spread = (images.max(axis=(2, 3)).astype(np.int16) - images.min(axis=(2, 3))).max(axis=1)
    for (file, picture), contrast in zip(chosen.items(), spread.tolist(), strict=True):
        name = file.relative_to(path).as_posix()
        if contrast == 0:
            report.point_out(name, "of one colour after conversion")
        elif contrast < PALE:
            report.point_out(name, "almost without contrast after conversion")
        if picture.ink is not None and _contrast(_level(picture.ink, ranges[picture.kind]), background) < MIN_CONTRAST:
            report.point_out(
                name, f"hardly visible on {background} background, which suits the other transparent pictures"
            )
    return images


def _range(kind: Kind, pictures: list[Picture], report: LoadReport) -> Range:
    """The numbers of black and white in all pictures of a kind."""
    low = min(picture.low for picture in pictures)
    high = max(picture.high for picture in pictures)
    chosen, what = _scale(kind, low, high)
    if kind != "8-bit" or chosen.high != 255:
        subject = counted(len(pictures), "picture", "pictures")
        title = "32-bit" if kind == "integer" else kind
        report.remark(f"{subject} of {title} pixels: {chosen.low:g} becomes black and {chosen.high:g} white ({what})")
    return chosen


def _scale(kind: Kind, low: float, high: float) -> tuple[Range, str]:
    """The range for pixels in low..high, and its description."""
    own = "the range of the pixels in this dataset"
    if kind == "float":
        if low >= 0 and high <= 1:
            return Range(0, 1), "the usual range of floating-point pixels"
        if -1 <= low < -0.1 and high <= 1:
            return Range(-1, 1), "the range around 0"
        if low >= 0 and LOW_DEPTH < high <= 255:
            return Range(0, 255), "the range of 8 bits"
    elif low >= 0:
        bits = {"8-bit": 8, "16-bit": 16, "integer": 32}[kind] if high == 0 else int(high).bit_length()
        if kind == "8-bit" and bits > 4:
            return Range(0, 255), "the range of 8 bits"
        if 4 < bits <= 16:
            bits = next(depth for depth in (8, 12, 16) if bits <= depth)
        return Range(0, 2**bits - 1), f"the range of {bits} bit{'s' if bits > 1 else ''}"
    return Range(min(low, 0), high) if high > min(low, 0) else Range(low - 1, low), own


def _background(inks: list[float], report: LoadReport) -> str:
    """The background on which the fewest pictures are invisible, given the brightness of each one's ink in 0..1."""
    if not inks:
        return "black"
    ink = float(np.mean(inks))
    hidden = {background: sum(_contrast(one, background) < MIN_CONTRAST for one in inks) for background in BACKGROUNDS}
    plain = ("white", "black") if ink <= 0.5 else ("black", "white")
    background = min(plain, key=lambda each: hidden[each])
    mixed = hidden[background] > MAX_HIDDEN * len(inks) and hidden["grey"] < hidden[background]
    background = "grey" if mixed else background
    subject = counted(len(inks), "picture is", "pictures are")
    why = "light and dark" if mixed else "dark" if background == "white" else "light"
    report.remark(f"{subject} transparent, and drawn on {background} background: the ink is {why}")
    return background


def _level(number: float | None, limits: Range) -> float:
    """A number of a file in 0..1."""
    assert number is not None
    return min(1.0, max(0.0, (number - limits.low) / (limits.high - limits.low)))


def _contrast(ink: float, background: str) -> float:
    return abs(ink - BACKGROUNDS[background])
