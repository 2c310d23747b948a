"""Pictures enlarged by OpenCV."""

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
"""Memory that the enlarged pictures of one request may take."""


def check_upscale(factor: int, interpolation: str, count: int, size: int, channels: int) -> None:
    """Check that ``count`` square images can be enlarged, before any is sampled."""
    choose("interpolation", interpolation, INTERPOLATIONS)
    if factor < 1:
        raise UsageError(f"an upscale of {factor} leaves no picture", Setting("upscale", "1 or more"))
    needed = count * channels * (size * factor) ** 2
    if needed > MAX_BYTES:
        limit = int((MAX_BYTES / (count * channels)) ** 0.5) // size
        hint = Setting("upscale", f"{limit} or less") if limit else "ask for fewer images"
        raise UsageError(f"an upscale of {factor} would need {needed / 2**30:,.1f} GiB of memory", hint)


def upscale(image: Images, factor: int, interpolation: str = "cubic") -> Images:
    """Enlarge uint8[H,W] or uint8[H,W,3] by a whole factor."""
    if factor == 1:
        return image
    cv2 = load_cv2()
    height, width = image.shape[:2]
    how = getattr(cv2, INTERPOLATIONS[interpolation])
    enlarged: Images = cv2.resize(image, (width * factor, height * factor), interpolation=how)
    return enlarged
