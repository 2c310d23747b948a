"""Lesson one: the best single answer is an average; a picture takes many small steps."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ddpmctl.core.noise import normal
from ddpmctl.data.dataset import to_model_range
from ddpmctl.evaluation.evaluator import as_tensor
from ddpmctl.lessons.figures import Figures, Images, comparison, sharpness
from ddpmctl.lessons.findings import HO_2020, Finding, Paper, Picture, Table
from ddpmctl.lessons.pictures import MOST_CLASSES, TOGETHER, curves, follow, sheet, side_by_side, tiled
from ddpmctl.lessons.theory import conditional_mean
from ddpmctl.lessons.workshop import Taught, Workshop
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import to_pixels

FULL_CHAIN = "ddpm"
LEVELS = (0.999, 0.75, 0.5, 0.25)
"""Where along the chain answers are looked at, as shares of its length."""

AT_ONCE, IN_STEPS, FIX = "trap: at once", "same network, in steps", "fix: in steps"

BLURRED = 0.75
"""Of the sharpness of real images: below it an answer is called blurred."""

PAPERS = (
    HO_2020,
    Paper(
        authors="Sohl-Dickstein, Weiss, Maheswaranathan, Ganguli 2015",
        title="Deep Unsupervised Learning using Nonequilibrium Thermodynamics",
        arxiv="1503.03585",
    ),
)


def teach(shop: Workshop) -> Finding:
    """Train a network that tells the image and one that tells the noise, and ask each for everything at once."""
    diffusion = replace(shop.base.diffusion, parameterization="x0")
    fix = shop.fix()
    trap = shop.teach("one-shot", "the trap", replace(shop.base, diffusion=diffusion), fix.network.steps)
    _, labels = shop.judge.real_images(shop.count)
    real = shop.judge.real(shop.count)
    once = at_once(trap.engine, labels, shop.about.seed)
    chained = trap.engine.generate(labels, shop.about.seed)
    fixed = fix.engine.generate(labels, shop.about.seed)
    measured = {
        AT_ONCE: shop.judge.figures(once, labels),
        IN_STEPS: shop.judge.figures(chained, labels),
        FIX: shop.judge.figures(fixed, labels),
        "real images": real,
    }
    blurred = measured[AT_ONCE]
    levels, picture = _levels(shop, trap)
    reproduced = blurred.sharpness < BLURRED * real.sharpness
    return Finding(
        lesson="one-shot",
        title="Small steps, not one leap",
        trap="a network that tells the clean image, asked once, from pure noise",
        fix="a network that tells the noise, asked again and again along the chain",
        claim="a blurry grey average of the data",
        reproduced=reproduced,
        verdict=_verdict(reproduced, blurred, measured[IN_STEPS], measured[FIX], real),
        formula="argmin over f of E|f(x_t, t) - x_0|^2  =  E[x_0 | x_t]",
        why=_why(shop, trap),
        tables=(
            comparison(shop.count, measured, f"Steps are those of {_way(fix.engine)}."),
            levels,
        ),
        pictures=(*_pictures(shop, trap, fix), picture),
        networks=(trap.network, fix.network),
        papers=PAPERS,
        setting=shop.setting(),
    )


def at_once(engine: Engine, labels: list[int], seed: int) -> Images:
    """One answer a label, to pure noise: image k is drawn from seed + k, as in sampling."""
    starts = range(0, len(labels), TOGETHER)
    noise = torch.split(pure_noise(engine, len(labels), seed), TOGETHER)
    answers = [
        engine.predict_x0(x, _end(engine), labels[start : start + TOGETHER]).cpu()
        for start, x in zip(starts, noise, strict=True)
    ]
    return to_pixels(torch.cat(answers), _range(engine))


def pure_noise(engine: Engine, count: int, seed: int) -> Tensor:
    """The noise that chains of these seeds start from: float32[count,C,S,S]."""
    model = engine.config.model
    return normal(range(seed, seed + count), 0, (model.channels, model.sample_size, model.sample_size))


def _end(engine: Engine) -> int:
    return len(engine.diffusion.schedule) - 1


def _range(engine: Engine) -> tuple[float, float]:
    return engine.diffusion.pixel_range


def _way(engine: Engine) -> str:
    way = engine.request([0]).sampling
    return f"{way.sampler}: {way.steps} of them, guidance {way.guidance:g}"


def _levels(shop: Workshop, trap: Taught) -> tuple[Table, Picture]:
    """The answer from noise of several strengths, beside the best answer there is."""
    engine, count = trap.engine, min(shop.count, 200)
    schedule, limits = engine.diffusion.schedule, _range(engine)
    images, labels = shop.judge.real_images(count)
    x0 = to_model_range(as_tensor(images), limits)
    epsilon = pure_noise(engine, count, shop.about.seed + 1_000_000)
    rows, pictures, names = [], [], []
    for level in LEVELS:
        t = min(_end(engine), round(level * len(schedule)))
        alpha, sigma = float(schedule.alpha[t]), float(schedule.sigma[t])
        x = alpha * x0 + sigma * epsilon
        told = engine.predict_x0(x, t, labels).cpu()
        best = _best(shop, x, labels, alpha, sigma, limits)
        shown = [to_pixels(each, limits) for each in (told, best)]
        errors = [float((each - x0).square().mean()) for each in (told, best)]
        real_sharpness = sharpness(images)
        rows.append(
            (
                f"t = {t}", f"{alpha:.3f}", f"{errors[0]:.4f}", f"{errors[1]:.4f}",
                *(f"{sharpness(each) / real_sharpness:.0%}" for each in shown),
            )
        )  # fmt: skip
        few = slice(0, min(MOST_CLASSES, len(shop.data.classes)))
        pictures += [to_pixels(x[few], (-3.0, 3.0)), shown[0][few], shown[1][few]]
        names += [f"noisy, t = {t}", "one answer", "exact mean"]
    titles = shop.data.classes[:MOST_CLASSES]
    data = sheet([*pictures, images[: len(titles)]], [*names, "real"], titles)
    table = Table(
        title=f"One answer to {count} noisy test images, from noise of several strengths",
        columns=("", "alpha", "MSE", "of the exact mean", "sharpness", "of the exact mean"),
        rows=tuple(rows),
        note="The exact mean is taken over the training images of the class, by Bayes' rule. From much noise nothing "
        "is better; near the image the network does better, since no training image is the test image.",
    )
    caption = (
        "One answer from noise of several strengths, beside the exact conditional mean: the average of the training "
        "images of the class, each weighted by how likely it is to be behind the noise. Last row: the real images."
    )
    return table, shop.put("one-shot-levels.png", data, caption)


def _best(
    shop: Workshop, x: Tensor, labels: list[int], alpha: float, sigma: float, limits: tuple[float, float]
) -> Tensor:
    """The conditional mean of each image over the training images of its class."""
    best, wanted = torch.empty_like(x), torch.tensor(labels)
    for label in set(labels):
        clean = to_model_range(shop.data.images[shop.data.labels == label].cpu(), limits)
        best[wanted == label] = conditional_mean(x[wanted == label], clean, alpha, sigma)
    return best


def _pictures(shop: Workshop, trap: Taught, fix: Taught) -> tuple[Picture, ...]:
    titles = shop.data.classes[:MOST_CLASSES]
    labels, seed = list(range(len(titles))), shop.about.seed
    request = fix.engine.request(labels, seed, sampler=FULL_CHAIN, steps=len(fix.engine.diffusion.schedule))
    whole, (frames, _) = request.sampling, follow(fix.engine, request)
    once = at_once(trap.engine, labels, seed)
    nothing_said = at_once(trap.engine, [trap.engine.config.model.num_classes] * len(labels), seed)
    rows = [
        nothing_said,
        once,
        trap.engine.generate(labels, seed),
        fix.engine.generate(labels, seed),
        shop.judge.real_images(len(labels))[0],
    ]
    names = ["trap, no label", "trap", "same, in steps", "fix", "real"]
    noise = tiled(to_pixels(pure_noise(trap.engine, len(labels), seed), _range(fix.engine)))
    return (
        shop.put(
            "one-shot.png",
            sheet(rows, names, titles),
            "Every class, from the same noise: the trap (without a label, and with one), the same network asked in "
            "many steps, the fix, and real images.",
        ),
        shop.put(
            "one-shot.gif",
            side_by_side([noise, tiled(once)], frames, ("trap: one leap", f"fix: {whole.steps} small steps")),
            f"From the same noise: one leap, and the fix in {whole.steps} steps ({whole.sampler}).",
        ),
        shop.put(
            "one-shot-curves.png",
            curves({
                "loss, each in the units of its own target": {"trap: x0": trap.losses, "fix: epsilon": fix.losses},
                "norm of the gradient": {"trap: x0": trap.norms, "fix: epsilon": fix.norms},
            }),
            "Training: the two losses do not compare, since one is an error of images and the other of noise.",
        ),
    )  # fmt: skip


def _verdict(reproduced: bool, once: Figures, chained: Figures, fixed: Figures, real: Figures) -> str:
    share, later = (100 * figures.sharpness / real.sharpness for figures in (once, chained))
    told = f"At once images have {share:.0f} % of the sharpness of real ones, and in steps {later:.0f} %"
    if chained.accuracy is not None and fixed.accuracy is not None:
        told += (
            f", with {chained.accuracy:.1%} of the labels right where the network that tells the noise has "
            f"{fixed.accuracy:.1%}"
        )
    if reproduced:
        return f"{told}. What is wrong is the single leap; which of the two a network tells is a matter of degree."
    return f"{told}. No blur to speak of came of the single leap here."


def _why(shop: Workshop, trap: Taught) -> tuple[str, ...]:
    """Why, in plain words, with what was measured."""
    images, labels = shop.judge.real_images(min(shop.count, 200))
    means = shop.judge.class_means[labels]
    once = at_once(trap.engine, labels, shop.about.seed).astype(np.float32)
    to_mean, to_real = (float(np.sqrt(np.square(once - other).mean())) for other in (means, images.astype(np.float32)))
    return (
        "Pure noise says nothing about which image was there. Asked for one answer, a network that is taught by "
        "squared error does the best that can be done: it answers with the mean of all images that could be behind "
        "what it sees, the conditional mean E[x_0 | x_t]. The mean of many sharp digits is a blurred one, and no "
        "longer training and no larger network changes that.",
        f"Here its one answer lies {to_mean:.1f} grey levels from the mean training image of its class and "
        f"{to_real:.1f} from a real image of it. Without a label it is the mean of all classes.",
        "A chain asks for a little at a time. Each step removes a little noise and so decides a little about which "
        "image it is to be; the next answer is a mean over what is still possible, which is less and less. At the end "
        "one image is left: a sample, and no mean. A network that tells the noise has the same choice to make at pure "
        "noise; that it is asked a thousand times is what saves it.",
    )
