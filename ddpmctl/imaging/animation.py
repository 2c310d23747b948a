"""Moving pictures."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ddpmctl.imaging.provenance import Provenance, saved_with
from ddpmctl.imaging.upscale import Images

FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}
MAX_FPS = 50
"""GIF counts time in hundredths of a second, and viewers slow down what is shorter than two of them."""


def animation(frames: Sequence[Images], suffix: str, fps: float, hold: float, made: Provenance | None = None) -> bytes:
    """Encode frames that play in a loop.

    A frame that equals the one before is not written again: that one is shown longer, as formats that merge equal
    frames would have it anyway.

    Args:
        frames: uint8[H,W] or uint8[H,W,3], one size, at least one.
        suffix: a key of `FORMATS`.
        fps: frames a second, up to 50.
        hold: seconds that the last frame stays.
        made: how, to be written into it.

    Returns:
        The bytes of a GIF, WebP or animated PNG.
    """
    interval = round(100 / fps) * 10
    kept: list[Images] = []
    durations: list[int] = []
    for frame in frames:
        if kept and np.array_equal(kept[-1], frame):
            durations[-1] += interval
        else:
            kept.append(frame)
            durations.append(interval)
    durations[-1] = max(interval, round(hold * 100) * 10)
    first, *others = (Image.fromarray(frame) for frame in kept)
    data = io.BytesIO()
    how = saved_with(suffix, made) | ({"lossless": True} if suffix == ".webp" else {})
    first.save(data, FORMATS[suffix], save_all=True, append_images=others, duration=durations, loop=0, **how)
    return data.getvalue()


def pick(count: int, wanted: int) -> list[int]:
    """``wanted`` indices spread over ``count``, first and last among them; all where there are fewer."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count - 1]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
