"""Images and curves as characters. No OpenCV: commands that start fast use it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style

Images = NDArray[np.uint8]

SHADES = " .:-=+*#%@"

SMALLEST_TILE = 12
"""Width in pixels at which an image is still recognisable."""


def to_characters(image: Images, columns: int, *, colour: bool) -> Segments:
    """An image as half blocks of true colour, or as a ramp of shades without colour.

    Args:
        image: uint8[H,W] or uint8[H,W,3].
        columns: maximum width; larger images are resized.
        colour: whether the terminal has 256 colours or more.
    """
    height, width = image.shape[:2]
    fitted = Image.fromarray(image)
    if width > columns:
        fitted = fitted.resize((columns, max(2, round(height * columns / width))), Image.Resampling.BOX)
    return _half_blocks(fitted) if colour else _shades(fitted)


def tile(images: Sequence[Images], columns: int, lines: int) -> tuple[Images, int]:
    """Arrange images in rows, as large as fits a terminal.

    Args:
        images: of one size, uint8[H,W] or uint8[H,W,3].
        columns: width of the terminal.
        lines: maximum height, each of two pixels.

    Returns:
        The arranged image, one pixel per column, and the number of images in it.
    """
    high, wide = images[0].shape[:2]
    shown = len(images)
    while True:
        sizes = {rows: _width(-(-shown // rows), rows, (high, wide), columns, lines) for rows in range(1, shown + 1)}
        rows = max(sizes, key=lambda rows: sizes[rows])
        if sizes[rows] >= min(wide, SMALLEST_TILE) or shown == 1:
            break
        shown -= 1
    across, width = -(-shown // rows), max(1, sizes[rows])
    height = max(1, round(width * high / wide))
    canvas = np.zeros((rows * (height + 1) - 1, across * (width + 1) - 1, *images[0].shape[2:]), np.uint8)
    for number in range(shown):
        y, x = number // across * (height + 1), number % across * (width + 1)
        one = Image.fromarray(images[number])
        canvas[y : y + height, x : x + width] = (
            one if width == wide else one.resize((width, height), Image.Resampling.BOX)
        )
    return canvas, shown


def _width(across: int, down: int, size: tuple[int, int], columns: int, lines: int) -> int:
    """The width of each image in a grid with one pixel between them."""
    high, wide = size
    return min(wide, (columns + 1) // across - 1, ((2 * lines + 1) // down - 1) * wide // high)


def _half_blocks(image: Image.Image) -> Segments:
    """Each character shows two pixels: the upper as foreground, the lower as background."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    segments = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        segments += [
            Segment("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
            for above, below in zip(upper, lower, strict=True)
        ]
        segments.append(Segment.line())
    return Segments(segments)


def _shades(image: Image.Image) -> Segments:
    """Each character shows the mean of two pixels, one above the other."""
    grey = image.convert("L")
    small = np.asarray(grey.resize((grey.width, max(1, grey.height // 2)), Image.Resampling.BOX))
    lines = ["".join(SHADES[int(pixel) * len(SHADES) // 256] for pixel in row) for row in small]
    return Segments([part for line in lines for part in (Segment(line), Segment.line())])


def curve(values: list[float], columns: int = 60, rows: int = 8, *, plain: bool = False) -> str:
    """A plot of positive values over their index, on a logarithmic axis with both ends labelled.

    Args:
        plain: stars in place of braille dots, for encodings without them.
    """
    width, height = (columns, rows) if plain else (2 * columns, 4 * rows)
    logs = np.log(np.maximum(np.array(values), 1e-12))
    low, high = float(logs.min()), float(logs.max())
    span = (high - low) or 1.0
    dots = np.zeros((height, width), bool)
    positions = np.linspace(0, len(logs) - 1, width) if len(logs) > 1 else np.zeros(width)
    for x, value in enumerate(np.interp(positions, np.arange(len(logs)), logs)):
        dots[round((high - value) / span * (height - 1)), x] = True
    lines = ["".join("*" if dot else " " for dot in row) for row in dots] if plain else _braille(dots)
    top, bottom = f"{np.exp(high):.4g}", f"{np.exp(low):.4g}"
    margin = max(len(top), len(bottom))
    labels = [top, *[""] * (rows - 2), bottom]
    return "\n".join(f"{label:>{margin}} {line}" for label, line in zip(labels, lines, strict=True))


def _braille(dots: NDArray[np.bool_]) -> list[str]:
    """Lines of braille characters, each four dots high and two wide."""
    # Unicode numbers a braille cell's dots column by column, the lowest row last.
    bits = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])
    rows, columns = len(dots) // 4, dots.shape[1] // 2
    cells = dots.reshape(rows, 4, columns, 2)
    return ["".join(chr(0x2800 + int((cells[row, :, i] * bits).sum())) for i in range(columns)) for row in range(rows)]
