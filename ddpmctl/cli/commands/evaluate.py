"""``ddpmctl evaluate``."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from ddpmctl import plugins
from ddpmctl.cli import options
from ddpmctl.cli.output import Output, encodes, without_nan
from ddpmctl.cli.sampling import SamplingArguments, open_model, parse_interval, steps_bar
from ddpmctl.config import SamplingConfig, resolve_sampling
from ddpmctl.errors import DdpmctlError, UsageError
from ddpmctl.model_images import same_images
from ddpmctl.registry.evaluations import keep_evaluation
from ddpmctl.sampling.request import SamplingRequest

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset
    from ddpmctl.evaluation.evaluator import Distance, Evaluator, Report
    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.engine import Engine

SWEEPABLE: dict[str, Callable[[str], Any]] = {
    "sampler": str,
    "steps": int,
    "guidance": float,
    "guidance_interval": parse_interval,
}
MIN_COUNT = 100
SHEET_COLUMNS = 10
WORST = 5
"""Classes of which the accuracy is printed."""

NOT_MEASURED = "not measured: too few images"
ENLARGED = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """One way of sampling and what came of it.

    Attributes:
        sampling: the way.
        report: the figures.
        images_per_second: in sampling.
        evaluations: of the network, an image; guidance counts twice.
    """

    sampling: SamplingConfig
    report: "Report"
    images_per_second: float
    evaluations: int

    @property
    def ratio(self) -> float | None:
        """Of the Frechet distance to its floor; None if that is unknown or 0."""
        return self.report.frechet.ratio

    def record(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        figures = asdict(self.report)
        for name in ("frechet", "kernel"):
            figures[name]["ratio"] = getattr(self.report, name).ratio
        cost = {"images_per_second": self.images_per_second, "evaluations_per_image": self.evaluations}
        record: dict[str, Any] = without_nan({"sampling": asdict(self.sampling), **figures, **cost})
        return record


def evaluate(
    model: options.ModelArgument = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.SampleSeed = 0,
    count: options.EvaluationCount = 2000,
    cas: options.Cas = False,
    show_nearest: options.ShowNearest = None,
    sweep: options.Sweep = None,
    plot: options.Plot = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure the quality of a model against real images.

    Example: ddpmctl evaluate -n 1000

    The first evaluation trains a classifier on the real training set, for a minute or two, and caches it.
    """
    from ddpmctl.imaging.files import check_target, write_whole

    out = Output("evaluate", as_json=as_json)
    check_count(count)
    for path in filter(None, (show_nearest, plot)):
        check_target(path, [".png"])
    check_extra()
    sampling = SamplingArguments(
        model=model, sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed,
        device=device, precision=precision,
    )  # fmt: skip
    checkpoint = open_model(out, model)
    classes = len(checkpoint.manifest.classes)
    request = sampling.request(checkpoint, [k % classes for k in range(count)])
    ways = list(swept(request, sweep or []))

    engine, request = sampling.load(out, request)
    evaluator = make_evaluator(out, request, data_dir, engine)
    labels = list(request.labels)
    judged, images = judge(out, request, ways, engine, evaluator)
    data: dict[str, Any] = {"model": request.checkpoint.name, "digest": request.checkpoint.digest, "seed": seed}
    data |= {"device": str(engine.device), "precision": engine.precision, "results": [one.record() for one in judged]}
    single = len(judged) == 1
    parts: list[RenderableType] = [figures(judged[0], engine.classes) if single else comparison(out, judged)]
    if cas:
        made, real = _cas(out, evaluator, engine, images, labels)
        data["cas"] = {"made": made, "real": real, "count": count}
        parts.append(
            f"\nclassifier trained on {count:,} made images: {made:.2%} of real test images; on real: {real:.2%}"
        )
    if show_nearest:
        write_whole(
            show_nearest,
            nearest_sheet(evaluator, images, partial(_made, replace(request, sampling=ways[-1]))),
        )
    if not sweep and not keep_evaluation(request.checkpoint, _kept(data, judged[0])):
        out.note("kept nowhere: the model has no place for it")
    if plot:
        write_whole(plot, quality_plot(judged))
    _tell(out, data, parts, [show_nearest, plot])


