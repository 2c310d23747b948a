"""`evaluate`: sample a model, with one setting or several, and compare the images with the real ones."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Unpack

from ddpmctl import plugins
from ddpmctl.config import SamplingConfig, choose
from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import Setting, UsageError
from ddpmctl.evaluation.cache import cached_classifier
from ddpmctl.evaluation.evaluator import Evaluator, Images, Metrics, as_tensor
from ddpmctl.evaluation.metrics import check_available, nearest
from ddpmctl.evaluation.plot import quality_against_cost
from ddpmctl.imaging.files import png
from ddpmctl.imaging.grid import labelled_grid
from ddpmctl.model_images import load_training_data
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.registry.evaluations import store_evaluation
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import channels_last_pixels
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import SamplingOptions, SamplingRequest
from ddpmctl.sampling.settings import resolve_sampling

log = logging.getLogger("ddpmctl")

COUNTS = range(100, 1_000_001)
GRID_COLUMNS = 10
UPSCALE = 3
SWEEPABLE = ("sampler", "steps", "guidance", "guidance_interval")

Progress = Callable[[str, int, int], None]
"""Called with the name of a task, what is done of it, and its total."""


def no_progress(task: str, done: int, total: int) -> None:
    """Report nothing."""


def count_steps(progress: Progress, request: SamplingRequest) -> Callable[[int], None]:
    """An ``on_step`` of the engine that reports the progress of a request."""
    done, total = 0, request.sampling.steps * len(request.labels)

    def on_step(images: int) -> None:
        nonlocal done
        done += images
        progress("sampling", done, total)

    return on_step


class EvaluationOptions(SamplingOptions, total=False):
    """The options of `SamplingRequest.resolve`."""

    seed: int


@dataclass(frozen=True, slots=True)
class SamplingResult:
    """The metrics and the cost of one sampling setting.

    Attributes:
        nfe: network function evaluations per image.
    """

    sampling: SamplingConfig
    metrics: Metrics
    images_per_second: float
    nfe: int

    @property
    def label(self) -> str:
        """The human-readable setting, without the number of steps."""
        sampling = self.sampling
        if sampling.guidance == 1.0:
            return f"{sampling.sampler}, no guidance"
        low, high = sampling.guidance_interval
        interval = "" if (low, high) == (0, 1) else f" from {low:g} to {high:g}"
        return f"{sampling.sampler}, guidance {sampling.guidance:g}{interval}"

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        metrics = asdict(self.metrics)
        for name in ("frechet", "kernel"):
            metrics[name]["ratio"] = getattr(self.metrics, name).ratio
        cost = {"images_per_second": self.images_per_second, "nfe": self.nfe}
        return {"sampling": asdict(self.sampling), **metrics, **cost}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The results of all sampling settings, in their order.

    Attributes:
        request: for the images of the last setting.
        images: uint8[N,S,S] or uint8[N,S,S,3].
    """

    results: tuple[SamplingResult, ...]
    evaluator: Evaluator
    request: SamplingRequest
    images: Images

    @property
    def metrics(self) -> Metrics:
        """The metrics of the first setting."""
        return self.results[0].metrics

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        names = ("model", "digest", "seed", "device", "precision")
        request = self.request.to_dict()
        return {
            **{name: request[name] for name in names},
            "results": [result.to_dict() for result in self.results],
        }

    def classification_accuracy_score(self, progress: Progress = no_progress) -> tuple[float, float]:
        """Accuracy on real test images of classifiers trained on generated and on the same number of real images."""
        task = "training on generated and on real images"
        return self.evaluator.classification_accuracy_score(
            self.images, list(self.request.labels), lambda done, total: progress(task, done, total)
        )

    def nearest_grid(self) -> bytes:
        """A PNG of the samples nearest to a training image, each above that image and titled with the distance."""
        train = self.evaluator.train.images
        distances, indices = nearest(as_tensor(self.images), train)
        closest = distances.argsort()[:GRID_COLUMNS].tolist()
        samples, real = [self.images[k] for k in closest], channels_last_pixels(train[indices[closest]])
        titles = [f"{float(distances[k]):.1f}" for k in closest]
        grid = labelled_grid([samples, list(real)], [titles, []], UPSCALE)
        shown = replace(self.request, labels=tuple(self.request.labels[k] for k in closest))
        argv = self.request.to_argv("evaluate", count=len(self.images), show_nearest="nearest.png")
        return png(grid, build_provenance(shown, "sheet", argv, upscale=UPSCALE))

    def plot(self) -> bytes:
        """A PNG of quality against cost; settings that differ only in the number of steps are joined by a line."""
        return quality_against_cost(self.results)


