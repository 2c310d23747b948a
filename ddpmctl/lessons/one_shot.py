"""Lesson one: the best single prediction is an average; sampling requires many small steps."""

import numpy as np
import torch
from torch import Tensor

from ddpmctl.core.noise import normal
from ddpmctl.data.dataset import to_model_range
from ddpmctl.evaluation.evaluator import as_tensor
from ddpmctl.lessons.experiment import BATCH_SIZE, Analysis, Arm, Experiment, ImageSet, Pair, Trial
from ddpmctl.lessons.figures import chain_frames, sheet, side_by_side, tiled
from ddpmctl.lessons.metrics import sharpness
from ddpmctl.lessons.result import HO_2020, Paper, Table
from ddpmctl.lessons.theory import conditional_mean
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images, to_pixels

LEVELS = (0.999, 0.75, 0.5, 0.25)
"""Timesteps at which single predictions are measured, as shares of T."""

LEVELS_IMAGES = 200
LEVELS_SEED = 1_000_000
"""Added to the seed, so that the noise is not that of the samples."""

BLURRED = 0.75
"""Share of the sharpness of real images below which images are blurred."""


def pure_noise(engine: Engine, count: int, seed: int) -> Tensor:
    """The initial noise of these seeds: float32[count,C,S,S]."""
    model = engine.config.model
    return normal(range(seed, seed + count), 0, (model.channels, model.sample_size, model.sample_size))


def predict_once(engine: Engine, labels: list[int], seed: int) -> Images:
    """The predicted x_0 of pure noise: image k from seed + k, as in sampling."""
    starts = range(0, len(labels), BATCH_SIZE)
    noise = torch.split(pure_noise(engine, len(labels), seed), BATCH_SIZE)
    predictions = [
        engine.predict_x0(x, len(engine.diffusion.schedule) - 1, labels[start : start + BATCH_SIZE]).cpu()
        for start, x in zip(starts, noise, strict=True)
    ]
    return to_pixels(torch.cat(predictions), engine.diffusion.pixel_range)


AT_ONCE = ImageSet("at_once", "mistake: one step", from_trap=True, sample=predict_once)
IN_STEPS = ImageSet("in_steps", "same network, many steps", from_trap=True)
FIXED = ImageSet("fixed", "fix: many steps", from_trap=False)
UNCONDITIONAL = ImageSet(
    "unconditional",
    "mistake: one step, no label",
    from_trap=True,
    sample=lambda engine, labels, seed: predict_once(engine, [engine.config.model.num_classes] * len(labels), seed),
)


def is_blurred(trial: Trial) -> bool:
    """Whether a single prediction is blurred."""
    return trial.metrics["at_once"].sharpness < BLURRED * trial.metrics["real"].sharpness


def analyse(trial: Trial) -> Analysis:
    """Measure single predictions at several noise levels, and their distance to the class mean."""
    table, figure = _levels(trial)
    labels = trial.evaluator.real_images(min(trial.count, LEVELS_IMAGES))[1]
    once = predict_once(trial.trap.engine, labels, trial.seed).astype(np.float32)
    others = trial.evaluator.class_means[labels], trial.evaluator.real_images(len(labels))[0].astype(np.float32)
    to_mean, to_real = (float(np.sqrt(np.square(once - other).mean())) for other in others)
    values = {
        "sampling": trial.fix.engine.request([0]).sampling,
        "to_mean": to_mean,
        "to_real": to_real,
        "timesteps": len(trial.fix.engine.diffusion.schedule),
    }
    return Analysis(tables={"levels_note": table}, figures={"levels": figure}, values=values)


def _levels(trial: Trial) -> tuple[Table, bytes]:
    """The prediction at several noise levels, and the exact conditional mean."""
    engine, count = trial.trap.engine, min(trial.count, LEVELS_IMAGES)
    schedule, limits = engine.diffusion.schedule, engine.diffusion.pixel_range
    images, labels = trial.evaluator.real_images(count)
    x0 = to_model_range(as_tensor(images), limits)
    epsilon = pure_noise(engine, count, trial.seed + LEVELS_SEED)
    rows: list[tuple[str, ...]] = []
    pictures: list[tuple[str, Images]] = []
    few = slice(0, len(trial.titles))
    for level in LEVELS:
        t = min(len(schedule) - 1, round(level * len(schedule)))
        alpha, sigma = float(schedule.alpha[t]), float(schedule.sigma[t])
        x = alpha * x0 + sigma * epsilon
        predicted = engine.predict_x0(x, t, labels).cpu()
        best = _conditional_means(trial, x, labels, alpha, sigma)
        shown = [to_pixels(each, limits) for each in (predicted, best)]
        errors = [float((each - x0).square().mean()) for each in (predicted, best)]
        relative = [f"{sharpness(each) / sharpness(images):.0%}" for each in shown]
        rows.append((f"t = {t}", f"{alpha:.3f}", *(f"{error:.4f}" for error in errors), *relative))
        pictures.append((f"noisy, t = {t}", to_pixels(x[few], (-3.0, 3.0))))
        pictures += [("prediction", shown[0][few]), ("exact mean", shown[1][few])]
    table = Table(
        title=f"Single predictions for {count} noisy test images at several noise levels",
        columns=("", "alpha", "MSE", "MSE of exact mean", "sharpness", "sharpness of exact mean"),
        rows=tuple(rows),
    )
    return table, sheet([*pictures, ("real", images[few])], trial.titles)


def _conditional_means(trial: Trial, x: Tensor, labels: list[int], alpha: float, sigma: float) -> Tensor:
    """The conditional mean of each image over the training images of its class."""
    means, classes, limits = torch.empty_like(x), torch.tensor(labels), trial.trap.engine.diffusion.pixel_range
    for label in set(labels):
        clean = to_model_range(trial.data.images[trial.data.labels == label].cpu(), limits)
        means[classes == label] = conditional_mean(x[classes == label], clean, alpha, sigma)
    return means


def chains(trial: Trial) -> bytes:
    """One step of the mistake next to all sampling steps of the fix."""
    labels, engine = list(range(len(trial.titles))), trial.fix.engine
    steps = len(engine.diffusion.schedule)
    frames = chain_frames(engine, engine.request(labels, trial.seed, sampler="ddpm", steps=steps))
    noise = to_pixels(pure_noise(trial.trap.engine, len(labels), trial.seed), engine.diffusion.pixel_range)
    once = [tiled(noise), tiled(predict_once(trial.trap.engine, labels, trial.seed))]
    return side_by_side(once, frames, ("mistake: one step", f"fix: {steps} small steps"))


EXPERIMENT = Experiment(
    lesson="one-shot",
    pairs=(Pair(Arm("one-shot", "the mistake", {"target": "x0"})),),
    image_sets=(AT_ONCE, IN_STEPS, FIXED),
    sheet={"mistake, no label": UNCONDITIONAL, "mistake": AT_ONCE, "same, many steps": IN_STEPS, "fix": FIXED},
    names=("mistake: x0", "fix: epsilon"),
    papers=(
        HO_2020,
        Paper(
            authors="Sohl-Dickstein, Weiss, Maheswaranathan, Ganguli 2015",
            title="Deep Unsupervised Learning using Nonequilibrium Thermodynamics",
            arxiv="1503.03585",
        ),
    ),
    reproduced=is_blurred,
    analyse=analyse,
    chains=chains,
    loss_title="loss, in units of the prediction type",
)
