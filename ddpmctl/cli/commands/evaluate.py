"""``ddpmctl evaluate``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from ddpmctl.cli import options
from ddpmctl.cli.evaluation import cas_sentence, classified_tables, likelihood_table, parse_sweep, results_table
from ddpmctl.cli.output import Output, task_bars
from ddpmctl.cli.sampling import SamplingArguments
from ddpmctl.errors import UsageError
from ddpmctl.registry import open_model

if TYPE_CHECKING:
    from ddpmctl.evaluation.test_images import EvaluationImages
    from ddpmctl.sampling.request import SamplingRequest

DEFAULT_COUNT = 2000


def evaluate(
    model: options.ModelArgument = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.SampleSeed = 0,
    count: options.EvaluationCount = None,
    cas: options.Cas = False,
    show_nearest: options.ShowNearest = None,
    sweep: options.Sweep = None,
    plot: options.Plot = None,
    classify: options.ClassifyTestImages = False,
    likelihood: options.LikelihoodOfTestImages = False,
    output: options.TestSheet = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure the quality of a model against real images.

    Example: ddpmctl evaluate -n 1000

    The first evaluation trains a classifier on the real training set, for a minute or two, and caches it.

    The model as a classifier of the test images: ddpmctl evaluate --classify -o wrong.png

    The likelihood of the test images: ddpmctl evaluate --likelihood
    """
    from ddpmctl.imaging.files import check_target

    out = Output("evaluate", as_json=as_json)
    for path in filter(None, (show_nearest, plot, output)):
        check_target(path, [".png"])
    swept = parse_sweep(sweep or [])
    sampling = SamplingArguments(
        sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed, device=device,
        precision=precision,
    )  # fmt: skip
    if classify or likelihood:
        only_real = SamplingArguments(seed=seed, device=device, precision=precision)
        if (sampling, cas, show_nearest, swept, plot) != (only_real, False, None, {}, None):
            raise UsageError("--classify and --likelihood sample no images", "omit the options of sampling")
        if classify and likelihood:
            raise UsageError("--classify and --likelihood are separate evaluations", "ddpmctl evaluate --classify")
        from ddpmctl.evaluation.test_images import EvaluationImages

        images = EvaluationImages.load(
            open_model(model), count=count, seed=seed, data_dir=data_dir, device=device, precision=precision
        )
        _evaluate_test_images(out, images, output, classify=classify)
        return
    if output:
        raise UsageError("-o writes a sheet of test images", "add --classify or --likelihood")
    request, count = sampling.request(open_model(model)), DEFAULT_COUNT if count is None else count
    _evaluate_samples(out, request, count, swept, data_dir, (show_nearest, plot), cas=cas)


def _evaluate_samples(
    out: Output,
    request: "SamplingRequest",
    count: int,
    swept: Mapping[str, Sequence[Any]],
    data_dir: Path | None,
    pictures: tuple[Path | None, Path | None],
    *,
    cas: bool,
) -> None:
    """Samples of a model compared with real images; ``pictures`` are the nearest neighbours and the plot."""
    # Imported late: importing torch takes a second.
    from ddpmctl.evaluation.api import evaluate
    from ddpmctl.imaging.files import write_atomic

    show_nearest, plot = pictures
    with task_bars(out) as progress:
        evaluation = evaluate(
            request.checkpoint, n=count, seed=request.seed, sweep=swept, data_dir=data_dir, device=request.device,
            precision=request.precision, progress=progress, **request.options,
        )  # fmt: skip
        data = evaluation.to_dict()
        parts: list[RenderableType] = [results_table(out, evaluation)]
        if cas:
            score, real = evaluation.classification_accuracy_score(progress)
            data["cas"] = {"generated": score, "real": real, "count": count}
            parts.append(cas_sentence(score, real, count))
    if show_nearest:
        write_atomic(show_nearest, evaluation.nearest_grid())
    if plot:
        write_atomic(plot, evaluation.plot())
    files = [str(path) for path in (show_nearest, plot) if path]
    for file in files:
        out.note(f"wrote {file}")
    out.result({**data, "files": files}, Group(*parts))


def _evaluate_test_images(out: Output, images: "EvaluationImages", output: Path | None, *, classify: bool) -> None:
    """The classes or the likelihood of the test images under a model."""
    from ddpmctl.evaluation.test_images import classify_test_images, likelihood_of_test_images
    from ddpmctl.imaging.files import write_atomic

    with task_bars(out) as progress:
        if classify:
            classified = classify_test_images(images, progress)
            data, sheet = classified.to_dict(), classified.sheet() if output else None
            shown: RenderableType = classified_tables(classified)
        else:
            likely = likelihood_of_test_images(images, progress)
            data, sheet, shown = likely.to_dict(), likely.sheet() if output else None, likelihood_table(likely)
    files: list[str] = []
    if output and sheet:
        write_atomic(output, sheet)
        files = [str(output)]
        out.note(f"wrote {output}")
    elif output:
        out.note(f"{output} is not written: no image is classified wrongly")
    out.result({**data, "files": files}, shown)
