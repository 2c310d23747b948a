"""Lesson two: pixels in the range of the noise."""

from copy import copy
from dataclasses import replace
from functools import partial

import torch

from ddpmctl.data.dataset import to_model_range
from ddpmctl.lessons.experiment import BATCH_SIZE, Analysis, Arm, Experiment, ImageSet, Pair, Trial
from ddpmctl.lessons.metrics import ImageMetrics
from ddpmctl.lessons.result import HO_2020, Paper, Table
from ddpmctl.lessons.theory import first_below, signal_to_noise
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images, to_pixels

Range = tuple[float, float]

CENTRED, UNCENTRED = (-1.0, 1.0), (0.0, 1.0)
LEVELS = (0.25, 0.5, 0.75)
TABLE_IMAGES = 5000
COLLAPSED = 0.5
"""Label accuracy below which images count as no digits; without a classifier, share of the sharpness of real images."""


def clipped_samples(engine: Engine, labels: list[int], seed: int, clip: Range | None, shown: Range | None) -> Images:
    """Sample with the recommended sampler, with the predicted x_0 clipped to a range, or not clipped.

    Args:
        shown: range displayed as black to white, the pixel range of the model by default.
    """
    own, clipped, parts = engine.diffusion, copy(engine), []
    clipped.diffusion = replace(own, clip_x0=clip is not None, pixel_range=clip or own.pixel_range)
    for start in range(0, len(labels), BATCH_SIZE):
        *_, last = clipped.steps(engine.request(labels[start : start + BATCH_SIZE], seed + start))
        parts.append(last.x0.cpu())
    return to_pixels(torch.cat(parts), shown or own.pixel_range)


def _set(key: str, name: str, clip: Range | None, shown: Range | None = None, *, from_trap: bool) -> ImageSet:
    return ImageSet(key, name, from_trap, partial(clipped_samples, clip=clip, shown=shown))


FIXED = _set("fix", "fix: -1..1, clipped", CENTRED, from_trap=False)
UNCLIPPED_FIX = _set("unclipped_fix", "-1..1, not clipped", None, from_trap=False)
TRAP = _set("trap", "mistake: 0..1, clipped", UNCENTRED, from_trap=True)
UNCLIPPED_TRAP = _set("unclipped_trap", "0..1, not clipped", None, from_trap=True)
MISCLIPPED = _set("misclipped", "0..1, clipped to -1..1", CENTRED, from_trap=True)
MISTAKEN = _set("mistaken", "0..1 treated as -1..1", CENTRED, CENTRED, from_trap=True)

IMAGE_SETS = (FIXED, UNCLIPPED_FIX, TRAP, UNCLIPPED_TRAP, MISCLIPPED, MISTAKEN)


def has_no_digits(metrics: ImageMetrics, real: ImageMetrics) -> bool:
    """Whether a set of images no longer shows digits."""
    if metrics.accuracy is not None:
        return metrics.accuracy < COLLAPSED
    return not COLLAPSED < metrics.sharpness / real.sharpness < 1 / COLLAPSED


def sets_without_digits(trial: Trial) -> set[str]:
    """The sets of images that no longer show digits."""
    real = trial.metrics["real"]
    return {key for key, metrics in trial.metrics.items() if key != "real" and has_no_digits(metrics, real)}


def is_collapsed(trial: Trial) -> bool:
    """Whether samples are no digits with pixels in [0, 1], consistently treated as such, but are with the fix."""
    lost = sets_without_digits(trial)
    return "trap" in lost and "fix" not in lost


def analyse(trial: Trial) -> Analysis:
    """Measure the signal-to-noise ratio of both ranges."""
    lost, schedule = sets_without_digits(trial), trial.fix.engine.diffusion.schedule
    values = {
        "lost": lost,
        "lost_elsewhere": [each.name for each in IMAGE_SETS if each.key in lost - {"trap", "fix"}],
        "mean": float(to_model_range(trial.data.images[:TABLE_IMAGES].cpu(), CENTRED).mean()),
        "amplified": float(schedule.sigma[-1] / schedule.alpha[-1]),
    }
    return Analysis(tables={"ratios_note": _ratios(trial)}, values=values)


def _ratios(trial: Trial) -> Table:
    """The signal-to-noise ratio of the real training images in both ranges."""
    schedule = trial.fix.engine.diffusion.schedule
    few = trial.data.images[:TABLE_IMAGES].cpu()
    rows = []
    for name, limits in (("-1..1", CENTRED), ("0..1", UNCENTRED)):
        images = to_model_range(few, limits)
        ratios = [signal_to_noise(images, schedule.signal(round(level * len(schedule)))) for level in LEVELS]
        moments = (float(images.mean()), float(images.std()))
        below = first_below(images, schedule.alpha_bar)
        rows.append((name, *(f"{value:.2f}" for value in moments), *(f"{ratio:+.1f}" for ratio in ratios), str(below)))
    timesteps = (f"t = {round(level * len(schedule))}" for level in LEVELS)
    return Table(
        title="Signal-to-noise ratio of the training images, in decibels",
        columns=("pixels", "mean", "std", *timesteps, "first t below 0 dB"),
        rows=tuple(rows),
    )


EXPERIMENT = Experiment(
    lesson="range",
    pairs=(Pair(Arm("range", "the mistake", {"pixel_range": "0..1"})),),
    image_sets=IMAGE_SETS,
    sheet={each.name: each for each in (TRAP, UNCLIPPED_TRAP, MISCLIPPED, MISTAKEN, UNCLIPPED_FIX, FIXED)},
    names=("mistake: 0..1", "fix: -1..1"),
    papers=(
        HO_2020,
        Paper(
            authors="Chen 2023",
            title="On the Importance of Noise Scheduling for Diffusion Models",
            arxiv="2301.10972",
        ),
        Paper(
            authors="Lin, Liu, Li, Yang 2024",
            title="Common Diffusion Noise Schedules and Sample Steps are Flawed",
            arxiv="2305.08891",
        ),
    ),
    reproduced=is_collapsed,
    analyse=analyse,
)
