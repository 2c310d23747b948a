"""Decodes one image file to a square array, whatever its format, size, depth and transparency.

Black and white are chosen for the whole dataset: an image keeps the values of its file until `to_uint8` gets the
range of the dataset.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Kind = Literal["8-bit", "16-bit", "integer", "float"]
"""The type of the values in a file; ``integer`` has 32 bits or a sign."""

MAX_PIXELS = 80_000_000
"""Maximum size of one image; decoding more could exhaust the memory of the machine."""

LOW_DEPTH = 15
"""An 8-bit image whose largest value is at most this may be a mask of a low bit depth."""

ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that undoes each EXIF orientation."""

EXIF_ORIENTATION = 0x0112

SCALED = {"L;2": 85, "L;4": 17}
"""Grey levels of less than 8 bits, which Pillow multiplies, but not the one that is transparent."""


class Range(NamedTuple):
    """The numbers that become black and white."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image, cropped or padded to a square, in the values of its file."""

    kind: Kind
    pixels: np.ndarray | None
    """[S,S,1] or [S,S,3], multiplied by alpha; uint8 or floating point. None if they are not needed."""
    alpha: NDArray[np.float16] | None = None
    """[S,S] in 0..1; None for an image that is opaque everywhere."""
    low: float = 0.0
    """Smallest value in the file."""
    high: float = 255.0
    """Largest value in the file."""
    ink: float | None = None
    """Mean brightness of the foreground (pixels that are not transparent), in values of the file; None if nothing
    or everything is transparent."""
    several: bool = False
    """Whether the file contains more frames or pages than the first, which is read."""


def is_picture(path: Path) -> bool:
    """Whether a file starts like an image of a supported format."""
    try:
        with Image.open(path):
            return True
    except Image.DecompressionBombError:
        return True
    except OSError as error:
        return error.errno is not None  # a file that cannot be opened may be one: `read` gives the reason
    except Exception:  # a damaged header makes a decoder raise anything
        return False


def read(path: Path, size: int, fit: str, channels: int | None, *, header_only: bool = False) -> Picture | str:
    """Read an image as a square of side ``size``; returns the reason if that is not possible.

    Without ``channels``, it has colour if the file has any. With ``header_only``, the pixels of an opaque 8-bit image
    are not decoded, since nothing about the whole dataset depends on them.
    """
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            several = _has_several(opened)
            if header_only and _is_plain(opened):
                return Picture(kind="8-bit", pixels=None, several=several)
            # JPEGs are decoded at a fraction of their size if that is enough.
            opened.draft(None, (2 * size, 2 * size))
            deep = _deep(path, opened)
            if deep is None:
                return _shallow(opened, size, fit, channels, several)
            return _squared(*deep, size, fit, channels, several)
    except UnidentifiedImageError:
        return "not an image in a supported format"
    except Image.DecompressionBombError:
        return "too many pixels"
    except Exception as error:  # a damaged file makes a decoder raise anything
        reason = getattr(error, "strerror", None) or str(error)
        return reason.splitlines()[0][:80] if reason else type(error).__name__


def to_uint8(picture: Picture, limits: Range, background: float) -> NDArray[np.uint8]:
    """The image as uint8[S,S,1] or uint8[S,S,3], composited on a background of brightness 0..1."""
    pixels = picture.pixels
    assert pixels is not None, "only the header was read"
    if pixels.dtype == np.uint8 and picture.alpha is None:
        return np.asarray(pixels, np.uint8)
    levels = pixels.astype(np.float32)
    scale = 255 / (limits.high - limits.low)
    if picture.alpha is None:
        levels = (levels - limits.low) * scale
    else:
        alpha = picture.alpha.astype(np.float32)[..., None]
        levels = (levels - limits.low * alpha) * scale + 255 * background * (1 - alpha)
    return np.asarray(np.rint(levels.clip(0, 255)), np.uint8)


def _is_plain(opened: Image.Image) -> bool:
    """Whether a file contains 8-bit values without transparency."""
    deep = opened.mode[0] in "IF" or ";16" in _layout(opened)
    return not deep and opened.mode not in ALPHA_MODES and "transparency" not in opened.info