def evaluate(
    model: str | Checkpoint | None = None,
    *,
    n: int = 2000,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress = no_progress,
    **options: Unpack[EvaluationOptions],
) -> Evaluation:
    """Sample a model and compare the images with the real ones.

    Example:
        >>> evaluation = ddpmctl.evaluate("quick", n=1000, sweep={"steps": [5, 10, 20]})  # doctest: +SKIP
        >>> [result.metrics.frechet.ratio for result in evaluation.results]  # doctest: +SKIP

    A classifier is trained once on the real training set, for a minute or two, and cached. Without a sweep, the result
    is saved with the model.

    Args:
        model: a name or path; the newest when None.
        n: images per setting, their classes in the proportions of the training set; image k has seed ``seed + k``.
        sweep: values of some of `SWEEPABLE`; every combination is evaluated.
        data_dir: the folder of the dataset; searched for when None.
        options: the seed, 0 by default, and settings that are not swept.
    """
    if n not in COUNTS:
        raise UsageError(f"n must be in {COUNTS.start}..{COUNTS.stop - 1}, not {n}", Setting("n", 2000))
    check_available()
    checkpoint = model if isinstance(model, Checkpoint) else Registry().open(model)
    options.setdefault("seed", 0)
    # The settings are checked before the data is read, which has the labels.
    request = SamplingRequest.resolve(checkpoint, device=device, precision=precision, **options)
    settings = list(_settings(request, sweep or {}))
    engine = Engine(checkpoint, device, precision)
    request = engine.resolve(request)
    train, test = _real_images(checkpoint, data_dir)
    labels = train.proportional_labels(n)
    request = replace(request, labels=tuple(labels))
    evaluator = _evaluator(train, test, engine, progress)
    engine.generate(labels[:GRID_COLUMNS], steps=1)  # warm-up
    results = []
    for sampling in settings:
        request = replace(request, sampling=sampling)
        started = time.perf_counter()
        images = engine.run(request, count_steps(progress, request))
        speed = n / (time.perf_counter() - started)
        results.append(SamplingResult(sampling, evaluator.measure(images, labels), speed, engine.nfe(sampling)))
    evaluation = Evaluation(results=tuple(results), evaluator=evaluator, request=request, images=images)
    if not sweep:
        _save(evaluation)
    return evaluation


def _settings(request: SamplingRequest, sweep: Mapping[str, Sequence[Any]]) -> Iterator[SamplingConfig]:
    """Every combination of the swept settings; the others are those of the request."""
    config, extra = request.checkpoint.manifest.config, plugins.available(plugins.SAMPLERS)
    for name in sweep:
        choose("setting to sweep", name, SWEEPABLE)
    for values in product(*sweep.values()):
        swept = dict(zip(sweep, values, strict=True))
        yield resolve_sampling(config, **asdict(request.sampling) | swept, extra_samplers=extra)


def _real_images(checkpoint: Checkpoint, data_dir: Path | None) -> tuple[Dataset, Dataset]:
    """The training and the test set that the model was trained on, at its size."""
    manifest = checkpoint.manifest
    train = load_training_data(manifest, data_dir, notice=log.warning)
    test = load_training_data(manifest, data_dir, train=False)
    if manifest.dataset.digest and train.digest() != manifest.dataset.digest:
        log.warning("the dataset %s is not the one that this model was trained on", manifest.dataset.name)
    side = manifest.config.model.image_size
    return train.at_size(side), test.at_size(side)


def _evaluator(train: Dataset, test: Dataset, engine: Engine, progress: Progress) -> Evaluator:
    cached = cached_classifier(
        train, test, engine.device, lambda done, total: progress("training the classifier", done, total)
    )
    return Evaluator(cached.classifier, train, test)


def _save(evaluation: Evaluation) -> None:
    """Save the result with the model, for the report."""
    request = evaluation.request
    conditions = {"seed": request.seed, "device": request.device, "precision": request.precision}
    record = {**evaluation.results[0].to_dict(), **conditions, "created": f"{datetime.now(UTC):%Y-%m-%d}"}
    if not store_evaluation(request.checkpoint, record):
        log.info("evaluation not saved: the model was opened by a checkpoint path")
