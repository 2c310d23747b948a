"""Grids of titled images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ddpmctl.imaging.fonts import INVISIBLE, face_for
from ddpmctl.imaging.upscale import Images, upscale

GAP = 6
SMALLEST = 9
"""Height of the smallest letters in pixels."""
PAPER, INK = 255, 0
MARGIN = 8
"""Width of the names of rows, in heights of a title."""

WIDEST = 20
"""Images per row of a class grid; half as many if there is one of each class."""


def class_grid(images: Images, classes: Sequence[str], factor: int) -> Images:
    """A grid of every class: one image of each in two or more titled rows, or one titled column per class.

    Args:
        images: one of each class in order, then again one of each, and so on: uint8[N,H,W] or uint8[N,H,W,3].
        factor: integer upscaling factor.
    """
    count = len(classes)
    rows = len(images) // count
    columns = min(-(-count // 2), WIDEST // 2) if rows == 1 else WIDEST
    parts: list[list[Images]] = []
    titles: list[list[str]] = []
    for start in range(0, count, columns):
        shown = range(start, min(start + columns, count))
        parts += [[images[row * count + label] for label in shown] for row in range(rows)]
        titles += [[classes[label] for label in shown], *[[] for _ in range(rows - 1)]]
    return labelled_grid(parts, titles, factor)


def tile(images: Sequence[Images], columns: int) -> Images:
    """Images of one size in rows of at most ``columns``, separated by one black pixel."""
    rows = -(-len(images) // columns)
    across, (high, wide) = -(-len(images) // rows), images[0].shape[:2]
    tiled = np.zeros((rows * (high + 1) - 1, across * (wide + 1) - 1, *images[0].shape[2:]), np.uint8)
    for number, image in enumerate(images):
        y, x = number // across * (high + 1), number % across * (wide + 1)
        tiled[y : y + high, x : x + wide] = image
    return tiled


def labelled_grid(
    rows: Sequence[Sequence[Images]],
    titles: Sequence[Sequence[str]],
    factor: int,
    names: Sequence[str] = (),
    caption: str = "",
) -> Images:
    """Arrange images in rows, each row below its titles, black on white.

    Args:
        rows: images of one size, uint8[H,W] or uint8[H,W,3].
        titles: for each row a title per image, or an empty list.
        factor: integer upscaling factor.
        names: row names, written to the left.
        caption: a line below all of them.
    """
    high, wide = (side * factor for side in rows[0][0].shape[:2])
    band = max(14, high // 5)
    margin = band * MARGIN if names else 0
    columns = max(len(row) for row in rows)
    height = GAP + sum((band if above else 0) + high + GAP for above in titles) + (band + GAP if caption else 0)
    colour = rows[0][0].ndim == 3
    width = margin + GAP + columns * (wide + GAP)
    grid = Image.new("RGB" if colour else "L", (width, height), (PAPER,) * 3 if colour else PAPER)
    draw = ImageDraw.Draw(grid)
    y = GAP
    for number, (row, above) in enumerate(zip(rows, titles, strict=True)):
        for column, title in enumerate(above):
            _write(draw, title, (margin + GAP + column * (wide + GAP), y), (wide, band))
        y += band if above else 0
        if names:
            _write(draw, names[number], (GAP, y + (high - band) // 2), (margin - GAP, band))
        for column, image in enumerate(row):
            grid.paste(Image.fromarray(upscale(image, factor)), (margin + GAP + column * (wide + GAP), y))
        y += high + GAP
    if caption:
        _write(draw, caption, (GAP, y), (width - 2 * GAP, band))
    return np.asarray(grid)


def _write(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], box: tuple[int, int]) -> None:
    """Centre a line in a box, in smaller letters if too long, truncated at the smallest size."""
    face = face_for(text)
    text = "".join(char for char in text if char not in INVISIBLE)
    size = box[1] * 0.75
    font = face(size)
    while size > SMALLEST and font.getlength(text) > box[0]:
        size *= 0.9
        font = face(size)
    full, kept = text, len(text)
    while kept and font.getlength(text) > box[0]:
        kept -= 1
        text = f"{full[:kept]}.."
    middle = (corner[0] + box[0] / 2, corner[1] + box[1] / 2)
    ink = (INK,) * 3 if draw.mode == "RGB" else INK
    draw.text(middle, text, fill=ink, font=font, anchor="mm")
