"""Upscaling."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ddpmctl.cli.failures import option
from ddpmctl.data import strokes
from ddpmctl.errors import DdpmctlError, ExitCode, UsageError
from ddpmctl.imaging.upscale import INTERPOLATIONS, MAX_BYTES, check_upscale, upscale

from .support import Images, noise


@pytest.fixture(scope="module")
def digit() -> Images:
    """A picture with smooth parts and edges."""
    images, _ = strokes.draw(9, seed=0)
    eight: Images = images[8]
    return eight


def by_cubic_kernel(image: Images, factor: int) -> NDArray[np.float64]:
    """Cubic convolution (Keys 1981) with the sharpness that OpenCV takes, edges repeated."""
    a = -0.75

    def kernel(x: float) -> float:
        x = abs(x)
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    def matrix(size: int) -> NDArray[np.float64]:
        rows = np.zeros((size * factor, size))
        for out in range(size * factor):
            centre = (out + 0.5) / factor - 0.5
            for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
                rows[out, min(max(tap, 0), size - 1)] += kernel(centre - tap)
        return rows

    enlarged: NDArray[np.float64] = matrix(image.shape[0]) @ image.astype(float) @ matrix(image.shape[1]).T
    return enlarged


def by_pillow(image: Images, factor: int) -> NDArray[np.float64]:
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)).astype(float)


@pytest.mark.parametrize(
    ("interpolation", "expected"),
    [
        ("nearest", lambda image, factor: image.repeat(factor, axis=0).repeat(factor, axis=1)),
        ("linear", by_pillow),
        ("cubic", by_cubic_kernel),
    ],
)
@pytest.mark.parametrize("factor", [2, 3, 8])
def test_each_interpolation_computes_what_its_name_says(
    digit: Images, interpolation: str, expected: Callable[[Images, int], NDArray[Any]], factor: int
) -> None:
    enlarged = upscale(digit, factor, interpolation)
    assert enlarged.dtype == np.uint8
    assert np.abs(enlarged - np.clip(expected(digit, factor), 0, 255)).max() <= 1.5


def test_the_interpolations_differ_but_keep_the_brightness(digit: Images) -> None:
    enlarged = {name: upscale(digit, 4, name).astype(float) for name in INTERPOLATIONS}
    for one, other in combinations(enlarged.values(), 2):
        assert np.abs(one - other).max() > 10
    for image in enlarged.values():
        assert image.mean() == pytest.approx(digit.mean(), abs=1.5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_grey_and_colour_are_enlarged_alike(interpolation: str, shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    enlarged = upscale(image, 3, interpolation)
    assert enlarged.shape == (15, 21, *shape[2:])
    if len(shape) == 3:
        # OpenCV rounds one channel and three by different code.
        for channel in range(3):
            alone = upscale(np.ascontiguousarray(image[..., channel]), 3, interpolation).astype(int)
            assert np.abs(enlarged[..., channel] - alone).max() <= 1


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_factor_of_one_changes_nothing(digit: Images, interpolation: str) -> None:
    assert np.array_equal(upscale(digit, 1, interpolation), digit)


def test_cubic_is_the_default(digit: Images) -> None:
    assert np.array_equal(upscale(digit, 4), upscale(digit, 4, "cubic"))


def test_opencv_that_does_not_load_is_explained(digit: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("ddpmctl.imports.import_module", fail)
    with pytest.raises(DdpmctlError) as caught:
        upscale(digit, 2)
    assert caught.value.message.startswith("OpenCV cannot be loaded: ")
    assert caught.value.hint is not None
    assert "apt-get install libgl1 libglib2.0-0" in str(caught.value.hint_as(option))
    assert caught.value.exit_code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("count", "size", "channels", "largest"), [(1, 32, 1, 1024), (4, 32, 1, 512), (1, 32, 3, 591), (10, 64, 3, 93)]
)
def test_the_largest_upscale_is_what_fits_into_a_gibibyte(count: int, size: int, channels: int, largest: int) -> None:
    check_upscale(largest, "cubic", count, size, channels)
    assert count * channels * (size * largest) ** 2 <= MAX_BYTES == 2**30
    for factor in (largest + 1, 10**9):
        with pytest.raises(UsageError) as caught:
            check_upscale(factor, "cubic", count, size, channels)
        assert caught.value.message.startswith(f"upscaling by {factor} would need ")
        assert caught.value.hint_as(option) == f"--upscale {largest} or less"


@pytest.mark.parametrize(
    ("factor", "interpolation", "count", "message", "hint"),
    [
        (0, "cubic", 1, "upscale must be at least 1, not 0", "--upscale 4"),
        (-4, "cubic", 1, "upscale must be at least 1, not -4", "--upscale 4"),
        (4, "cubik", 1, "unknown interpolation 'cubik'", "did you mean cubic?"),
        (4, "x", 1, "unknown interpolation 'x'", "one of: nearest, linear, cubic, lanczos"),
        (2, "cubic", 2**40, "upscaling by 2 would need 4,194,304.0 GiB of memory", "request fewer images"),
    ],
)
def test_an_upscale_that_cannot_be_is_refused(
    factor: int, interpolation: str, count: int, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_upscale(factor, interpolation, count, 32, 1)
    assert (caught.value.message, caught.value.hint_as(option)) == (message, hint)
