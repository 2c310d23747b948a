"""Lesson three: normalise each image by itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ddpmctl.config import Config, TrainingConfig
from ddpmctl.data.dataset import to_model_range
from ddpmctl.evaluation.evaluator import as_tensor
from ddpmctl.lessons.figures import COLUMNS, Figures, comparison
from ddpmctl.lessons.findings import Finding, Paper, Picture, Table
from ddpmctl.lessons.one_shot import pure_noise
from ddpmctl.lessons.pictures import CHAIN, CHAIN_STEPS, MOST_CLASSES, both_chains, curves, sheet
from ddpmctl.lessons.theory import dependence_on_mates
from ddpmctl.lessons.workshop import Taught, Workshop
from ddpmctl.sampling.engine import Engine

RUNNING, OF_BATCH, FIX = "trap: BatchNorm, running", "trap: BatchNorm, of the batch", "fix: GroupNorm"
ONE_TIMESTEP = "one timestep"

SHARE = 0.5
"""Of the budget, for each network that looks for when the trap bites."""

OUT_OF_CONTROL = 10.0
"""Times the largest gradient of the fix."""

BITES = 1.25
"""Times the validation MSE of GroupNorm, from which BatchNorm is said to suffer."""

SETTLED = 0.1
"""Share of the steps, at the start, whose gradients are not counted: everything is large there."""

MATES, COMPANIES = 15, 8

PAPERS = (
    Paper(
        authors="Ioffe, Szegedy 2015",
        title="Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
        arxiv="1502.03167",
    ),
    Paper(authors="Wu, He 2018", title="Group Normalization", arxiv="1803.08494"),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A way of training under which both norms are compared.

    Attributes:
        name: in words.
        stem: of the models' names.
        training: makes its settings of the base's.
    """

    name: str
    stem: str
    training: Callable[[TrainingConfig], TrainingConfig]


CONDITIONS = (
    Condition("batches of 8", "batch-8", lambda base: replace(base, batch_size=8)),
    Condition("batches of 128", "batch-128", lambda base: replace(base, batch_size=128)),
    Condition(ONE_TIMESTEP, "one-timestep", lambda base: replace(base, one_timestep=True, stratified=False)),
)


def teach(shop: Workshop) -> Finding:
    """Train with BatchNorm and GroupNorm, in batches of several kinds, and sample with both kinds of statistics."""
    fix = shop.fix()
    trap = shop.teach("batchnorm", "the trap", _batch(shop.base), fix.network.steps)
    pairs = {f"batches of {shop.base.training.batch_size}": (trap, fix)}
    for condition in CONDITIONS:
        group = replace(shop.base, training=condition.training(shop.base.training))
        steps = shop.steps(group, SHARE)
        taught = [
            shop.teach(f"{condition.stem}-{config.model.norm}", condition.name, config, steps)
            for config in (_batch(group), group)
        ]
        pairs[condition.name] = (taught[0], taught[1])
    _, labels = shop.judge.real_images(shop.count)
    seed = shop.about.seed
    measured = {RUNNING: shop.judge.figures(trap.engine.generate(labels, seed), labels)}
    with batch_statistics(trap.engine):
        measured[OF_BATCH] = shop.judge.figures(trap.engine.generate(labels, seed), labels)
    measured[FIX] = shop.judge.figures(fix.engine.generate(labels, seed), labels)
    measured["real images"] = shop.judge.real(shop.count)
    ratio = _largest(trap) / _largest(fix)
    reproduced = bool(trap.network.trouble) or not ratio < OUT_OF_CONTROL
    return Finding(
        lesson="batchnorm",
        title="Each image by itself",
        trap="BatchNorm, over batches that mix noise levels",
        fix="GroupNorm, image by image",
        claim="gradients out of control",
        reproduced=reproduced,
        verdict=_verdict(reproduced, trap, fix, measured, pairs),
        formula="BatchNorm: (h - mean over batch and place) / deviation over batch and place;   "
        "GroupNorm: the same over channels of a group and place, of one image",
        why=_why(measured, pairs),
        tables=(
            comparison(
                shop.count,
                measured,
                "Running statistics are averages from training; those of the batch are of the images that are made "
                "together.",
            ),
            _training_table(shop, pairs, labels),
            _mates_table(shop, trap, fix),
        ),
        pictures=_pictures(shop, trap, fix, pairs),
        networks=tuple(taught.network for pair in pairs.values() for taught in pair),
        papers=PAPERS,
        setting=shop.setting(),
    )


