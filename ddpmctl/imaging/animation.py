"""Animated pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ddpmctl.errors import Setting, UsageError
from ddpmctl.imaging.provenance import Provenance, saved_with
from ddpmctl.imaging.upscale import Images

FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}
MAX_FRAMES = 1000
MAX_FPS = 50
"""GIF counts time in hundredths of a second, and viewers slow down what is shorter than two of them."""

MAX_HOLD = 60


@dataclass(frozen=True, slots=True)
class Timing:
    """How an animation runs: frames at most, frames per second, and seconds that the last one stays."""

    frames: int = 60
    fps: float = 20.0
    hold: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MAX_FRAMES:
            raise UsageError(f"{self.frames} frames are not possible", Setting("frames", f"1..{MAX_FRAMES}"))
        if not 1 <= self.fps <= MAX_FPS:
            raise UsageError(f"{self.fps:g} frames a second are not possible", Setting("fps", f"1..{MAX_FPS}"))
        if not 0 <= self.hold <= MAX_HOLD:
            raise UsageError(f"a hold of {self.hold:g} seconds is not possible", Setting("hold", f"0..{MAX_HOLD}"))


def encode_animation(
    frames: Sequence[Images], suffix: str, timing: Timing, provenance: Provenance | None = None
) -> bytes:
    """Encode frames that play in a loop, as a GIF, WebP or animated PNG.

    A frame that equals the one before is not written again: that one is shown longer, as formats that merge equal
    frames would have it anyway.

    Args:
        frames: uint8[H,W] or uint8[H,W,3], one size, at least one.
        suffix: a key of `FORMATS`.
    """
    interval = round(100 / timing.fps) * 10
    kept: list[Images] = []
    durations: list[int] = []
    for frame in frames:
        if kept and np.array_equal(kept[-1], frame):
            durations[-1] += interval
        else:
            kept.append(frame)
            durations.append(interval)
    durations[-1] = max(interval, round(timing.hold * 100) * 10)
    first, *others = (Image.fromarray(frame) for frame in kept)
    data = io.BytesIO()
    settings = saved_with(suffix, provenance) | ({"lossless": True} if suffix == ".webp" else {})
    first.save(data, FORMATS[suffix], save_all=True, append_images=others, duration=durations, loop=0, **settings)
    return data.getvalue()


def pick(count: int, wanted: int) -> list[int]:
    """``wanted`` indices spread over ``count``, first and last among them; all where there are fewer."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count - 1]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