def _layout(opened: Image.Image) -> str:
    """How the file's pixels are stored in Pillow's notation, such as ``RGB;16B``; empty if that is unknown."""
    tiles = getattr(opened, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _has_several(opened: Image.Image) -> bool:
    # The further frames of an MPO are other renderings of one photograph.
    return bool(getattr(opened, "is_animated", False)) and opened.format != "MPO"


def _shallow(opened: Image.Image, size: int, fit: str, channels: int | None, several: bool) -> Picture:
    """An image of 8-bit values."""
    layout, key = _layout(opened), opened.info.get("transparency")
    picture = ImageOps.exif_transpose(opened)
    if layout in SCALED and isinstance(key, int):
        picture.info["transparency"] = key * SCALED[layout]
    if picture.mode in ALPHA_MODES or "transparency" in picture.info:
        if picture.mode == "La":
            picture = picture.convert("LA")
        shown = picture.convert("RGBA")
        if np.asarray(shown.getchannel("A")).min() < 255:
            square = np.asarray(_square(shown.convert("RGBa"), size, fit))
            alpha = (square[..., 3] / 255).astype(np.float16)
            return _finished("8-bit", square[..., :3], alpha, channels, Range(0, 255), several)
        picture = shown.convert("RGB")
    picture = picture.convert("L" if channels == 1 or picture.mode in ("1", "L") else "RGB")
    extrema = np.atleast_2d(picture.getextrema())
    low, high = float(extrema.min()), float(extrema.max())
    if high <= LOW_DEPTH:  # resized in 8 bits, a mask of 0 and 1 would lose its edges
        bands = np.asarray(picture, np.float32).reshape(picture.height, picture.width, -1)
        return _squared("8-bit", bands, None, None, size, fit, channels, several)
    square = np.asarray(_square(picture, size, fit)).reshape(size, size, -1)
    return _finished("8-bit", square, None, channels, Range(low, high), several)


def _deep(
    path: Path, opened: Image.Image
) -> tuple[Kind, NDArray[np.float32], NDArray[np.float32] | None, Image.Transpose | None] | None:
    """Values of more than 8 bits, float32[H,W,C], their alpha float32[H,W] in 0..1 and how to turn both.

    None for an image of 8-bit values.
    """
    key = opened.info.get("transparency")
    kind: Kind
    if opened.mode[0] in "IF":
        kind = "float" if opened.mode == "F" else "16-bit" if opened.mode.startswith("I;16") else "integer"
        numbers = np.asarray(opened)[..., None]
    elif ";16" in _layout(opened):
        decoded = _decoded_16_bit(path)
        if decoded is None:
            return None
        kind, numbers = "16-bit", decoded
    else:
        return None
    # After decoding, since Pillow turns TIFF files itself and then forgets their orientation.
    turn = TURNS.get(opened.getexif().get(EXIF_ORIENTATION, 1))
    if not np.isfinite(numbers).all():
        raise ValueError("contains pixels that are NaN or infinite")
    alpha: NDArray[np.float32] | None = None
    if numbers.shape[-1] in (2, 4):
        numbers, alpha = numbers[..., :-1], (numbers[..., -1] / 65535).astype(np.float32)
    elif isinstance(key, int | tuple):
        alpha = (numbers != np.array(key)).any(axis=-1).astype(np.float32)
    return kind, numbers.astype(np.float32), alpha, turn


def _decoded_16_bit(path: Path) -> NDArray[np.uint16] | None:
    """Colours or transparency in 16 bits, of which Pillow keeps 8; None if OpenCV cannot decode them."""
    import cv2

    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if data is None or data.dtype != np.uint16:
        return None
    order = [2, 1, 0, 3] if data.ndim == 3 else [0]
    numbers = data.reshape(*data.shape[:2], -1)
    return np.asarray(numbers[..., order[: numbers.shape[2]]], np.uint16)


def _squared(
    kind: Kind,
    numbers: NDArray[np.float32],
    alpha: NDArray[np.float32] | None,
    turn: Image.Transpose | None,
    size: int,
    fit: str,
    channels: int | None,
    several: bool,
) -> Picture:
    """An image of float32[H,W,C], resized in floating point."""
    if alpha is not None and (alpha == 1).all():
        alpha = None
    limits = Range(float(numbers.min()), float(numbers.max()))
    if alpha is not None:
        numbers = numbers * alpha[..., None]
        # A dark foreground on a transparent background is not an image of a low bit depth.
        limits = Range(0, 65535) if kind == "16-bit" else limits
    planes = [*np.moveaxis(numbers, -1, 0), *([alpha] if alpha is not None else [])]
    images = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes]
    turned = [image if turn is None else image.transpose(turn) for image in images]
    # The padding of an opaque image is black, whatever black turns out to be.
    padding = 0.0 if alpha is not None else float("-inf")
    squares = [np.asarray(_square(image, size, fit, padding)) for image in turned]
    stacked = np.stack(squares[: numbers.shape[-1]], axis=-1)
    small = None if alpha is None else squares[-1].clip(0, 1).astype(np.float16)
    stacked = stacked.astype(np.float16) if kind == "8-bit" else stacked
    return _finished(kind, stacked, small, channels, limits, several)


def _square(picture: Image.Image, size: int, fit: str, padding: float | None = None) -> Image.Image:
    if fit == "crop":
        return ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return ImageOps.pad(picture, (size, size), Image.Resampling.BICUBIC, color=padding)  # type: ignore[arg-type]


def _finished(
    kind: Kind,
    pixels: np.ndarray,
    alpha: NDArray[np.float16] | None,
    channels: int | None,
    limits: Range,
    several: bool,
) -> Picture:
    """An image of [S,S,C], grey if it has no colour or grey is requested."""
    ink = None
    if alpha is not None and (weight := float(alpha.sum(dtype=np.float64))) > 0:
        shades = pixels @ BRIGHTNESS if pixels.shape[-1] == 3 else pixels[..., 0]
        ink = float(shades.sum(dtype=np.float64)) / weight
    if pixels.shape[-1] == 3:
        if channels == 1:
            grey = pixels @ BRIGHTNESS
            pixels = (np.rint(grey).astype(np.uint8) if pixels.dtype == np.uint8 else grey)[..., None]
        elif channels is None and bool((pixels == pixels[..., :1]).all()):
            pixels = pixels[..., :1]
    return Picture(
        kind=kind, pixels=np.ascontiguousarray(pixels), alpha=alpha, low=limits.low, high=limits.high, ink=ink,
        several=several,
    )  # fmt: skip