def _batch(config: Config) -> Config:
    return replace(config, model=replace(config.model, norm="batch"))


@contextmanager
def batch_statistics(engine: Engine) -> Iterator[None]:
    """Have BatchNorm go by the images that are there, as in training; the running statistics stay as they are."""
    norms = [module for module in engine.network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()


def _settled(taught: Taught) -> np.ndarray:
    norms = taught.norms[int(SETTLED * len(taught.norms)) :]
    return norms if len(norms) else np.array([np.nan], np.float32)


def _largest(taught: Taught) -> float:
    return float(_settled(taught).max())


def _training_table(shop: Workshop, pairs: dict[str, tuple[Taught, Taught]], labels: list[int]) -> Table:
    rows = []
    for name, pair in pairs.items():
        for norm, taught in zip(("BatchNorm", "GroupNorm"), pair, strict=True):
            norms, network = _settled(taught), taught.network
            figures = shop.judge.figures(taught.engine.generate(labels, shop.about.seed), labels)
            rows.append(
                (
                    f"{norm}, {name}", f"{network.steps:,}",
                    "not finite" if network.mse is None else f"{network.mse:.4f}",
                    f"{np.median(norms):.3g}", f"{norms.max():.3g}", *figures.cells()[:2],
                )
            )  # fmt: skip
    return Table(
        title="When does it bite? The same networks, trained otherwise",
        columns=("", "steps", "validation MSE", "median gradient", "largest", *COLUMNS[:2]),
        rows=tuple(rows),
        note=f"The first pair had the whole budget, the others {SHARE:.0%} of it; two networks of a pair had as many "
        f"steps. Gradients are norms before clipping, after the first {SETTLED:.0%} of the steps. Held-out MSE and "
        "images go by running statistics.",
    )


def _mates_table(shop: Workshop, trap: Taught, fix: Taught) -> Table:
    with batch_statistics(trap.engine):
        loose = mates(shop, trap.engine)
    return Table(
        title="The answer for one image, among different other images",
        columns=("", "changes by", "its size"),
        rows=tuple(
            (name, f"{change:.2g}", f"{size:.2g}")
            for name, (change, size) in {
                "BatchNorm, of the batch": loose,
                "BatchNorm, running": mates(shop, trap.engine),
                "GroupNorm": mates(shop, fix.engine),
            }.items()
        ),
        note=f"One real image at half the chain, among {MATES} others at timesteps of all kinds, {COMPANIES} times "
        "with others; root mean squares of the clean image that is expected.",
    )


def mates(shop: Workshop, engine: Engine) -> tuple[float, float]:
    """How much the answer for one image changes with those beside it, and how large it is."""
    schedule, limits = engine.diffusion.schedule, engine.diffusion.pixel_range
    images, labels = shop.judge.real_images(1 + MATES * COMPANIES)
    x0 = to_model_range(as_tensor(images), limits)
    noise = pure_noise(engine, len(x0), shop.about.seed)
    generator = torch.Generator().manual_seed(shop.about.seed)
    answers = []
    for company in range(COMPANIES):
        ids = [0, *range(1 + company * MATES, 1 + (company + 1) * MATES)]
        t = torch.randint(len(schedule), (len(ids),), generator=generator)
        t[0] = len(schedule) // 2
        x = engine.diffusion.add_noise(x0[ids].to(engine.device), t.to(engine.device), noise[ids].to(engine.device))
        answers.append(_answers(engine, x, t, [labels[k] for k in ids])[0])
    together = torch.stack(answers)
    return dependence_on_mates(together), float(together.square().mean().sqrt())


@torch.inference_mode()
def _answers(engine: Engine, x: Tensor, t: Tensor, labels: list[int]) -> Tensor:
    """What the network expects behind images of different timesteps, in float32."""
    wanted = torch.tensor(labels, device=engine.device)
    answer = engine.network(x, t.to(engine.device), wanted)
    return replace(engine.diffusion, clip_x0=False).predict_x0(x, t.to(engine.device), answer).cpu()


def _pictures(
    shop: Workshop, trap: Taught, fix: Taught, pairs: dict[str, tuple[Taught, Taught]]
) -> tuple[Picture, ...]:
    titles, seed = shop.data.classes[:MOST_CLASSES], shop.about.seed
    labels = list(range(len(titles)))
    real, _ = shop.judge.real_images(len(labels))
    rows, names = [trap.engine.generate(labels, seed)], ["trap"]
    with batch_statistics(trap.engine):
        rows.append(trap.engine.generate(labels, seed))
        names.append("trap, of the batch")
    rows += [fix.engine.generate(labels, seed), real]
    names += ["fix", "real"]
    return (
        shop.put(
            "batchnorm.png",
            sheet(rows, names, titles),
            "Every class, from the same noise: the trap by running statistics and by those of the batch, the fix, and "
            "real images.",
        ),
        shop.put(
            "batchnorm.gif",
            both_chains(trap.engine, fix.engine, labels, seed, ("trap: BatchNorm", FIX)),
            f"Both chains from the same noise, {CHAIN_STEPS} steps of {CHAIN}, by running statistics.",
        ),
        shop.put(
            "batchnorm-curves.png",
            curves({
                "loss": {"trap: BatchNorm": trap.losses, FIX: fix.losses},
                "norm of the gradient": {"trap: BatchNorm": trap.norms, FIX: fix.norms},
            }),
            "Training, in batches of mixed timesteps. The losses are those of the batches as they were learnt from.",
        ),
        shop.put(
            "batchnorm-conditions.png",
            curves({
                name: {"BatchNorm": batch.norms, "GroupNorm": group.norms}
                for name, (batch, group) in list(pairs.items())[1:]
            }),
            "Norm of the gradient in batches of other kinds.",
        ),
    )  # fmt: skip


def _verdict(
    reproduced: bool,
    trap: Taught,
    fix: Taught,
    measured: dict[str, Figures],
    pairs: dict[str, tuple[Taught, Taught]],
) -> str:
    running, of_batch, group = measured[RUNNING], measured[OF_BATCH], measured[FIX]
    ratios = {name: _largest(batch) / _largest(other) for name, (batch, other) in pairs.items()}
    worst = max(ratios, key=lambda name: ratios[name])
    seen = "Gradients went out of control" if reproduced else "No gradient went out of control"
    told = (
        f"{seen}: the largest was {_largest(trap):.3g} against {_largest(fix):.3g} with GroupNorm, and in the worst of "
        f"the kinds of batches ({worst}) {ratios[worst]:.1f} times that of GroupNorm."
    )
    if running.accuracy is None or of_batch.accuracy is None or group.accuracy is None:
        told += f" Images: a sharpness of {running.sharpness:.1f} against {group.sharpness:.1f}."
    else:
        told += (
            f" Labels right: {running.accuracy:.1%} by running statistics, {of_batch.accuracy:.1%} by those of the "
            f"batch, {group.accuracy:.1%} with GroupNorm."
        )
    bitten = [
        f"{name} ({batch.network.mse:.3g} against {group.network.mse:.3g})"
        for name, (batch, group) in pairs.items()
        if batch.network.mse and group.network.mse and batch.network.mse > BITES * group.network.mse
    ]
    return f"{told} Held-out MSE suffers from: {'; '.join(bitten)}." if bitten else told


def _why(measured: dict[str, Figures], pairs: dict[str, tuple[Taught, Taught]]) -> tuple[str, ...]:
    running, of_batch = measured[RUNNING], measured[OF_BATCH]
    worse = "worse" if of_batch.to_mean > running.to_mean else "no worse"
    if running.accuracy is not None and of_batch.accuracy is not None:
        worse = "worse" if of_batch.accuracy < running.accuracy - 0.02 else "no worse"
    batch, group = pairs[ONE_TIMESTEP]
    apart = "none was finite"
    if batch.network.mse and group.network.mse:
        apart = f"{batch.network.mse / group.network.mse:.1f} times that of GroupNorm"
    return (
        "BatchNorm takes its mean and deviation over all images of a batch. In diffusion a batch mixes noise levels, "
        "so an almost clean image is normalised by what almost pure noise has in it, and what the network says about "
        "one image depends on which others happen to be beside it. GroupNorm asks no one but the image itself.",
        "What a network learnt with mixed batches fits mixed statistics, and the running averages are just that. But "
        "when sampling, all images of a batch are at one noise level, as no batch of the training was. By the "
        f"statistics of such a batch, which is what a network left in training mode goes by, images are {worse} here. "
        "And they depend on their neighbours: one image alone is another than the same among others.",
        "Where each batch of the training has one timestep, it is the running averages that fit no batch: they mix "
        f"levels that never met. The validation MSE by them is here {apart}.",
    )
