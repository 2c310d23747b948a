"""Pictures in characters. No OpenCV: commands that start fast use it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

Images = NDArray[np.uint8]

SHADES = " .:-=+*#%@"


def picture(image: Images, columns: int, *, colour: bool) -> Segments | Text:
    """An image as half blocks of true colour, or as a ramp of shades where there is no colour.

    Args:
        image: uint8[H,W] or uint8[H,W,3].
        columns: widest result; larger images are shrunk.
        colour: whether the terminal shows true colour.
    """
    height, width = image.shape[:2]
    fitted = Image.fromarray(image)
    if width > columns:
        fitted = fitted.resize((columns, max(2, round(height * columns / width))), Image.Resampling.BOX)
    return _half_blocks(fitted) if colour else _shades(fitted)


def _half_blocks(image: Image.Image) -> Segments:
    """Each character shows two pixels: its upper half in ink, its lower half in paper."""
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


def _shades(image: Image.Image) -> Text:
    """Each character stands for two pixels, one above the other."""
    grey = image.convert("L")
    small = np.asarray(grey.resize((grey.width, max(1, grey.height // 2)), Image.Resampling.BOX))
    lines = ("".join(SHADES[int(pixel) * len(SHADES) // 256] for pixel in row) for row in small)
    return Text("\n".join(lines))


def curve(values: list[float], columns: int = 60, rows: int = 8) -> str:
    """Positive values over their index as a picture in braille dots, on a logarithmic axis with its two ends named."""
    width, height = 2 * columns, 4 * rows
    logs = np.log(np.maximum(np.array(values), 1e-12))
    low, high = float(logs.min()), float(logs.max())
    span = (high - low) or 1.0
    dots = np.zeros((height, width), bool)
    positions = np.linspace(0, len(logs) - 1, width) if len(logs) > 1 else np.zeros(width)
    for x, value in enumerate(np.interp(positions, np.arange(len(logs)), logs)):
        dots[round((high - value) / span * (height - 1)), x] = True
    # Unicode numbers a braille cell's dots column by column, the lowest row last.
    bits = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])
    lines = []
    for row in range(rows):
        cells = dots[4 * row : 4 * row + 4].reshape(4, columns, 2)
        lines.append("".join(chr(0x2800 + int((cells[:, i] * bits).sum())) for i in range(columns)))
    top, bottom = f"{np.exp(high):.4g}", f"{np.exp(low):.4g}"
    margin = max(len(top), len(bottom))
    names = [top, *[""] * (rows - 2), bottom]
    return "\n".join(f"{name:>{margin}} {line}" for name, line in zip(names, lines, strict=True))
