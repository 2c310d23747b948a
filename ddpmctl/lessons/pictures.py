"""What the lessons show: sheets, chains side by side, and curves."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ddpmctl.imaging.animation import Timing, encode_animation, pick
from ddpmctl.imaging.files import png
from ddpmctl.imaging.sheet import labelled_sheet
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import to_pixels
from ddpmctl.sampling.request import SamplingRequest

Images = NDArray[np.uint8]

MOST_CLASSES = 10
"""Columns of a sheet."""

TOGETHER = 50
"""Images that are made together where the engine does not divide them itself."""

FRAMES = 24
SHADES = 16
"""Of grey in an animation: noise in all 256 would make the page three times as large."""

CHAIN, CHAIN_STEPS = "ddim", 60
FPS = 8
HOLD = 3.0
SMOOTHED_OVER = 25
"""Steps that a curve is a median over."""


def sheet(rows: Sequence[Images], names: Sequence[str], titles: Sequence[str]) -> bytes:
    """Rows of images under the names of their classes, as a PNG."""
    return png(labelled_sheet([list(row) for row in rows], [titles, *[[] for _ in rows[1:]]], 2, names))


def follow(
    engine: Engine, request: SamplingRequest, shown: tuple[float, float] | None = None
) -> tuple[list[Images], Images]:
    """Run a chain: some of its steps as frames, each with an image a label in two lines, and the images at its end.

    Args:
        engine: the model.
        request: its images.
        shown: what is shown black and white; the range of the model's pixels by default.
    """
    limits, kept = shown or engine.diffusion.pixel_range, set(pick(request.sampling.steps, FRAMES))
    frames = []
    for step in engine.steps(request):
        if step.index in kept:
            frames.append(tiled(to_pixels(step.x, limits)))
    images = to_pixels(step.x0, limits)
    return [*frames[:-1], tiled(images)], images


def side_by_side(left: list[Images], right: list[Images], names: tuple[str, str]) -> bytes:
    """Two chains as one GIF; the shorter one waits at its end."""
    count = max(len(left), len(right))
    pairs = ((frames[min(k, len(frames) - 1)] for frames in (left, right)) for k in range(count))
    frames = [_coarse(labelled_sheet([list(pair)], [names], 2)) for pair in pairs]
    return encode_animation(frames, ".gif", Timing(fps=FPS, hold=HOLD))


def _coarse(image: Images) -> Images:
    """An image in `SHADES` alone, black and white among them."""
    levels = np.round(image.astype(np.float32) * ((SHADES - 1) / 255))
    return np.round(levels * (255 / (SHADES - 1))).astype(np.uint8)


def both_chains(left: Engine, right: Engine, labels: list[int], seed: int, names: tuple[str, str]) -> bytes:
    """Two models' chains from the same noise, by `CHAIN`, each clipped to its range, as one GIF."""
    frames = []
    for engine in (left, right):
        steps = min(CHAIN_STEPS, len(engine.diffusion.schedule))
        frames.append(follow(engine, engine.request(labels, seed, sampler=CHAIN, steps=steps))[0])
    return side_by_side(frames[0], frames[1], names)


def tiled(images: Images) -> Images:
    """Images in two lines, as one."""
    columns = -(-len(images) // 2)
    empty = np.zeros((2 * columns - len(images), *images.shape[1:]), np.uint8)
    lines = np.concatenate([images, empty]).reshape(2, columns, *images.shape[1:])
    return np.concatenate([np.concatenate(list(line), axis=1) for line in lines], axis=0)


def curves(panels: dict[str, dict[str, NDArray[np.float32]]]) -> bytes:
    """Figures over the steps on logarithmic axes, a panel each, as a PNG: medians over some steps, and all as a haze.

    Args:
        panels: name of a panel to its lines, by name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for number, (name, values) in enumerate(lines.items()):
            steps, colour = np.arange(1, len(values) + 1), f"C{number}"
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.6)
            axes.plot(steps, smoothed(values), color=colour, label=name)
        axes.set_yscale("log")
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def smoothed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median over each step and those around it, as many as `SMOOTHED_OVER` in all."""
    half = SMOOTHED_OVER // 2
    windows: Iterable[NDArray[np.float32]] = (values[max(0, k - half) : k + half + 1] for k in range(len(values)))
    return np.array([np.median(window) for window in windows], np.float32)
