"""Lesson three: normalize each image independently."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddpmctl.data.dataset import to_model_range
from ddpmctl.evaluation.evaluator import as_tensor
from ddpmctl.lessons.experiment import (
    PRESET,
    SETTLED,
    Analysis,
    Arm,
    Experiment,
    ImageSet,
    Pair,
    TrainedArm,
    Trial,
)
from ddpmctl.lessons.figures import curves
from ddpmctl.lessons.metrics import COLUMNS, ImageMetrics
from ddpmctl.lessons.one_shot import pure_noise
from ddpmctl.lessons.result import Paper, Table
from ddpmctl.lessons.theory import dependence_on_batch
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images

SHARE = 0.5
"""Share of the budget for each network of the other conditions."""

EXPLODING = 10.0
"""Ratio to the maximum gradient norm of GroupNorm from which gradients count as exploding."""

DEGRADED = 1.25
"""Ratio to the validation MSE of GroupNorm from which BatchNorm counts as degraded."""

WORSE = 0.02
"""Difference in label accuracy from which images count as worse."""

OTHERS, BATCHES = 15, 8
"""Number of other images per batch, and of batches, for which predictions for one image are compared."""

ONE_TIMESTEP = "one timestep"


@contextmanager
def batch_statistics(engine: Engine) -> Iterator[None]:
    """Normalize with the statistics of the batch, as in training; the running statistics are not updated."""
    norms = [module for module in engine.network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()


def generate_by_batch(engine: Engine, labels: list[int], seed: int) -> Images:
    """Sample with batch statistics."""
    with batch_statistics(engine):
        return engine.generate(labels, seed)


RUNNING = ImageSet("running", "mistake: BatchNorm, running statistics", from_trap=True)
OF_BATCH = ImageSet("of_batch", "mistake: BatchNorm, batch statistics", from_trap=True, sample=generate_by_batch)
FIXED = ImageSet("group", "fix: GroupNorm", from_trap=False)


def _pair(name: str, stem: str, **settings: Any) -> Pair:
    """Both norms under a different condition."""
    batch = Arm(f"{stem}-batch", name, {**settings, "norm": "batch"})
    return Pair(batch, Arm(f"{stem}-group", name, settings), SHARE, name)


PAIRS = (
    Pair(Arm("batchnorm", "the mistake", {"norm": "batch"}), name=f"batches of {PRESET.config.training.batch_size}"),
    _pair("batches of 8", "batch-8", batch_size=8),
    _pair("batches of 128", "batch-128", batch_size=128),
    _pair(ONE_TIMESTEP, "one-timestep", one_timestep=True),
)


def _largest(arm: TrainedArm) -> float:
    return float(arm.settled_norms.max())


def has_exploding_gradients(trial: Trial) -> bool:
    """Whether a value was not finite, or the maximum gradient norm is `EXPLODING` times that of GroupNorm."""
    return bool(trial.trap.network.problem) or not _largest(trial.trap) / _largest(trial.fix) < EXPLODING


def _is_worse(metrics: ImageMetrics, other: ImageMetrics) -> bool:
    if metrics.accuracy is not None and other.accuracy is not None:
        return metrics.accuracy < other.accuracy - WORSE
    return metrics.to_mean > other.to_mean


def analyse(trial: Trial) -> Analysis:
    """Compare the norms under every condition, and how much a prediction depends on its batch."""
    ratios = {name: _largest(batch) / _largest(group) for name, (batch, group) in trial.pairs.items()}
    errors = {name: tuple(arm.network.validation_mse for arm in pair) for name, pair in trial.pairs.items()}
    finite = {name: (batch, group) for name, (batch, group) in errors.items() if batch and group}
    others = list(trial.pairs.items())[1:]
    panels = {name: {"BatchNorm": batch.norms, "GroupNorm": group.norms} for name, (batch, group) in others}
    values = {
        "largest": (_largest(trial.trap), _largest(trial.fix)),
        "ratios": ratios,
        "worst": max(ratios, key=lambda name: ratios[name]),
        "degraded": {name: pair for name, pair in finite.items() if pair[0] > DEGRADED * pair[1]},
        "one_timestep": finite.get(ONE_TIMESTEP),
        "is_worse": _is_worse(trial.metrics["of_batch"], trial.metrics["running"]),
        "share": SHARE,
        "settled": SETTLED,
        "others": OTHERS,
        "batches": BATCHES,
    }
    tables = {"conditions_note": _conditions(trial), "dependence_note": _dependence(trial)}
    return Analysis(tables=tables, figures={"conditions": curves(panels)}, values=values)


def _conditions(trial: Trial) -> Table:
    """One row per network."""
    _, labels = trial.evaluator.real_images(trial.count)
    rows = []
    for name, pair in trial.pairs.items():
        for norm, arm in zip(("BatchNorm", "GroupNorm"), pair, strict=True):
            norms, network = arm.settled_norms, arm.network
            metrics = trial.evaluator.measure(arm.engine.generate(labels, trial.seed), labels)
            mse = "not finite" if network.validation_mse is None else f"{network.validation_mse:.4f}"
            gradients = (f"{np.median(norms):.3g}", f"{norms.max():.3g}")
            rows.append((f"{norm}, {name}", f"{network.steps:,}", mse, *gradients, *metrics.cells()[:2]))
    return Table(
        title="When does BatchNorm degrade the model? The same networks, trained under other conditions",
        columns=("", "steps", "validation MSE", "median gradient norm", "max gradient norm", *COLUMNS[:2]),
        rows=tuple(rows),
    )


def _dependence(trial: Trial) -> Table:
    """How much the prediction for one image depends on the other images of its batch."""
    with batch_statistics(trial.trap.engine):
        of_batch = batch_dependence(trial, trial.trap.engine)
    measured = {
        "BatchNorm, batch statistics": of_batch,
        "BatchNorm, running statistics": batch_dependence(trial, trial.trap.engine),
        "GroupNorm": batch_dependence(trial, trial.fix.engine),
    }
    return Table(
        title="The prediction for one image in batches with different other images",
        columns=("", "change (RMS)", "magnitude (RMS)"),
        rows=tuple((name, f"{change:.2g}", f"{size:.2g}") for name, (change, size) in measured.items()),
    )


def batch_dependence(trial: Trial, engine: Engine) -> tuple[float, float]:
    """RMS change of the prediction for one image with the other images of its batch, and its RMS magnitude."""
    schedule, limits = engine.diffusion.schedule, engine.diffusion.pixel_range
    images, labels = trial.evaluator.real_images(1 + OTHERS * BATCHES)
    x0 = to_model_range(as_tensor(images), limits)
    noise = pure_noise(engine, len(x0), trial.seed)
    generator = torch.Generator().manual_seed(trial.seed)
    predictions = []
    for batch in range(BATCHES):
        ids = [0, *range(1 + batch * OTHERS, 1 + (batch + 1) * OTHERS)]
        t = torch.randint(len(schedule), (len(ids),), generator=generator)
        t[0] = len(schedule) // 2
        x = engine.diffusion.add_noise(x0[ids].to(engine.device), t.to(engine.device), noise[ids].to(engine.device))
        predictions.append(_predict_x0(engine, x, t, [labels[k] for k in ids])[0])
    together = torch.stack(predictions)
    return dependence_on_batch(together), float(together.square().mean().sqrt())


@torch.inference_mode()
def _predict_x0(engine: Engine, x: Tensor, t: Tensor, labels: list[int]) -> Tensor:
    """The predicted x_0 of images at different timesteps, in float32."""
    model_output = engine.network(x, t.to(engine.device), torch.tensor(labels, device=engine.device))
    return replace(engine.diffusion, clip_x0=False).predict_x0(x, t.to(engine.device), model_output).cpu()


EXPERIMENT = Experiment(
    lesson="batchnorm",
    pairs=PAIRS,
    image_sets=(RUNNING, OF_BATCH, FIXED),
    sheet={"mistake": RUNNING, "mistake, batch": OF_BATCH, "fix": FIXED},
    names=("mistake: BatchNorm", FIXED.name),
    papers=(
        Paper(
            authors="Ioffe, Szegedy 2015",
            title="Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
            arxiv="1502.03167",
        ),
        Paper(authors="Wu, He 2018", title="Group Normalization", arxiv="1803.08494"),
    ),
    reproduced=has_exploding_gradients,
    analyse=analyse,
)
