"""Drawing images on stderr, where that is a terminal."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl.cli.output import Output
from ddpmctl.errors import DataError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ddpmctl.imaging.upscale import Images

MOST = 120
"""Maximum number of images drawn."""

MAX_BYTES = 100_000_000
"""Maximum size of decoded pixels."""

LINES_LEFT = 4
"""Of the terminal, for text beside a picture."""


def draw(out: Output, images: "Sequence[Images] | Images", wanted: bool | None, lines: int = 1000) -> None:
    """Draw images, uint8[S,S] or uint8[S,S,3] each, where `Output.draws` says so.

    Args:
        wanted: as in ``--show/--no-show``.
        lines: maximum height.
    """
    if not out.draws(wanted):
        return
    from ddpmctl.cli.terminal import laid_out
    from ddpmctl.cli.terminal_graphics import graphics

    columns, lines = out.stderr.width, min(lines, max(8, out.stderr.height - LINES_LEFT))
    few = list(images[:MOST])
    # In pixels more images fit than in characters.
    fine, shown = laid_out(few, 4 * columns, 4 * lines)
    drawn = graphics(fine, columns)
    if drawn is None:
        coarse, shown = laid_out(few, columns, lines)
        drawn = in_characters(out, coarse)
    out.stderr.print(drawn, end="")
    if shown < len(images):
        out.note(f"and {len(images) - shown:,} more")


def warn_of_boxes(out: Output, titles: Iterable[str]) -> None:
    """Warn once of characters in titles that no installed font has."""
    from ddpmctl.imaging.fonts import missing_characters

    if missing := missing_characters(titles):
        shown = missing[:12] + (".." if len(missing) > 12 else "")
        out.warn(f"no installed font has {shown}: boxes stand for them on sheets; the Noto fonts have most characters")


def draw_sheet(out: Output, image: "Images", wanted: bool | None) -> None:
    """Draw one picture as wide as the terminal; otherwise as `draw`."""
    if not out.draws(wanted):
        return
    from ddpmctl.cli.terminal_graphics import graphics

    out.stderr.print(graphics(image, out.stderr.width) or in_characters(out, image), end="")


def draw_picture(out: Output, path: Path, wanted: bool | None) -> None:
    """Draw a generated picture, or the first images of an archive, from a file; otherwise as `draw`."""
    if not out.draws(wanted):
        return
    try:
        _draw_file(out, path)
    except DataError:
        return  # reported where its provenance is shown
    except (OSError, ValueError, LookupError, SyntaxError) as error:
        out.warn(f"{path} cannot be drawn: {error}")


def _draw_file(out: Output, path: Path) -> None:
    import numpy as np
    from PIL import Image

    from ddpmctl.imaging.provenance import read_provenance

    made = read_provenance(path)  # a file without provenance is not decoded
    if made.kind == "images":
        with np.load(path, allow_pickle=False) as archive:
            if archive.zip.getinfo("images.npy").file_size > MAX_BYTES:
                raise ValueError("it is too large")
            draw(out, archive["images"][:MOST], wanted=True)
        return
    with Image.open(path) as image:
        if image.width * image.height > MAX_BYTES:
            raise ValueError("it is too large")
        image.seek(getattr(image, "n_frames", 1) - 1)
        pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    plain = made.kind == "image" or (made.kind == "animation" and "--training" not in made.command)
    step = made.upscale if plain else 1
    draw_sheet(out, pixels[step // 2 :: step, step // 2 :: step], wanted=True)


def in_characters(out: Output, image: "Images") -> "RenderableType":
    """An image in half blocks, or in shades where the terminal lacks colours or these characters."""
    from ddpmctl.cli.terminal import picture

    return picture(image, out.stderr.width, colour=out.has_blocks)


def play(out: Output, frames: "Sequence[Images]", fps: float, hold: float) -> None:
    """Play frames, uint8[H,W] or uint8[H,W,3] each, in place, where stderr is a terminal.

    Args:
        fps: frames per second; a slower terminal skips some.
        hold: seconds that the last frame stays.
    """
    if not out.draws(True):
        return
    from rich.live import Live

    with Live(console=out.stderr, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        started = time.perf_counter()
        for number, frame in enumerate(frames):
            ahead = started + number / fps - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            elif number < len(frames) - 1 and ahead < -1 / fps:
                continue
            live.update(_fitting(out, frame), refresh=True)
        time.sleep(hold)


def _fitting(out: Output, image: "Images") -> "RenderableType":
    """An image that fits the height of the terminal."""
    from ddpmctl.cli.terminal import picture

    high, wide = image.shape[:2]
    columns = min(out.stderr.width, max(1, 2 * (out.stderr.height - 1) * wide // high))
    return picture(image, columns, colour=out.has_blocks)
