"""Finds the ink of a drawing or of a photograph of handwriting, dark on light or light on dark."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpmctl.imports import load_cv2

Floats = NDArray[np.float32]

SIDE = 512
"""Longer side at which ink is looked for, in pixels."""

COARSE = SIDE // 4
"""Longer side at which the brightness of the paper is estimated, and a quarter of this the widest stroke there."""

EVEN = 0.08
"""Brightness that varies in an evenly lit picture, of 1."""

ONE_LEVEL, DRAWN = 1.5 / 255, 0.35
"""In a drawing, at least this fraction of the border has one grey level; the rest may be ink."""

MIN_CONTRAST = 0.06
"""Difference between ink and paper, of 1; less is noise or an empty page."""

SPECK = 0.03
"""Marks smaller than this fraction of the largest are not part of a drawing."""


class Ink(NamedTuple):
    """The ink of a picture, scaled so that its longer side is `SIDE`.

    Attributes:
        amount: float32[H,W] in 0..1, 0 where there is only paper.
        dark: whether it is darker than the paper.
    """

    amount: Floats
    dark: bool


def find_ink(grey: Floats, dark: bool | None = None) -> Ink | None:
    """The ink of a picture; None if there is none.

    Args:
        grey: float32[H,W] in 0..1.
        dark: whether the ink is dark; None recognizes it.
    """
    light = resized(grey, SIDE)
    dark = _is_dark(light) if dark is None else dark
    amount = _light_ink(1 - light if dark else light)
    return None if amount is None else Ink(amount, dark)


def resized(grey: Floats, side: int) -> Floats:
    """Scale float32[H,W] in 0..1 so that its longer side is ``side``."""
    cv2, factor = load_cv2(), side / max(grey.shape)
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grey, size, interpolation=interpolation).clip(0, 1), np.float32)


def thickened(amount: Floats, width: float) -> tuple[Floats, bool]:
    """Ink with strokes of at least ``width``, a fraction of the longer side of the drawing; whether it was changed."""
    cv2 = load_cv2()
    marks = (amount > 0.5).astype(np.uint8)
    inside = cv2.distanceTransform(marks, cv2.DIST_L2, 5)
    # The mean distance to the edge of a stroke is a quarter of its width.
    missing = round(width * _sides(marks).max() - 4 * float(inside[marks > 0].mean()))
    if missing < 1:
        return amount, False
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (missing + 1, missing + 1))
    return np.asarray(cv2.dilate(amount, kernel)), True


def _is_dark(light: Floats) -> bool:
    """Whether most marks are darker than the paper around them."""
    if _is_even(light):
        return bool(np.median(_border(light)) > light.mean())
    coarse = resized(light, COARSE)
    difference = coarse - _surface(coarse)
    far = np.abs(difference) > max(MIN_CONTRAST, 0.3 * float(np.abs(difference).max()))
    return float(difference[_without_specks(far)].sum()) < 0


def _surface(light: Floats) -> Floats:
    """The brightness of unevenly lit paper: a quadratic surface, fitted to most of the picture."""
    y, x = (axis.ravel() for axis in np.mgrid[-1 : 1 : light.shape[0] * 1j, -1 : 1 : light.shape[1] * 1j])
    terms, values = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1), light.ravel()
    surface, weights = np.full_like(values, np.median(values)), np.ones_like(values)
    for _ in range(10):  # least absolute deviations, which marks hardly move, by reweighted least squares
        surface = (terms @ np.linalg.lstsq(terms * weights[:, None], values * weights, rcond=None)[0]).astype(
            np.float32
        )
        weights = 1 / np.sqrt(np.abs(values - surface).clip(0.01))
    return surface.reshape(light.shape)


def _light_ink(light: Floats) -> Floats | None:
    """How much ink there is in a picture that is light on dark, float32[H,W] in 0..1; None if there is none."""
    cv2 = load_cv2()
    paper = _paper(light)
    difference = (light - paper) / (1 - paper).clip(0.05)
    ink = difference.clip(0, 1)
    levels = np.rint(255 * ink).astype(np.uint8)
    marks = levels > cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    if not marks.any() or marks.all():
        return None
    drawn = _without_specks(marks)
    # Four median deviations: 2.7 standard deviations of normal noise.
    full, noise = float(np.median(ink[drawn])), 4 * float(np.median(np.abs(difference[~marks])))
    if full < max(MIN_CONTRAST, 1.5 * noise):
        return None
    if not _is_even(light) and (drawn[[0, -1]].any() or drawn[:, [0, -1]].any()):
        return None  # a shadow, or a gradient of light
    near = cv2.dilate(drawn.astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.asarray(((ink - noise) / (full - noise)).clip(0, 1) * near, np.float32)


def _paper(light: Floats) -> Floats:
    """The brightness of the paper: one value, or in uneven light what remains when all marks are removed."""
    cv2 = load_cv2()
    if _is_even(light):
        return np.full_like(light, np.median(_border(light)))
    small, stroke = resized(cv2.GaussianBlur(light, (0, 0), 3), COARSE), COARSE // 4
    square = np.ones((stroke, stroke), np.uint8)
    opened = cv2.morphologyEx(small, cv2.MORPH_OPEN, square, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(cv2.GaussianBlur(opened, (0, 0), 3), light.shape[::-1]))


def _is_even(light: Floats) -> bool:
    """Whether the paper at the border has one brightness: that of most of the picture, or exactly one in a drawing."""
    border = _border(light)
    low, level, high = np.percentile(border, (10, 50, 90))
    exact = (np.abs(border - level) <= ONE_LEVEL).mean() > DRAWN
    return bool(exact or (high - low <= EVEN and abs(level - np.median(light)) <= EVEN))


def _border(light: Floats) -> Floats:
    edge = max(2, min(light.shape) // 20)
    return np.concatenate([part.ravel() for part in (light[:edge], light[-edge:], light[:, :edge], light[:, -edge:])])


def _without_specks(marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The marks of a drawing: not those that reach in from the border, as a table does, unless there is little else."""
    count, numbers, facts, _ = load_cv2().connectedComponentsWithStats(marks.astype(np.uint8))
    left, top, width, height, area = facts.T
    inside = (left > 0) & (top > 0) & (left + width < marks.shape[1]) & (top + height < marks.shape[0])
    inside[0] = False  # the paper
    chosen = inside if area[inside].sum() > SPECK * area[1:].sum() else np.arange(count) > 0
    return np.asarray((chosen & (area >= SPECK * area[chosen].max(initial=0)))[numbers])


def _sides(marks: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.array([np.ptp(np.flatnonzero(marks.any(axis))) + 1 for axis in (0, 1)])
