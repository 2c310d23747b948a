"""A folder of images of any format, size and depth as a dataset, with one scale and one background for all."""

import os
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ddpmctl.data.dataset import Dataset
from ddpmctl.data.layout import HINT, TEST_EVERY, ClassFiles, find_classes
from ddpmctl.data.pictures import LOW_DEPTH, Kind, Picture, Range, read, to_uint8
from ddpmctl.data.report import LoadReport, counted
from ddpmctl.errors import DataError

MAX_IMAGES = 2_000_000

BACKGROUNDS = {"white": 1.0, "black": 0.0, "grey": 0.5}
"""Brightness behind transparent images."""

MIN_CONTRAST = 0.15
"""Minimum contrast of foreground and background (black on white has 1) to be visible."""

MAX_HIDDEN = 0.1
"""Fraction of images whose foreground may be invisible on white or black before grey is chosen."""

PALE = 16
"""Grey levels between the darkest and the brightest pixel; an image with fewer is reported."""


def load_folder(
    path: Path,
    size: int,
    *,
    channels: int | None = None,
    fit: str = "crop",
    train: bool = True,
    report: LoadReport | None = None,
) -> Dataset:
    """The images of a folder: ``PATH/CLASS/..``, or ``PATH/train/CLASS/..`` and ``PATH/test/CLASS/..``.

    The range of the pixels and the background of transparent images are chosen for the training and the test images
    together. Arguments as in `Request`; without ``channels``, images are grey if none of them has colour.
    """
    report = report or LoadReport()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about files that `read` rejects or repairs
        classes = find_classes(path, report)
        count = sum(len(found.train) + len(found.test) for found in classes)
        if count > MAX_IMAGES:
            raise DataError(f"{path} contains {count:,} images, more than {MAX_IMAGES:,}", "use a subset")
        pictures = _Reader(path, size, fit, channels, report).read(classes, train)
    chosen = [(label, file) for label, found in enumerate(classes) for file in (found.train if train else found.test)]
    usable = {label for label, found in enumerate(classes) if any(file in pictures for file in found.train)}
    for label, found in enumerate(classes):
        if label not in usable:
            report.skip(found.folder, "no readable training image")
    if not usable:
        raise DataError(f"no readable image in {path}", HINT)
    numbers = {label: number for number, label in enumerate(sorted(usable))}
    kept = [(numbers[label], file) for label, file in chosen if label in numbers and file in pictures]
    if not kept:
        raise DataError(
            f"{path} contains no test images",
            f"provide at least {TEST_EVERY} images of a class, or PATH/train and PATH/test with the same class folders",
        )
    images = _develop(path, {file: pictures[file] for _, file in kept}, pictures.values(), channels, report)
    labels = torch.tensor([number for number, _ in kept], dtype=torch.int64)
    names = tuple(classes[label].name for label in sorted(usable))
    return Dataset(f"folder:{path}", torch.from_numpy(images), labels, names)


class _Reader:
    """Reads files in several threads and reports those that are not images."""

    def __init__(self, root: Path, size: int, fit: str, channels: int | None, report: LoadReport) -> None:
        self.root = root
        self.size = size
        self.fit = fit
        self.channels = channels
        self.report = report

    def read(self, classes: list[ClassFiles], train: bool) -> dict[Path, Picture]:
        """The images of one part by file, and of the other part what the scale of the dataset depends on."""
        files = [file for found in classes for file in (found.train if train else found.test)]
        others = [file for found in classes for file in (found.test if train else found.train)]
        pictures = self._read(files)
        dark = all(picture.high <= LOW_DEPTH for picture in pictures.values() if picture.kind == "8-bit")
        pictures |= self._read(others, header_only=not dark)
        if not train:
            # A class needs an image to train on: for each, one file is decoded of which only the header was read.
            for found in classes:
                broken = self._undecodable(found.train, pictures)
                for file in broken:
                    del pictures[file]
        return pictures

    def _read(self, files: list[Path], *, header_only: bool = False) -> dict[Path, Picture]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            all_read = pool.map(
                lambda file: read(file, self.size, self.fit, self.channels, header_only=header_only), files
            )
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
            self.report.skip(name, found)
            return False
        if found.several:
            self.report.note_image(name, "multi-frame; only the first frame is used")
        return True


def _develop(
    path: Path,
    chosen: Mapping[Path, Picture],
    everything: Iterable[Picture],
    channels: int | None,
    report: LoadReport,
) -> NDArray[np.uint8]:
    """The chosen images as uint8[N,C,S,S], with the scale and the background of everything."""
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
        image[:] = to_uint8(picture, ranges[picture.kind], BACKGROUNDS[background]).transpose(2, 0, 1)
    spread = (images.max(axis=(2, 3)).astype(np.int16) - images.min(axis=(2, 3))).max(axis=1)
    for (file, picture), contrast in zip(chosen.items(), spread.tolist(), strict=True):
        name = file.relative_to(path).as_posix()
        if contrast == 0:
            report.note_image(name, "uniform after conversion")
        elif contrast < PALE:
            report.note_image(name, "almost without contrast after conversion")
        if picture.ink is not None and _contrast(_level(picture.ink, ranges[picture.kind]), background) < MIN_CONTRAST:
            report.note_image(name, f"hardly visible on the {background} background chosen for transparent images")
    return images


def _range(kind: Kind, pictures: list[Picture], report: LoadReport) -> Range:
    """The values of black and white in all images of a kind."""
    low = min(picture.low for picture in pictures)
    high = max(picture.high for picture in pictures)
    chosen, what = _scale(kind, low, high)
    if kind != "8-bit" or chosen.high != 255:
        subject = counted(len(pictures), "image", "images")
        title = "32-bit" if kind == "integer" else kind
        report.remark(f"{subject} with {title} pixels: {chosen.low:g} becomes black and {chosen.high:g} white ({what})")
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
    """The background on which the fewest images are invisible, given the brightness of each foreground in 0..1."""
    if not inks:
        return "black"
    ink = float(np.mean(inks))
    hidden = {background: sum(_contrast(one, background) < MIN_CONTRAST for one in inks) for background in BACKGROUNDS}
    plain = ("white", "black") if ink <= 0.5 else ("black", "white")
    background = min(plain, key=lambda each: hidden[each])
    mixed = hidden[background] > MAX_HIDDEN * len(inks) and hidden["grey"] < hidden[background]
    background = "grey" if mixed else background
    subject = counted(len(inks), "image is", "images are")
    why = "light and dark" if mixed else "dark" if background == "white" else "light"
    report.remark(f"{subject} transparent, composited on a {background} background: the foreground is {why}")
    return background


def _level(number: float | None, limits: Range) -> float:
    """A pixel value of a file, scaled to 0..1."""
    assert number is not None
    return min(1.0, max(0.0, (number - limits.low) / (limits.high - limits.low)))


def _contrast(ink: float, background: str) -> float:
    return abs(ink - BACKGROUNDS[background])
