"""Lesson two: pixels in the range of the noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from ddpmctl.data.dataset import to_model_range
from ddpmctl.lessons.figures import Figures, Images, comparison
from ddpmctl.lessons.findings import HO_2020, Finding, Paper, Picture, Table
from ddpmctl.lessons.pictures import CHAIN, CHAIN_STEPS, MOST_CLASSES, TOGETHER, both_chains, curves, sheet
from ddpmctl.lessons.theory import first_below, signal_to_noise
from ddpmctl.lessons.workshop import Taught, Workshop
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import to_pixels

CENTRED, UNCENTRED = (-1.0, 1.0), (0.0, 1.0)
FIX, TRAP = "fix: -1..1, clipped", "trap: 0..1, clipped"
UNCLIPPED_FIX, UNCLIPPED_TRAP = "-1..1, not clipped", "0..1, not clipped"
MISTAKEN = "0..1 as if it were -1..1"
LEVELS = (0.25, 0.5, 0.75)
COLLAPSED = 0.5
"""Share of labels read right below which digits are called lost; without a reader, the share of the sharpness."""

PAPERS = (
    HO_2020,
    Paper(authors="Chen 2023", title="On the Importance of Noise Scheduling for Diffusion Models", arxiv="2301.10972"),
    Paper(
        authors="Lin, Liu, Li, Yang 2024",
        title="Common Diffusion Noise Schedules and Sample Steps are Flawed",
        arxiv="2305.08891",
    ),
)


def teach(shop: Workshop) -> Finding:
    """Train on pixels of [0, 1] and of [-1, 1], and sample with and without keeping to the range."""
    fix = shop.fix()
    shifted = replace(shop.base, diffusion=replace(shop.base.diffusion, pixel_range=UNCENTRED))
    trap = shop.teach("range", "the trap", shifted, fix.network.steps)
    ways = {
        FIX: (fix, CENTRED),
        UNCLIPPED_FIX: (fix, None),
        TRAP: (trap, UNCENTRED),
        UNCLIPPED_TRAP: (trap, None),
        "0..1, clipped to -1..1": (trap, CENTRED),
        MISTAKEN: (trap, CENTRED),
    }
    _, labels = shop.judge.real_images(shop.count)
    few = list(range(min(MOST_CLASSES, len(shop.data.classes))))
    measured, rows = {}, []
    for name, (taught, clip) in ways.items():
        shown = CENTRED if name == MISTAKEN else taught.engine.diffusion.pixel_range
        measured[name] = shop.judge.figures(_sampled(taught.engine, labels, shop.about.seed, clip, shown), labels)
        rows.append(_sampled(taught.engine, few, shop.about.seed, clip, shown))
    measured["real images"] = shop.judge.real(shop.count)
    lost = [name for name in ways if _is_lost(measured[name], measured["real images"])]
    # The plain meaning of the trap: such pixels, treated as such throughout.
    reproduced = TRAP in lost and FIX not in lost
    return Finding(
        lesson="range",
        title="Pixels centred like the noise",
        trap="pixels left in [0, 1]",
        fix="pixels in [-1, 1]",
        claim="coloured or grey static, the network collapsed",
        reproduced=reproduced,
        verdict=_verdict(reproduced, lost, measured),
        formula="SNR(t) = alpha_t^2 Var[x_0] / sigma_t^2,   and   Var[(x_0 + 1) / 2] = Var[x_0] / 4:   -6.02 dB",
        why=_why(shop, measured, lost),
        tables=(
            comparison(
                shop.count,
                measured,
                "Clipping keeps the image that the network expects within its range, or another, at each step of the "
                "chain; the last way is clipped to and shown as the other range.",
            ),
            _ratios(shop),
        ),
        pictures=_pictures(shop, trap, fix, rows, list(ways)),
        networks=(trap.network, fix.network),
        papers=PAPERS,
        setting=shop.setting(),
    )


@contextmanager
def _clipping(engine: Engine, clip: tuple[float, float] | None) -> Iterator[None]:
    """Have a chain keep to this range, or to none; the network is told nothing of it."""
    own = engine.diffusion
    engine.diffusion = replace(own, clip_x0=clip is not None, pixel_range=clip or own.pixel_range)
    try:
        yield
    finally:
        engine.diffusion = own


def _sampled(
    engine: Engine, labels: list[int], seed: int, clip: tuple[float, float] | None, shown: tuple[float, float]
) -> Images:
    """Images by the recommended sampler; ``shown`` is what is black and white."""
    parts = []
    with _clipping(engine, clip):
        for start in range(0, len(labels), TOGETHER):
            *_, last = engine.steps(engine.request(labels[start : start + TOGETHER], seed + start))
            parts.append(last.x0.cpu())
    return to_pixels(torch.cat(parts), shown)


def _is_lost(figures: Figures, real: Figures) -> bool:
    if figures.accuracy is not None:
        return figures.accuracy < COLLAPSED
    return not COLLAPSED < figures.sharpness / real.sharpness < 1 / COLLAPSED


def _ratios(shop: Workshop) -> Table:
    """What the range costs, on the real training images."""
    schedule = shop.fix().engine.diffusion.schedule
    few = shop.data.images[:5000].cpu()
    rows = []
    for name, limits in (("-1..1", CENTRED), ("0..1", UNCENTRED)):
        images = to_model_range(few, limits)
        ratios = [signal_to_noise(images, schedule.signal(round(level * len(schedule)))) for level in LEVELS]
        drowned = first_below(images, schedule.alpha_bar)
        moments = (float(images.mean()), float(images.std()))
        rows.append(
            (name, *(f"{value:.2f}" for value in moments), *(f"{ratio:+.1f}" for ratio in ratios), str(drowned))
        )
    return Table(
        title="Signal to noise on the training images, in decibels",
        columns=(
            "pixels", "mean", "deviation", *(f"t = {round(level * len(schedule))}" for level in LEVELS),
            "below 0 dB from t =",
        ),
        rows=tuple(rows),
        note="The deviation is that of all pixels; the ratios take the variance over images, a mean over pixels.",
    )  # fmt: skip


def _pictures(shop: Workshop, trap: Taught, fix: Taught, rows: list[Images], names: list[str]) -> tuple[Picture, ...]:
    titles, seed = shop.data.classes[:MOST_CLASSES], shop.about.seed
    labels = list(range(len(titles)))
    real, _ = shop.judge.real_images(len(labels))
    return (
        shop.put(
            "range.png",
            sheet([*rows[2:], rows[1], rows[0], real], [*names[2:], names[1], names[0], "real"], titles),
            "Every class, from the same noise: the network of the trap above, with each way of clipping; then that of "
            "the fix; real images last.",
        ),
        shop.put(
            "range.gif",
            both_chains(trap.engine, fix.engine, labels, seed, ("trap: 0..1", "fix: -1..1")),
            f"Both chains from the same noise, {CHAIN_STEPS} steps of {CHAIN}, each clipped to its range.",
        ),
        shop.put(
            "range-curves.png",
            curves({
                "loss": {"trap: 0..1": trap.losses, "fix: -1..1": fix.losses},
                "norm of the gradient": {"trap: 0..1": trap.norms, "fix: -1..1": fix.norms},
            }),
            "Training. Both losses are errors of the noise, but the noise of a weaker signal is easier to tell: a "
            "lower loss is no better picture.",
        ),
    )  # fmt: skip


def _verdict(reproduced: bool, lost: list[str], measured: dict[str, Figures]) -> str:
    trap, fix = measured[TRAP], measured[FIX]
    if trap.accuracy is None or fix.accuracy is None or trap.frechet is None or fix.frechet is None:
        figures = f"a sharpness of {trap.sharpness:.1f} against {fix.sharpness:.1f}"
    else:
        figures = (
            f"{trap.accuracy:.1%} of the labels right against {fix.accuracy:.1%} with the fix, and a Frechet distance "
            f"of {trap.frechet:.3g} against {fix.frechet:.3g}"
        )
    if reproduced:
        return f"The network of the trap lost its digits: {figures}."
    others = [name for name in lost if name not in (TRAP, FIX)]
    where = f"Digits are lost elsewhere: {'; '.join(others)}." if others else "No way that was tried lost them."
    return f"The network did not collapse: {figures}. {where}"


def _why(shop: Workshop, measured: dict[str, Figures], lost: list[str]) -> tuple[str, ...]:
    mean = float(to_model_range(shop.data.images[:5000].cpu(), CENTRED).mean())
    schedule = shop.fix().engine.diffusion.schedule
    amplified = float(schedule.sigma[-1] / schedule.alpha[-1])
    bare = [name in lost for name in (UNCLIPPED_FIX, UNCLIPPED_TRAP)]
    who = {(True, True): "both ranges are lost", (True, False): "the centred range is lost and the other is not"}
    who |= {(False, True): "only [0, 1] is lost", (False, False): "neither range is lost"}
    mistaken = "lost to whoever looks at them" if MISTAKEN in lost else "still there to be read"
    return (
        "The noise has mean 0 and deviation 1, and the schedule was made for images that fill [-1, 1]. Pixels of [0, "
        "1] are the same image at half the contrast: a quarter of the variance, 6.02 dB less signal at every "
        "timestep. The image drowns earlier. Whether that is a loss depends on the schedule: to scale images down on "
        "purpose is a known way to shift it (Chen 2023).",
        "Half the contrast is not the end of learning: the chain still leads from noise to these pixels. What kind of "
        f"clipping a sampler does matters more: without any, {who[bare[0], bare[1]]}. The image that a noise means is "
        "x_0 = (x_t - sigma_t epsilon) / alpha_t, and at the noisy end of this schedule a mistake in the noise is "
        f"{amplified:,.0f} times as large in the image; clipping is what holds the chain together. And pictures of [0, "
        f"1] shown as if they were of [-1, 1], grey where they should be black, are {mistaken}.",
        f"Centred means little here: the mean of these images is {mean:.2f} in [-1, 1], far from 0. What counts is the "
        "contrast against the noise, and that everyone who handles the pixels goes by the same range.",
    )
