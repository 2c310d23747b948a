"""A built-in dataset: handwritten-looking digits, drawn in code.

Each digit has a few skeletons, the paths a pen could take. A sample picks one, moves its control points, bends,
slants, turns and stretches it, and draws it with a pen of random width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpmctl.imports import load_cv2

cv2 = load_cv2()

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

IMAGE_SIZE = 28
"""Height and width of an image in pixels."""
CLASSES = 10
"""Number of digits."""

# A skeleton is a weight (how often it is chosen within its digit) and its strokes, separated by "|". A stroke is a
# smooth curve through points "x,y" in percent of the unit square, y downwards; "!" after a point makes it a corner.
SKELETONS: dict[int, tuple[tuple[int, str], ...]] = {
    0: (
        (3, "60,5 30,9 8,45 20,86 50,96 84,74 90,34 62,5 40,8"),  # round
        (2, "56,3 32,14 22,50 34,90 54,96 74,78 78,40 62,6 46,5"),  # narrow
        (1, "72,14 48,4 16,28 12,68 38,96 74,82 90,44 74,12 50,10 36,22"),  # with a curl at the top
    ),
    1: (
        (6, "50,2 50,35 50,68 50,98"),  # a bare stroke
        (2, "37,26 55,3! 54,50 54,98"),  # with a flag
        (1, "36,25 54,3! 54,50 54,95 | 28,97 55,96 80,96"),  # with a flag and a foot
    ),
    2: (
        (3, "15,25 28,8 55,3 77,15 76,38 50,66 14,94! 45,93 90,92"),  # without a loop
        (2, "15,28 30,8 58,4 77,20 70,46 44,76 18,92 10,82 26,76 52,88 92,92"),  # with a loop
        (1, "16,12 45,5 80,8! 56,45 12,93! 50,92 88,92"),  # like a Z
    ),
    3: (
        (3, "15,15 40,3 72,8 76,29 38,47! 75,55 84,78 50,97 12,86"),  # round
        (2, "15,6 45,5 80,5! 60,25 42,42! 78,52 84,78 50,97 12,88"),  # flat topped
        (2, "18,13 50,3 77,18 60,42 36,48 48,46 80,62 72,89 40,97 12,85"),  # with a bend for a waist
    ),
    4: (
        (3, "22,5 18,30 14,56! 50,56 90,52 | 74,5 70,50 66,98"),  # open
        (2, "64,3 38,32 10,64! 50,65 94,62 | 64,3 64,50 62,98"),  # closed
        (2, "28,6 14,42 26,60 52,56 82,44 | 84,6 74,50 62,98"),  # open, round
    ),
    5: (
        (2, "28,6 25,26 22,46! 50,38 80,56 75,86 45,97 12,88 | 28,6 55,6 90,4"),  # the top drawn last
        (2, "86,6 55,5 30,7! 26,25 22,45! 50,38 80,58 72,88 40,97 12,86"),  # in one stroke
        (1, "86,8 54,5 30,18 30,38 60,50 78,70 62,92 36,97 12,87"),  # like an S
    ),
    6: (
        (2, "68,3 40,22 18,56 24,86 50,97 78,86 78,62 52,52 22,72"),  # a wide bowl
        (2, "60,2 32,32 16,68 30,95 60,93 72,72 56,58 32,68 20,84"),  # a small bowl
        (1, "48,2 26,36 18,70 34,96 66,92 76,68 54,54 22,70"),  # upright
    ),
    7: (
        (3, "12,10 45,7 86,6! 65,48 46,98"),  # bare
        (2, "12,10 45,7 86,6! 66,46 46,98 | 36,52 60,50 84,50"),  # with a bar
        (1, "12,26 14,8! 50,8 86,7! 66,46 52,98"),  # with a serif
        (1, "12,14 48,6 80,9 78,32 60,62 50,98"),  # round shouldered
    ),
    8: (
        (3, "76,15 50,3 25,18 40,42 72,66 68,93 44,97 25,80 40,55 66,36 76,13"),  # an S that closes
        (2, "50,47 25,28 36,5 65,5 75,26 50,47 22,70 35,95 68,95 78,70 50,47"),  # two rings
        (1, "84,6 52,5 28,20 44,44 72,68 60,95 34,94 28,74 52,50 86,18"),  # open at the top
    ),
    9: (
        (3, "76,18 50,4 22,18 22,42 48,50 74,32 78,9! 74,50 66,98"),  # straight
        (2, "78,18 50,3 21,20 25,46 54,48 78,18 80,54 66,92 36,97 18,89"),  # curved
        (1, "70,8 40,8 22,34 42,50 70,30 76,10 66,56 48,98"),  # leaning
    ),
}

_OVERSAMPLING = 4
"""Canvas pixels per image pixel: averaging them smooths the edges of the ink."""
_BOX = 20 * _OVERSAMPLING
"""Side of the square that a digit fills, in canvas pixels."""
# Wide enough to cut an image around any point of the box.
_CANVAS = IMAGE_SIZE * _OVERSAMPLING + _BOX
_STEPS = 7
"""Line segments between two neighbouring control points."""


@dataclass(frozen=True)
class _Skeleton:
    """Control points [P, 2] in the unit square, and the matrix [S, P] that turns them into S points of the curve.

    `pen_down` [S - 1] is false where the pen is lifted between a point of the curve and the next.
    """

    points: Floats
    basis: Floats
    pen_down: NDArray[np.bool_]


def _catmull_rom() -> Floats:
    """Weights [_STEPS + 1, 4] of four neighbouring points along the span from the second to the third."""
    t = np.linspace(0, 1, _STEPS + 1)
    t2, t3 = t**2, t**3
    return np.stack([-t + 2 * t2 - t3, 2 - 5 * t2 + 3 * t3, t + 4 * t2 - 3 * t3, t3 - t2], axis=1) / 2


def _stroke_basis(path: list[int], points: int) -> Floats:
    """Matrix [S, points] of the curve through the control points numbered in `path`."""
    weights = _catmull_rom()
    spans = []
    for i in range(len(path) - 1):
        if path[i] == path[i + 1]:
            continue
        span = np.zeros((_STEPS + 1, points))
        for k in range(4):
            span[:, path[min(max(i - 1 + k, 0), len(path) - 1)]] += weights[:, k]
        spans.append(span)
    return np.concatenate(spans)


def _parse(text: str) -> _Skeleton:
    """Read a skeleton in the notation of SKELETONS."""
    words = text.replace("|", " ").split()
    points = np.array([[float(v) for v in word.rstrip("!").split(",")] for word in words]) / 100
    bases, start = [], 0
    for stroke in text.split("|"):
        path: list[int] = []
        for i, word in enumerate(stroke.split(), start):
            # A point visited twice in a row cuts the tangent in two: a corner.
            path += [i, i] if word.endswith("!") else [i]
        start = path[-1] + 1
        bases.append(_stroke_basis(path, len(points)))
    pen_down = np.ones(sum(map(len, bases)) - 1, dtype=np.bool_)
    pen_down[np.cumsum([len(b) for b in bases])[:-1] - 1] = False
    return _Skeleton(points, np.concatenate(bases), pen_down)


# Each skeleton is repeated by its weight, so that a uniform choice suffices.
_PARSED = [[s for weight, text in SKELETONS[d] for s in [_parse(text)] * weight] for d in range(CLASSES)]


def _warp(curve: Floats, rng: np.random.Generator) -> Floats:
    """Displace the points [S, 2] of a curve by a smooth random field, of less than one wave a unit square."""
    frequency = rng.uniform(-5.5, 5.5, (2, 2))
    amplitude = rng.uniform(-0.07, 0.07, 2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    warped: Floats = curve + amplitude * np.sin(curve @ frequency + phase)
    return warped


def _affine(rng: np.random.Generator) -> Floats:
    """A random matrix [2, 2] for row vectors: stretch, then slant, then turn."""
    # Beyond these limits some digits cannot be read: a wide, slanted 8 fills with ink.
    stretch = np.exp(np.clip(rng.normal(-0.2, 0.19), -0.6, 0.15))
    slant = np.clip(rng.normal(0.2, 0.22), -0.25, 0.6)
    angle = rng.normal(0, 0.09)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix: Floats = np.array([[stretch, 0], [-slant, 1]]) @ np.array([[cos, sin], [-sin, cos]])
    return matrix


def _fit(curve: Floats, side: float) -> Floats:
    """Scale and move a curve [S, 2] so that its longer side is `side` long and its box is centred on the canvas."""
    low, high = curve.min(axis=0), curve.max(axis=0)
    fitted: Floats = (curve - (low + high) / 2) * (side / (high - low).max()) + _CANVAS / 2
    return fitted


def _ink(curve: Floats, widths: Floats, pen_down: NDArray[np.bool_]) -> Bytes:
    """The canvas, with the curve [S, 2] drawn on it in lines of the given widths [S - 1], both in canvas pixels."""
    canvas = np.zeros((_CANVAS, _CANVAS), dtype=np.uint8)
    # OpenCV reads coordinates as fixed-point numbers with `shift` binary places.
    shift = 3
    ends = np.rint(curve * 2**shift).astype(int).tolist()
    pens = np.rint(widths).astype(int).tolist()
    for i in np.flatnonzero(pen_down).tolist():
        cv2.line(canvas, ends[i], ends[i + 1], 255, pens[i], cv2.LINE_8, shift)
    return canvas


def _develop(canvas: Bytes) -> Bytes:
    """The image uint8 [28, 28] around the centre of mass of a canvas."""
    size = IMAGE_SIZE * _OVERSAMPLING
    mass = cv2.moments(canvas)
    left = round(mass["m10"] / mass["m00"]) - size // 2
    top = round(mass["m01"] / mass["m00"]) - size // 2
    # Real ink has soft edges.
    crop = cv2.blur(canvas[top : top + size, left : left + size], (3, 3))
    return np.asarray(cv2.resize(crop, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _draw_one(digit: int, rng: np.random.Generator) -> Bytes:
    """One image uint8 [28, 28] of a digit."""
    skeleton = _PARSED[digit][rng.integers(len(_PARSED[digit]))]
    points = skeleton.points + rng.normal(0, 0.03, skeleton.points.shape)
    curve = _warp(skeleton.basis @ points, rng) @ _affine(rng)
    width = _OVERSAMPLING * np.clip(rng.lognormal(0.74, 0.3), 1.2, 4)
    # The box holds the ink, not only the middle of the line.
    curve = _fit(curve, _BOX - width)
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(3, 9)
    pressure = 1 + 0.14 * np.sin(phase + waves * np.linspace(0, 1, len(curve) - 1))
    return _develop(_ink(curve, width * pressure, skeleton.pen_down))


def draw(count: int, seed: int) -> tuple[Bytes, NDArray[np.int64]]:
    """Draw digits, the same ones for the same seed; a larger count only appends to a smaller one.

    Args:
        count: number of images, at least 0.
        seed: at least 0.

    Returns:
        Images uint8 [count, 28, 28], 0 background to 255 ink, each digit in a box of about 20x20 pixels with its
        centre of mass in the middle; and labels int64 [count], 0 to 9 in turn.
    """
    images = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    for i, digit in enumerate(labels.tolist()):
        images[i] = _draw_one(digit, np.random.default_rng([seed, i]))
    return images, labels
