"""The figures of the lessons: grids, trajectories side by side, and curves."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ddpmctl.imaging.animation import Timing, encode_animation, pick
from ddpmctl.imaging.files import png
from ddpmctl.imaging.grid import labelled_grid
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images, to_pixels
from ddpmctl.sampling.request import SamplingRequest

Curve = NDArray[np.float32]

FRAMES = 24
GREY_LEVELS = 16
"""Grey levels of an animation: noise with all 256 would make the page three times as large."""

CHAIN, CHAIN_STEPS = "ddim", 60
TIMING = Timing(fps=8, hold=3.0)
SMOOTHED_OVER = 25
"""Window of `smoothed` in steps."""


def sheet(rows: Mapping[str, Images] | Sequence[tuple[str, Images]], titles: Sequence[str]) -> bytes:
    """Named rows of images, a column per class, as a PNG."""
    pairs = list(rows.items()) if isinstance(rows, Mapping) else rows
    above = [titles, *[[] for _ in pairs[1:]]]
    return png(labelled_grid([list(row) for _, row in pairs], above, 2, [name for name, _ in pairs]))


def chain_frames(engine: Engine, request: SamplingRequest) -> list[Images]:
    """Some sampling steps, each with all images in two rows; the last frame is the result."""
    limits, kept = engine.diffusion.pixel_range, set(pick(request.sampling.steps, FRAMES))
    frames = []
    for step in engine.steps(request):
        if step.index in kept:
            frames.append(tiled(to_pixels(step.x, limits)))
    return [*frames[:-1], tiled(to_pixels(step.x0, limits))]


def both_chains(left: Engine, right: Engine, labels: list[int], seed: int, names: tuple[str, str]) -> bytes:
    """The trajectories of two models from the same noise with `CHAIN`, each clipped to its pixel range, as a GIF."""
    frames = []
    for engine in (left, right):
        steps = min(CHAIN_STEPS, len(engine.diffusion.schedule))
        frames.append(chain_frames(engine, engine.request(labels, seed, sampler=CHAIN, steps=steps)))
    return side_by_side(frames[0], frames[1], names)


def side_by_side(left: list[Images], right: list[Images], names: tuple[str, str]) -> bytes:
    """Two trajectories as one GIF; the shorter one holds its last frame."""
    count = max(len(left), len(right))
    pairs = ((frames[min(k, len(frames) - 1)] for frames in (left, right)) for k in range(count))
    frames = [_quantized(labelled_grid([list(pair)], [names], 2)) for pair in pairs]
    return encode_animation(frames, ".gif", TIMING)


def _quantized(image: Images) -> Images:
    """An image quantized to `GREY_LEVELS`, including black and white."""
    levels = np.round(image.astype(np.float32) * ((GREY_LEVELS - 1) / 255))
    return np.round(levels * (255 / (GREY_LEVELS - 1))).astype(np.uint8)


def tiled(images: Images) -> Images:
    """Images in two rows, as one image."""
    columns = -(-len(images) // 2)
    empty = np.zeros((2 * columns - len(images), *images.shape[1:]), np.uint8)
    lines = np.concatenate([images, empty]).reshape(2, columns, *images.shape[1:])
    return np.concatenate([np.concatenate(list(line), axis=1) for line in lines], axis=0)


def curves(panels: Mapping[str, Mapping[str, Curve]]) -> bytes:
    """Values over the steps on logarithmic axes as a PNG, smoothed and raw: panel to line to values."""
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


def smoothed(values: Curve) -> Curve:
    """The median over each step and those around it."""
    half = SMOOTHED_OVER // 2
    return np.array([np.median(values[max(0, k - half) : k + half + 1]) for k in range(len(values))], np.float32)