def _tell(out: Output, data: dict[str, Any], parts: list[RenderableType], drawn: list[Path | None]) -> None:
    data["files"] = [str(path) for path in drawn if path]
    for file in data["files"]:
        out.note(f"drawn into {file}")
    out.result(data, Group(*parts))


def _kept(data: dict[str, Any], judged: Judged) -> dict[str, Any]:
    """What is kept of an evaluation in the model's own way, for whoever tells of it later."""
    circumstances = {name: data[name] for name in ("seed", "device", "precision")}
    return {**judged.record(), **circumstances, "created": f"{datetime.now(UTC):%Y-%m-%d}"}


def judge(
    out: Output,
    request: SamplingRequest,
    ways: list[SamplingConfig],
    engine: "Engine",
    evaluator: "Evaluator",
) -> "tuple[list[Judged], Images]":
    """Sample in every way and compare with the real images; also gives the images of the last way."""
    judged, labels = [], list(request.labels)
    engine.generate(labels[:SHEET_COLUMNS], steps=1)  # the first images are slower than all that follow
    for sampling in ways:
        images, seconds = _sample(out, engine, replace(request, sampling=sampling))
        report = evaluator.report(images, labels)
        judged.append(Judged(sampling, report, len(labels) / seconds, engine.nfe(sampling)))
    return judged, images


def check_count(count: int) -> None:
    """See that so many images can be judged.

    Raises:
        UsageError: when they cannot.
    """
    if not MIN_COUNT <= count <= 1_000_000:
        raise UsageError(f"{count} images cannot be judged", f"-n {MIN_COUNT}..1000000")


def check_extra() -> None:
    """See that what the extra brings is here, before minutes are spent on sampling.

    Raises:
        DdpmctlError: when it is not.
    """
    if find_spec("torchmetrics") is None:
        raise DdpmctlError("torchmetrics is not installed", "in the project's folder: pip install '.[eval]'")


def swept(request: SamplingRequest, sweeps: list[str]) -> Iterator[SamplingConfig]:
    """Every combination of the swept settings, the request's own where none is swept.

    Raises:
        UsageError: for a setting that cannot be swept, or a value that it cannot have.
    """
    axes: dict[str, list[Any]] = {}
    for text in sweeps:
        key, _, values = text.partition("=")
        key = key.replace("-", "_")
        if key not in SWEEPABLE or not values:
            raise UsageError(
                f"'{text}' cannot be swept",
                "--sweep steps=5,10,20, guidance=1,1.3, guidance-interval=0:1,0.3:0.85 or sampler=ddim,dpmpp",
            )
        try:
            axes[key] = [SWEEPABLE[key](value) for value in values.split(",")]
        except ValueError as error:
            raise UsageError(f"'{text}' holds a value that is no number", "--sweep steps=5,10,20") from error
    base = asdict(request.sampling)
    config, extra = request.checkpoint.manifest.config, plugins.available(plugins.SAMPLERS)
    for combination in product(*axes.values()):
        settings = {**base, **dict(zip(axes, combination, strict=True))}
        yield resolve_sampling(
            config, settings["sampler"], settings["steps"], settings["guidance"], settings["guidance_interval"], extra
        )


