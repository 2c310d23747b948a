"""Animations, decoded by Pillow."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from ddpmctl.imaging.animation import FORMATS, Timing, encode_animation, pick

from .support import Images, noise


def decode(data: bytes) -> tuple[Image.Image, list[Images], list[float]]:
    """The picture, its frames, and how long each is shown, in milliseconds."""
    image = Image.open(io.BytesIO(data))
    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        frame.load()
        frames.append(np.asarray(frame.convert("RGB")))
        durations.append(frame.info["duration"])
    return image, frames, durations


def in_colour(image: Images) -> Images:
    return image if image.ndim == 3 else image[..., None].repeat(3, axis=2)


ALL_FORMATS = pytest.mark.parametrize("suffix", FORMATS)


@ALL_FORMATS
@pytest.mark.parametrize(("fps", "interval"), [(20, 50), (10, 100), (50, 20), (24, 40), (1, 1000)])
def test_an_animation_plays_every_frame_in_time_and_holds_the_last(suffix: str, fps: float, interval: int) -> None:
    frames = list(noise(7, 16, 16))
    image, shown, durations = decode(encode_animation(frames, suffix, Timing(fps=fps, hold=2.5)))
    assert image.format == {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}[suffix]
    assert getattr(image, "n_frames", 1) == 7
    assert image.info["loop"] == 0
    assert durations == [interval] * 6 + [2500]
    assert len(shown) == 7
    for mine, theirs in zip(frames, shown, strict=True):
        assert np.array_equal(in_colour(mine), theirs)


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_colour_is_kept_bit_for_bit(suffix: str) -> None:
    frames = list(noise(4, 16, 16, 3))
    _, shown, _ = decode(encode_animation(frames, suffix, Timing(fps=20, hold=1)))
    assert all(map(np.array_equal, frames, shown))


def test_colour_in_a_gif_is_as_near_as_256_colours_allow() -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    frames = [np.stack(np.broadcast_arrays(ramp[:, None], ramp, np.uint8(blue)), axis=2) for blue in (0, 120, 240)]
    _, shown, _ = decode(encode_animation(frames, ".gif", Timing(fps=20, hold=1)))
    assert len(shown) == 3
    for mine, theirs in zip(frames, shown, strict=True):
        assert np.abs(mine.astype(int) - theirs).mean() < 12


@ALL_FORMATS
def test_no_frame_equals_the_one_before(suffix: str) -> None:
    a, b, c = noise(3, 16, 16)
    _, shown, durations = decode(encode_animation([a, a, a, b, c, c, a, a], suffix, Timing(fps=20, hold=1)))
    assert [bool(np.array_equal(one, other)) for one, other in pairwise(shown)] == [False] * 3
    for mine, theirs in zip([a, b, c, a], shown, strict=True):
        assert np.array_equal(in_colour(mine), theirs)
    # Time is not lost: a frame that came three times is shown three times as long.
    assert durations == [150, 50, 100, 1000]


@ALL_FORMATS
def test_frames_that_differ_in_one_pixel_by_one_grey_level_are_two(suffix: str) -> None:
    frame = noise(16, 16)
    other = frame.copy()
    other[3, 4] ^= 1
    _, shown, durations = decode(encode_animation([frame, other, frame], suffix, Timing(fps=20, hold=1)))
    assert durations == [50, 50, 1000]
    assert np.array_equal(shown[1], in_colour(other))


@ALL_FORMATS
def test_the_last_frame_stays_at_least_as_long_as_any(suffix: str) -> None:
    _, _, durations = decode(encode_animation(list(noise(3, 8, 8)), suffix, Timing(fps=10, hold=0)))
    assert durations == [100, 100, 100]


@ALL_FORMATS
@pytest.mark.parametrize("count", [1, 3])
def test_a_picture_that_never_changes_is_one_frame(suffix: str, count: int) -> None:
    frame = noise(16, 16)
    image = Image.open(io.BytesIO(encode_animation([frame] * count, suffix, Timing(fps=20, hold=1))))
    assert getattr(image, "n_frames", 1) == 1
    assert np.array_equal(np.asarray(image.convert("RGB")), in_colour(frame))


@given(count=st.integers(1, 1200), wanted=st.integers(1, 1200))
def test_frames_are_picked_evenly_with_the_last_among_them(count: int, wanted: int) -> None:
    picked = pick(count, wanted)
    assert len(picked) == min(count, wanted)
    assert picked[-1] == count - 1
    if len(picked) > 1:
        assert picked[0] == 0
        stride = (count - 1) / (len(picked) - 1)
        assert all(b - a > 0 and abs(b - a - stride) <= 1 for a, b in pairwise(picked))
