"""One's own images: a folder a class, in any common format and of any size."""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpmctl.errors import DataError

from .dataset import Dataset

Fit = Literal["crop", "pad"]

MOST_PIXELS = 80_000_000
"""Of one picture: more is no photograph, and unpacking it would take the memory of the machine."""

MOST_IMAGES = 2_000_000
TOLD = 5
"""Files that are named when they are skipped; of the others the number is said."""

TEST_SHARE = 10
"""One of so many images of each class is kept apart for judging."""

LAYOUT = "a folder a class: PATH/cats/1.jpg, PATH/dogs/2.png"


def load_folder(
    path: Path,
    size: int,
    *,
    channels: int | None = None,
    fit: str = "crop",
    train: bool = True,
    notice: Callable[[str], None] = lambda words: None,
) -> Dataset:
    """The images of a folder's folders, whose names are the classes, in alphabetical order.

    Args:
        path: the folder.
        size: side of an image; pictures are centred, and cropped or padded to a square.
        channels: 1 for grey, 3 for colour; None for grey where no picture has colour.
        fit: ``crop`` cuts what is too long, ``pad`` shows all of it with black at the sides.
        train: the images to train on, or else the tenth of each class that is kept apart (none where there are fewer
            than ten).
        notice: is told, in words, what was skipped.

    Raises:
        DataError: when there is no image, or a file that cannot be an image's name.
    """
    names = [folder.name for folder in _folders(path) if _files(folder)]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"the name of a folder in {path} is no text: {name!r}", "rename it") from error
    clash = {name.casefold() for name in names}
    if len(clash) < len(names):
        raise DataError(f"two classes in {path} differ in nothing but their case", "rename one of the folders")
    chosen = [(label, file) for label, name in enumerate(names) for file in _part(_files(path / name), train)]
    if len(chosen) > MOST_IMAGES:
        raise DataError(f"{path} holds {len(chosen):,} files: {MOST_IMAGES:,} are the most", "take a part of them")
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_read` refuses what it warns of
        read = list(pool.map(lambda pair: _read(pair[1], size, fit, channels), chosen))
    pairs = list(zip(chosen, read, strict=True))
    skipped = [f"{file.relative_to(path)}: {found}" for (_, file), found in pairs if isinstance(found, str)]
    if skipped:
        more = f", and {len(skipped) - TOLD} more" if len(skipped) > TOLD else ""
        notice(f"skipped {len(skipped)} files that are no images: {'; '.join(skipped[:TOLD])}{more}")
    images = [found for found in read if not isinstance(found, str)]
    if not images:
        if train:
            raise DataError(f"{path} holds no image that can be read", LAYOUT)
        raise DataError(f"{path} is too small to keep images apart for judging", f"{TEST_SHARE} images a class or more")
    labels = [label for (label, _), found in pairs if not isinstance(found, str)]
    if train and (unseen := sorted(set(range(len(names))) - set(labels))):
        raise DataError(f"no image of {names[unseen[0]]} in {path} can be read", LAYOUT)
    wanted = channels or (3 if any(image.ndim == 3 for image in images) else 1)
    stacked = np.stack([_with(image, wanted) for image in images])
    return Dataset(f"folder:{path}", torch.from_numpy(stacked), torch.tensor(labels, dtype=torch.int64), tuple(names))


def _folders(path: Path) -> list[Path]:
    """The folders of the classes.

    Raises:
        DataError: when there are none.
    """
    try:
        found = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder {path} cannot be read: {error.strerror}", LAYOUT) from error
    if not found:
        raise DataError(f"{path} holds no folder of images", LAYOUT)
    return found


def _files(folder: Path) -> list[Path]:
    """Everything in a folder of a class and below it, but for what is hidden."""
    found = (entry for entry in folder.rglob("*") if entry.is_file())
    return sorted(entry for entry in found if not any(part.startswith(".") for part in entry.relative_to(folder).parts))


def _part(files: list[Path], train: bool) -> Iterator[Path]:
    """Those to train on, or every tenth, which is kept apart."""
    return (file for k, file in enumerate(files) if (k % TEST_SHARE != TEST_SHARE - 1) == train)


def _read(path: Path, size: int, fit: str, channels: int | None) -> NDArray[np.uint8] | str:
    """A picture as uint8[S,S] where it is grey and uint8[S,S,3] where it has colour; in words why there is none."""
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                return f"{opened.width}x{opened.height} pixels are too many"
            # JPEGs are unpacked at a fraction of their size where that is enough.
            opened.draft(None, (2 * size, 2 * size))
            picture = _flat(ImageOps.exif_transpose(opened), channels)
            way = ImageOps.fit if fit == "crop" else ImageOps.pad
            pixels = np.asarray(way(picture, (size, size), Image.Resampling.BICUBIC))
    except UnidentifiedImageError:
        return "no format that is known"
    except Image.DecompressionBombError:
        return "too many pixels"
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, ZeroDivisionError, MemoryError) as error:
        return str(error).splitlines()[0][:80] if str(error) else type(error).__name__
    grey = pixels.ndim == 3 and channels is None and bool((pixels == pixels[..., :1]).all())
    return np.ascontiguousarray(pixels[..., 0] if grey else pixels)


def _flat(picture: Image.Image, channels: int | None) -> Image.Image:
    """In grey or in colour, whatever it was, what is transparent being black."""
    if picture.mode.startswith(("I", "F")):
        levels = np.asarray(picture, np.float64)
        top = 65535.0 if picture.mode.startswith("I;16") or levels.max() > 255 else 255.0
        picture = Image.fromarray((levels.clip(0, top) * (255 / top)).astype(np.uint8))
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        shown = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)
    grey = channels == 1 or picture.mode in ("1", "L")
    return picture.convert("L" if grey else "RGB")


def _with(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """uint8[S,S] or uint8[S,S,3] as uint8[C,S,S]."""
    if image.ndim == 2:
        return np.repeat(image[None], channels, axis=0)
    return np.ascontiguousarray(image.transpose(2, 0, 1))