def make_evaluator(out: Output, request: SamplingRequest, data_dir: Path | None, engine: "Engine") -> "Evaluator":
    """Load the real images and the classifier of the dataset that the model was trained on."""
    from ddpmctl.evaluation.cache import trained_classifier
    from ddpmctl.evaluation.evaluator import Evaluator

    manifest = request.checkpoint.manifest
    train = same_images(manifest, data_dir, notice=out.warn)
    test = same_images(manifest, data_dir, train=False)
    if manifest.dataset.digest and train.digest() != manifest.dataset.digest:
        out.warn(f"the dataset {manifest.dataset.name} is not the one that this model was trained on")
    side = manifest.config.model.image_size
    train, test = train.at_size(side), test.at_size(side)
    with out.progress() as bar:
        task = bar.add_task("training the classifier", total=None)
        trained = trained_classifier(
            train, test, engine.device, lambda done, total: bar.update(task, completed=done, total=total)
        )
    origin = "trained now" if trained.fresh else "from the cache"
    out.note(f"classifier {trained.digest[:12]} ({origin}): {trained.accuracy:.2%} of real test images")
    return Evaluator(trained.classifier, train, test)


def figures(judged: Judged, classes: tuple[str, ...]) -> Table:
    """One report as names and figures."""
    report, sampling = judged.report, judged.sampling
    table = Table("", f"{report.count:,} made", "real", box=None)
    table.add_row("label accuracy", f"{report.accuracy:.2%}", f"{report.real_accuracy:.2%} of test images")
    shares = zip(report.accuracy_by_class, classes, strict=True)
    worst = sorted((share, name) for share, name in shares if share is not None)
    more = ", .." if len(worst) > WORST else ""
    table.add_row("  by class", ", ".join(f"{name} {share:.1%}" for share, name in worst[:WORST]) + more, "")
    for reason in dict.fromkeys(report.without_figure.values()):
        names = [name for name, why in report.without_figure.items() if why == reason]
        more = ", .." if len(names) > WORST else ""
        table.add_row("  not measured", ", ".join(names[:WORST]) + more, f"{reason} of {_these(names)}")
    for name, distance in (("Frechet distance", report.frechet), ("kernel distance", report.kernel)):
        table.add_row(name, f"{_number(distance.value)}{_over(distance)}", _floor(distance))
    for name in ("recall", "density", "coverage"):
        made, real = (None if each is None else getattr(each, name) for each in (report.spread, report.real_spread))
        table.add_row(name, _number(made, ".3f"), _number(real, ".3f"))
    table.add_row("mean intensity", f"{report.intensity:.2f}", f"{report.real_intensity:.2f} of 255")
    memory = report.memory
    table.add_row("nearest training image", f"{memory.made:.1f} grey levels", f"{memory.real:.1f}, test images")
    table.add_row("near-copies", f"{memory.near_copies:.2%}", "1.00%, by definition")
    table.add_row("sampling", f"{_way(sampling)}, {sampling.steps} steps", "")
    table.add_row("cost", f"{judged.evaluations} evaluations an image, {judged.images_per_second:,.1f} images/s", "")
    return table


def comparison(out: Output, judged: list[Judged]) -> Group:
    """Several ways of sampling: a row each, and quality against cost as bars."""
    table = Table(
        "way", "steps", "evaluations", "accuracy", "Frechet", "ratio", "recall", "coverage", "images/s",
        box=None,
    )  # fmt: skip
    for each in judged:
        report, way = each.report, each.sampling
        table.add_row(
            _way(way), str(way.steps), str(each.evaluations), f"{report.accuracy:.2%}",
            _number(report.frechet.value, missing="-"), _number(each.ratio, ".2f", "-"),
            _number(report.spread.recall if report.spread else None, ".3f", "-"),
            _number(report.spread.coverage if report.spread else None, ".3f", "-"), f"{each.images_per_second:,.1f}",
        )  # fmt: skip
    measured = [(each.evaluations, each.ratio, _way(each.sampling)) for each in judged if each.ratio is not None]
    if not measured:
        return Group(table, "\nno ratio to the floor of the Frechet distance: there are too few test images")
    most = max(ratio for _, ratio, _ in measured)
    bars, bar = Table.grid(padding=(0, 1)), "█" if encodes(out.stdout, "█") else "#"
    for evaluations, ratio, name in sorted(measured):
        length = max(1, round(40 * ratio / most)) if most else 1
        bars.add_row(str(evaluations), name, bar * length, f"{ratio:.2f}")
    return Group(table, "\nFrechet distance over the floor, by evaluations of the network:", bars)


