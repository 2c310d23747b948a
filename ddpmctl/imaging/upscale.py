"""Upscaling of images by OpenCV."""

import numpy as np
from numpy.typing import NDArray

from ddpmctl.config import choose
from ddpmctl.errors import Setting, UsageError
from ddpmctl.imports import load_cv2

Images = NDArray[np.uint8]

INTERPOLATIONS = {
    "nearest": "INTER_NEAREST",
    "linear": "INTER_LINEAR",
    "cubic": "INTER_CUBIC",
    "lanczos": "INTER_LANCZOS4",
}

MAX_BYTES = 2**30
"""Maximum memory of the upscaled images of one request."""


def check_upscale(factor: int, interpolation: str, count: int, size: int, channels: int) -> None:
    """Check that ``count`` square images can be upscaled, before any is sampled."""
    choose("interpolation", interpolation, INTERPOLATIONS)
    if factor < 1:
        raise UsageError(f"upscale must be at least 1, not {factor}", Setting("upscale", 4))
    needed = count * channels * (size * factor) ** 2
    if needed > MAX_BYTES:
        limit = int((MAX_BYTES / (count * channels)) ** 0.5) // size
        hint = Setting("upscale", f"{limit} or less") if limit else "request fewer images"
        raise UsageError(f"upscaling by {factor} would need {needed / 2**30:,.1f} GiB of memory", hint)


def upscale(image: Images, factor: int, interpolation: str = "cubic") -> Images:
    """Upscale uint8[H,W] or uint8[H,W,3] by an integer factor."""
    if factor == 1:
        return image
    cv2 = load_cv2()
    height, width = image.shape[:2]
    how = getattr(cv2, INTERPOLATIONS[interpolation])
    enlarged: Images = cv2.resize(image, (width * factor, height * factor), interpolation=how)
    return enlarged
