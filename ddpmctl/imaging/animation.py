"""Animated image files."""

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
"""GIF counts time in hundredths of a second, and viewers slow down frames shorter than two of them."""

MAX_HOLD = 60


@dataclass(frozen=True, slots=True)
class Timing:
    """Timing of an animation: maximum number of frames, frames per second, and seconds to hold the last frame."""

    frames: int = 60
    fps: float = 20.0
    hold: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MAX_FRAMES:
            raise UsageError(f"frames must be in 1..{MAX_FRAMES}, not {self.frames}", Setting("frames", 60))
        if not 1 <= self.fps <= MAX_FPS:
            raise UsageError(f"fps must be in 1..{MAX_FPS}, not {self.fps:g}", Setting("fps", 20))
        if not 0 <= self.hold <= MAX_HOLD:
            raise UsageError(f"hold must be in 0..{MAX_HOLD}, not {self.hold:g}", Setting("hold", 2))


def encode_animation(
    frames: Sequence[Images], suffix: str, timing: Timing, provenance: Provenance | None = None
) -> bytes:
    """Encode frames that play in a loop, as a GIF, WebP or animated PNG.

    A frame that equals the previous one is merged into it, as some formats do anyway.

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


def pick(count: int, size: int) -> list[int]:
    """``size`` indices spread evenly over ``count``, including first and last; all if there are fewer."""
    if size >= count:
        return list(range(count))
    if size == 1:
        return [count - 1]
    return [round(i * (count - 1) / (size - 1)) for i in range(size)]