def quality_plot(judged: list[Judged]) -> bytes:
    """Quality against cost, as a PNG: the settings but for the number of steps make a line."""
    from ddpmctl.evaluation.plot import Point, quality_against_cost

    return quality_against_cost(
        [Point(_way(each.sampling), each.evaluations, each.ratio, each.report.accuracy) for each in judged]
    )


def nearest_sheet(evaluator: "Evaluator", images: "Images", made: "Callable[[list[int]], Provenance | None]") -> bytes:
    """The samples nearest to a training image, each above that image, titled with their distance, as a PNG.

    Args:
        evaluator: has the training images.
        images: the samples, uint8[N,..].
        made: tells how those of these numbers were made.
    """
    from ddpmctl.evaluation.evaluator import as_tensor
    from ddpmctl.evaluation.metrics import nearest
    from ddpmctl.imaging.files import png
    from ddpmctl.imaging.sheet import labelled_sheet
    from ddpmctl.sampling.loop import channels_last_pixels

    distances, indices = nearest(as_tensor(images), evaluator.train.images)
    closest = distances.argsort()[:SHEET_COLUMNS].tolist()
    real = channels_last_pixels(evaluator.train.images[indices[closest]])
    titles = [f"{float(distances[k]):.1f}" for k in closest]
    return png(labelled_sheet([[images[k] for k in closest], list(real)], [titles, []], ENLARGED), made(closest))


def _made(request: SamplingRequest, shown: list[int]) -> "Provenance":
    from ddpmctl.sampling.reproduce import build_provenance

    argv = request.to_argv("evaluate", count=len(request.labels), show_nearest="nearest.png")
    drawn = replace(request, labels=tuple(request.labels[k] for k in shown))
    return build_provenance(drawn, "sheet", argv, upscale=ENLARGED)


def _sample(out: Output, engine: "Engine", request: SamplingRequest) -> "tuple[Images, float]":
    started = time.perf_counter()
    with steps_bar(out, request.sampling.steps * len(request.labels)) as on_step:
        images = engine.run(request, on_step)
    return images, time.perf_counter() - started


def _cas(
    out: Output, evaluator: "Evaluator", engine: "Engine", images: "Images", labels: list[int]
) -> tuple[float, float]:
    import torch

    from ddpmctl.evaluation.evaluator import as_tensor, classification_accuracy_score

    train = evaluator.train
    made: Dataset = replace(train, images=as_tensor(images), labels=torch.tensor(labels))
    real, _ = train.split(0)
    few = replace(real, images=real.images[: len(images)], labels=real.labels[: len(images)])
    with out.progress() as bar:
        task = bar.add_task("training on made and on real images", total=None)
        return classification_accuracy_score(
            made, few, evaluator.test, engine.device, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _way(sampling: SamplingConfig) -> str:
    """How an image is made, but for the number of steps."""
    if sampling.guidance == 1.0:
        return f"{sampling.sampler}, no guidance"
    low, high = sampling.guidance_interval
    where = "" if (low, high) == (0, 1) else f" from {low:g} to {high:g}"
    return f"{sampling.sampler}, guidance {sampling.guidance:g}{where}"


def _over(distance: "Distance") -> str:
    return "" if distance.ratio is None else f", {distance.ratio:.2f} times the floor"


def _floor(distance: "Distance") -> str:
    if distance.floor is None:
        return NOT_MEASURED
    spread = (
        "one draw" if distance.floor_spread is None else f"+- {distance.floor_spread:.2g} over {distance.draws} draws"
    )
    return f"{distance.floor:.4g} ({spread})"


def _number(value: float | None, form: str = ".4g", missing: str = NOT_MEASURED) -> str:
    return missing if value is None else format(value, form)


def _these(names: list[str]) -> str:
    return "this class" if len(names) == 1 else "these classes"
