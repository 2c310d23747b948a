"""Shows images on stderr, if that is a terminal."""

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
"""Lines of the terminal left for text above and below an image."""


def draw(out: Output, images: "Sequence[Images] | Images", wanted: bool | None, lines: int = 1000) -> None:
    """Draw images, uint8[S,S] or uint8[S,S,3] each, if `Output.draws` is true.

    Args:
        wanted: as in ``--show/--no-show``.
        lines: maximum height.
    """
    if not out.draws(wanted):
        return
    from ddpmctl.cli.terminal import tile
    from ddpmctl.cli.terminal_graphics import graphics

    columns, lines = out.stderr.width, min(lines, max(8, out.stderr.height - LINES_LEFT))
    few = list(images[:MOST])
    # In pixels more images fit than in characters.
    fine, shown = tile(few, 4 * columns, 4 * lines)
    drawn = graphics(fine, columns)
    if drawn is None:
        coarse, shown = tile(few, columns, lines)
        drawn = in_characters(out, coarse)
    out.stderr.print(drawn, end="")
    if shown < len(images):
        out.note(f"{len(images) - shown:,} more images not shown")


def warn_missing_glyphs(out: Output, titles: Iterable[str]) -> None:
    """Warn once about characters in titles that no installed font has."""
    from ddpmctl.imaging.fonts import missing_characters

    if missing := missing_characters(titles):
        shown = missing[:12] + (".." if len(missing) > 12 else "")
        out.warn(f"no installed font has glyphs for {shown}: they are drawn as boxes; install the Noto fonts")


def draw_wide(out: Output, image: "Images", wanted: bool | None) -> None:
    """Draw one image as wide as the terminal; otherwise as `draw`."""
    if not out.draws(wanted):
        return
    from ddpmctl.cli.terminal_graphics import graphics

    out.stderr.print(graphics(image, out.stderr.width) or in_characters(out, image), end="")


def draw_file(out: Output, path: Path, wanted: bool | None) -> None:
    """Draw a generated image, or the first images of an archive, from a file; otherwise as `draw`."""
    if not out.draws(wanted):
        return
    try:
        _draw_file(out, path)
    except DataError:
        return  # reported where its provenance is shown
    except (OSError, ValueError, LookupError, SyntaxError) as error:
        out.warn(f"{path} cannot be shown: {error}")


def _draw_file(out: Output, path: Path) -> None:
    import numpy as np
    from PIL import Image

    from ddpmctl.imaging.provenance import read_provenance

    provenance = read_provenance(path)  # a file without provenance is not decoded
    if provenance.kind == "images":
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
    plain = provenance.kind == "image" or (provenance.kind == "animation" and "--training" not in provenance.command)
    step = provenance.upscale if plain else 1
    draw_wide(out, pixels[step // 2 :: step, step // 2 :: step], wanted=True)


def in_characters(out: Output, image: "Images") -> "RenderableType":
    """An image in half blocks, or in shades if the terminal lacks colours or these characters."""
    from ddpmctl.cli.terminal import to_characters

    return to_characters(image, out.stderr.width, colour=out.supports_half_blocks)


def play(out: Output, frames: "Sequence[Images]", fps: float, hold: float) -> None:
    """Play frames, uint8[H,W] or uint8[H,W,3] each, in place, if stderr is a terminal.

    Args:
        fps: frames per second; a slower terminal skips some.
        hold: seconds to hold the last frame.
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
    from ddpmctl.cli.terminal import to_characters

    high, wide = image.shape[:2]
    columns = min(out.stderr.width, max(1, 2 * (out.stderr.height - 1) * wide // high))
    return to_characters(image, columns, colour=out.supports_half_blocks)
