"""A person's picture, prepared as the images of a dataset are.

MNIST's digits are light on dark, scaled to fit a box of 20x20 pixels in a field of 28x28, and moved so that their
centre of mass is the centre of the field (LeCun et al. 1998, section III.A). For a model, use
`model_images.prepare_for_model`.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpmctl.config import choose
from ddpmctl.errors import DataError
from ddpmctl.imaging.ink import SIDE, Ink, find_ink, thickened
from ddpmctl.imaging.upscale import Images

FitName = Literal["digit", "crop", "pad"]
FITS: tuple[str, ...] = get_args(FitName)

FIELD, BOX = 28, 20
"""Sides of an image of MNIST and of the box that its digit fits, in pixels."""

MIN_WIDTH = 1.8
"""Strokes are thickened to this width in the box, in pixels; 4 % of MNIST's are thinner."""

MARGIN = SIDE // 10
"""Room around the ink for thicker strokes, in pixels."""

MAX_PIXELS = 80_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A picture prepared for a model.

    Attributes:
        pixels: uint8[S,S], or uint8[S,S,3] for colour.
        frame: the square of the picture that ``pixels`` shows: left, top and side in pixels of the picture, which it
            may exceed.
        picture_size: width and height of the picture, upright.
        inverted: whether it was dark on light.
        kept: whether it had the right size and was taken as it is.
        thickened: whether its strokes were too thin.
    """

    pixels: Images
    frame: tuple[float, float, float]
    picture_size: tuple[int, int]
    inverted: bool = False
    kept: bool = False
    thickened: bool = False

    def cut(self, other: Image.Image, size: int) -> Images:
        """The same square of another picture of the same size, grey, continued beyond its border: uint8[size,size]."""
        left, top, side = self.frame
        excess = (-left, -top, left + side - other.width, top + side - other.height)
        room = max(0, int(np.ceil(max(excess))) + 1)
        wider = Image.fromarray(np.pad(np.asarray(other.convert("L")), room, mode="edge"))
        return _cut(wider, (left + room, top + room, side), size, Image.Resampling.BOX)


def prepare_drawing(
    picture: Image.Image | Path,
    size: int = FIELD,
    channels: int = 1,
    fit: str = "digit",
    *,
    invert: bool | None = None,
    keep: tuple[int, ...] = (),
) -> Drawing:
    """Prepare a picture of any size, depth and orientation, opaque or not.

    Args:
        size: side of the result; 28 for ``digit``.
        channels: 1 for grey, 3 for colour.
        fit: ``digit`` finds the ink, also in uneven light, and places it as MNIST does; ``crop`` and ``pad`` make the
            picture square.
        invert: exchange light and dark; None recognizes a picture that is dark on light.
        keep: a square picture with one of these sides is taken as it is, at its own size, unless it is inverted.

    Raises:
        DataError: for a file that is not a picture, and for a picture without ink.
    """
    choose("fit", fit, FITS)
    whole = _composited(open_picture(picture) if isinstance(picture, Path) else picture)
    ink: Ink | None = None
    if invert is None or fit == "digit":
        ink = find_ink(np.asarray(whole.convert("L")).astype(np.float32) / np.float32(255), invert)
    if ink is None and (fit == "digit" or invert is None):
        name = picture if isinstance(picture, Path) else "the picture"
        raise DataError(
            f"there is no ink in {name}",
            "pass a picture of one digit, dark on light or light on dark, with paper around it",
        )
    inverted = bool(invert) if ink is None else ink.dark
    if whole.width == whole.height in keep and not inverted:
        frame = (0.0, 0.0, float(whole.width))
        pixels = np.asarray(whole.convert("L" if channels == 1 else "RGB"))
        return Drawing(pixels=pixels, frame=frame, picture_size=whole.size, kept=True)
    if fit == "digit" and ink is not None:
        return _placed(ink, whole.size)
    side = float(min(whole.size) if fit == "crop" else max(whole.size))
    frame = ((whole.width - side) / 2, (whole.height - side) / 2, side)
    turned = whole.convert("L" if channels == 1 else "RGB")
    bands = (ImageOps.invert(turned) if inverted else turned).split()
    pixels = np.stack([_cut(band, frame, size, Image.Resampling.BICUBIC) for band in bands], axis=-1)
    pixels = pixels if channels > 1 else pixels[..., 0]
    return Drawing(pixels=pixels, frame=frame, picture_size=whole.size, inverted=inverted)


def open_picture(path: Path) -> Image.Image:
    """Decode a picture and turn it upright."""
    hint = "pass a .png, .jpg or another image file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about files that are refused here or repaired
            opened = Image.open(path)
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            upright = ImageOps.exif_transpose(opened)
            upright.load()
            return upright
    except FileNotFoundError as error:
        raise DataError(f"file not found: {path}", hint) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image in a supported format", hint) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has more than {MAX_PIXELS:,} pixels", "use a smaller copy") from error
    except Exception as error:  # a damaged file makes a decoder raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason.splitlines()[0]}", hint) from error


def _composited(opened: Image.Image) -> Image.Image:
    """``L`` or ``RGB`` without transparency, on a background that the ink stands out from."""
    if opened.mode[0] in "IF":  # more than 8 bits, which Pillow would clip
        numbers = np.nan_to_num(np.asarray(opened, np.float32))
        low, high = float(numbers.min()), float(numbers.max())
        return Image.fromarray(np.rint((numbers - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))
    if not opened.has_transparency_data:
        return opened.convert("L" if opened.mode in ("1", "L") else "RGB")
    shown = opened.convert("RGBA")
    alpha = np.asarray(shown.getchannel("A"))
    visible = np.asarray(shown.convert("L"))[alpha > 127]
    # Where little is visible, that is the ink; otherwise it is the paper, with holes.
    level = float(np.median(visible)) if visible.size else 0.0
    background = round(level) if visible.size > alpha.size / 2 else 255 if level < 128 else 0
    base = Image.new("RGBA", shown.size, (background, background, background, 255))
    return Image.alpha_composite(base, shown).convert("RGB")


def _placed(ink: Ink, picture_size: tuple[int, int]) -> Drawing:
    """Ink as MNIST places it: its longer side fills the box, its centre of mass is the centre of the field."""
    amount, thicker = thickened(np.pad(ink.amount, MARGIN), MIN_WIDTH / BOX)
    spans = [np.flatnonzero((amount > 0.5).any(axis)) for axis in (0, 1)]
    scale = BOX / max(int(span[-1] - span[0]) + 1 for span in spans)
    corner = []
    for axis, span in enumerate(spans):
        mass = amount.sum(axis)
        centre = float((mass * (np.arange(len(mass)) + 0.5)).sum() / mass.sum())
        # In the middle of pixel 14, as MNIST's are on average, unless the box would leave the field.
        place = round(FIELD / 2 + 0.5 - (centre - span[0]) * scale)
        length = round((span[-1] - span[0] + 1) * scale)
        corner.append(float(span[0] - min(max(place, 0), FIELD - length) / scale))
    levels = Image.fromarray(np.rint(255 * amount).astype(np.uint8))
    pixels = _cut(levels, (corner[0], corner[1], FIELD / scale), FIELD, Image.Resampling.HAMMING)
    back = max(picture_size) / SIDE
    frame = ((corner[0] - MARGIN) * back, (corner[1] - MARGIN) * back, FIELD / scale * back)
    return Drawing(pixels=pixels, frame=frame, picture_size=picture_size, inverted=ink.dark, thickened=thicker)


def _cut(picture: Image.Image, frame: tuple[float, float, float], size: int, resampling: Image.Resampling) -> Images:
    """A square of a grey picture, black beyond its border: uint8[size,size]."""
    left, top, side = frame
    x, y, room = int(np.floor(left)), int(np.floor(top)), int(np.ceil(side)) + 1
    inside = picture.crop((x, y, x + room, y + room))
    return np.asarray(inside.resize((size, size), resampling, box=(left - x, top - y, left - x + side, top - y + side)))
