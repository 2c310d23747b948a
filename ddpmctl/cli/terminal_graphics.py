"""Images as pixels on terminals with kitty graphics or sixel, through the extra ``images``."""

import logging
import sys
from importlib.util import find_spec

from PIL import Image
from rich.console import RenderableType

from ddpmctl.cli.terminal import Images

PIXELS_PER_CELL = 2
"""Image pixels per character cell, horizontally."""


def graphics(image: Images, columns: int) -> RenderableType | None:
    """An image, uint8[H,W] or uint8[H,W,3], as a Rich renderable; None if the terminal does not support graphics.

    The terminal is queried once, for a fifth of a second at most.
    """
    if find_spec("textual_image") is None:
        return None
    # The query uses stdin and stdout, whatever is drawn to.
    if not all(stream and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__)):
        return None
    # Its warnings about the terminal are of no use here.
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    from textual_image import renderable

    if renderable.Image not in (renderable.SixelImage, renderable.TGPImage):
        return None
    width = min(columns, max(1, image.shape[1] // PIXELS_PER_CELL))
    return renderable.Image(Image.fromarray(image).convert("RGB"), width=width, height="auto")
