"""Pictures as pixels, on terminals that can: kitty's graphics and sixel, through the extra ``images``."""

import logging
import sys
from importlib.util import find_spec

from PIL import Image
from rich.console import RenderableType

from ddpmctl.cli.terminal import Images

PIXELS_A_CELL = 2
"""Of the picture, across: a digit is sixteen characters wide."""


def graphics(image: Images, columns: int) -> RenderableType | None:
    """A picture for Rich to draw in pixels, None where that cannot be.

    The terminal is asked what it can, once, and has a fifth of a second to answer.

    Args:
        image: uint8[H,W] or uint8[H,W,3].
        columns: widest result.
    """
    if find_spec("textual_image") is None:
        return None
    # It asks on stdin and stdout, whatever it draws to.
    if not all(stream and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__)):
        return None
    # What it could not learn of the terminal is its business and no warning of ours.
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    from textual_image import renderable

    if renderable.Image not in (renderable.SixelImage, renderable.TGPImage):
        return None
    width = min(columns, max(1, image.shape[1] // PIXELS_A_CELL))
    return renderable.Image(Image.fromarray(image).convert("RGB"), width=width, height="auto")
