"""``ddpmctl evaluate``."""

from rich.console import Group, RenderableType

from ddpmctl.cli import options
from ddpmctl.cli.evaluation import cas_sentence, parse_sweep, results_table
from ddpmctl.cli.output import Output, task_bars
from ddpmctl.cli.sampling import SamplingArguments
from ddpmctl.registry import open_model


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
    from ddpmctl.imaging.files import check_target, write_atomic

    out = Output("evaluate", as_json=as_json)
    for path in filter(None, (show_nearest, plot)):
        check_target(path, [".png"])
    swept = parse_sweep(sweep or [])
    sampling = SamplingArguments(
        sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed, device=device,
        precision=precision,
    )  # fmt: skip
    request = sampling.request(open_model(model))
    # Imported late: importing torch takes a second.
    from ddpmctl.evaluation.api import evaluate as evaluate_model

    with task_bars(out) as progress:
        evaluation = evaluate_model(
            request.checkpoint, n=count, seed=seed, sweep=swept, data_dir=data_dir, device=device,
            precision=precision, progress=progress, **request.options,
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
