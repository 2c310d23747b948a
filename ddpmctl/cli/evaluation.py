"""Evaluations as tables and bars."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from ddpmctl.cli.output import Output, encodes, escaped
from ddpmctl.cli.sampling import parse_interval
from ddpmctl.errors import UsageError

if TYPE_CHECKING:
    from ddpmctl.evaluation.api import Evaluation, SamplingResult
    from ddpmctl.evaluation.evaluator import Distance
    from ddpmctl.evaluation.pictures import ClassifiedPicture
    from ddpmctl.evaluation.test_images import ClassifiedImages, LikelihoodOfImages

PARSERS: dict[str, Callable[[str], object]] = {
    "sampler": str,
    "steps": int,
    "guidance": float,
    "guidance_interval": parse_interval,
}
WORST_CLASSES = 5
"""Classes whose accuracy is printed."""

MAX_CONFUSION = 20
"""Classes up to which the whole confusion matrix is printed; with more, its largest entries."""

NOT_MEASURED = "not measured: too few images"
BAR_WIDTH = 40


def parse_sweep(sweep: Sequence[str]) -> dict[str, list[Any]]:
    """``["steps=5,10", ..]`` as the values of each setting."""
    values: dict[str, list[Any]] = {}
    for text in sweep:
        name, _, typed = text.partition("=")
        name = name.replace("-", "_")
        if name not in PARSERS or not typed:
            raise UsageError(
                f"'{text}' is not a valid sweep",
                "for example --sweep steps=5,10,20; also guidance, guidance-interval and sampler",
            )
        try:
            values[name] = [PARSERS[name](value) for value in typed.split(",")]
        except ValueError as error:
            raise UsageError(
                f"'{text}' contains a value that is not a number", "for example --sweep steps=5,10,20"
            ) from error
    return values


def results_table(out: Output, evaluation: "Evaluation") -> RenderableType:
    """One result in full, or several side by side."""
    return _comparison(out, evaluation.results) if len(evaluation.results) > 1 else _metrics(evaluation)


def cas_sentence(score: float, real: float, count: int) -> str:
    """The classification accuracy score, compared with that of real images."""
    return (
        f"\nclassification accuracy score: {score:.2%} (classifier trained on {count:,} generated images); "
        f"{real:.2%} (trained on real images)"
    )


def pictures_table(pictures: "Sequence[ClassifiedPicture]") -> Table:
    """One picture per row: its class, and the class of the next larger error."""
    table = Table("picture", "class", "error", "next", "its error", "NFE", "prepared", box=None)
    for picture in pictures:
        ranked = sorted(picture.errors, key=lambda name: picture.errors[name])
        following = ranked[1] if len(ranked) > 1 else ""
        excess = picture.errors[following] / picture.errors[picture.label] - 1 if following else math.nan
        drawing = picture.drawing
        done = {"as it is": drawing.kept, "inverted": drawing.inverted, "thickened": drawing.thickened}
        table.add_row(
            escaped(str(picture.path)), picture.label, f"{picture.errors[picture.label]:.5f}", following,
            f"+{excess:.1%}" if following else "", str(picture.nfe),
            ", ".join(text for text, applies in done.items() if applies),
        )  # fmt: skip
    return table


def classified_tables(evaluation: "ClassifiedImages") -> Group:
    """Accuracy and confusion matrix of test images."""
    images, classes, confusion = evaluation.images, evaluation.images.data.classes, evaluation.confusion
    count = len(images.data)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("images", f"{count:,} test images of {images.data.name}")
    facts.add_row("accuracy", f"{evaluation.accuracy:.2%} +- {evaluation.standard_error:.2%}")
    facts.add_row("wrong", f"{len(evaluation.wrong):,}")
    speed = count / evaluation.seconds
    facts.add_row("cost", f"NFE {evaluation.nfe:.1f} per image, {speed:,.1f} images/s in {images.engine.precision}")
    if len(classes) > MAX_CONFUSION:
        pairs = [
            (number, classes[row], classes[column])
            for row, counts in enumerate(confusion)
            for column, number in enumerate(counts)
            if number and row != column
        ]
        table = Table("images", "label", "predicted class", box=None)
        for number, label, predicted in sorted(pairs, key=lambda pair: -pair[0])[:MAX_CONFUSION]:
            table.add_row(f"{number:,}", label, predicted)
        return Group(facts, "\nlargest entries of the confusion matrix:", table)
    table = Table("label", *classes, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in zip(classes, confusion, strict=True):
        table.add_row(name, *(f"{number:,}" if number else "." for number in counts))
    return Group(facts, "\nconfusion matrix, one row per label and one column per predicted class:", table)


def likelihood_table(evaluation: "LikelihoodOfImages") -> Table:
    """Bits per dimension of test images and their parts."""
    images, result = evaluation.images, evaluation.result
    table = Table.grid(padding=(0, 2))
    error = "" if math.isnan(result.standard_error) else f" +- {result.standard_error:.4f}"
    table.add_row("bits per dimension", f"{result.mean:.4f}{error}, at most (variational bound)")
    for name, text in (("prior", "L_T"), ("diffusion", "L_1 .. L_T-1"), ("decoder", "L_0, to 8-bit pixels")):
        table.add_row(f"  {name}", f"{float(getattr(result, name).mean()):.4f}  {text}")
    table.add_row("of", evaluation.pixels)
    table.add_row("images", f"{len(images.data):,} test images of {images.data.name}, given their labels")
    order, classes, labels = evaluation.order(), images.data.classes, images.data.labels.tolist()
    for name, ends in (("least surprising", order[:3]), ("most surprising", order[:-4:-1])):
        shown = [f"{classes[labels[k]]} {float(result.bits[k]):.2f} (test image {images.ids[k]})" for k in ends]
        table.add_row(name, ", ".join(shown))
    speed = len(images.data) / evaluation.seconds
    table.add_row("cost", f"NFE {result.timesteps + 1} per image, {speed:,.1f} images/s in {images.engine.precision}")
    return table


def _metrics(evaluation: "Evaluation") -> Table:
    """One result, one metric per row."""
    (result,), classes = evaluation.results, evaluation.evaluator.train.classes
    metrics, sampling = result.metrics, result.sampling
    table = Table("", f"{metrics.count:,} generated", "real", box=None)
    table.add_row("label accuracy", f"{metrics.accuracy:.2%}", f"{metrics.real_accuracy:.2%} of test images")
    shares = zip(metrics.accuracy_by_class, classes, strict=True)
    worst = sorted((share, name) for share, name in shares if share is not None)
    table.add_row("  by class", _first([f"{name} {share:.1%}" for share, name in worst]), "")
    for reason in dict.fromkeys(metrics.unmeasured_classes.values()):
        names = [name for name, why in metrics.unmeasured_classes.items() if why == reason]
        of_class = "of this class" if len(names) == 1 else "of these classes"
        table.add_row("  not measured", _first(names), f"{reason} {of_class}")
    for name, distance in (("Frechet distance", metrics.frechet), ("kernel distance", metrics.kernel)):
        ratio = "" if distance.ratio is None else f", {distance.ratio:.2f} x the real-data floor"
        table.add_row(name, f"{_number(distance.value)}{ratio}", _floor(distance))
    for name in ("recall", "density", "coverage"):
        pair = (None if each is None else getattr(each, name) for each in (metrics.diversity, metrics.real_diversity))
        table.add_row(name, *(_number(value, ".3f") for value in pair))
    table.add_row("mean intensity", f"{metrics.intensity:.2f}", f"{metrics.real_intensity:.2f} of 255")
    memorization = metrics.memorization
    table.add_row(
        "nearest training image", f"{memorization.generated:.1f} grey levels", f"{memorization.real:.1f}, test images"
    )
    table.add_row("near-duplicates", f"{memorization.near_duplicates:.2%}", "1.00% of test images, by definition")
    table.add_row("sampling", f"{result.label}, {sampling.steps} steps", "")
    table.add_row("cost", f"NFE {result.nfe} per image, {result.images_per_second:,.1f} images/s", "")
    return table


def _comparison(out: Output, results: "Sequence[SamplingResult]") -> Group:
    """Several results: one row each, and quality against cost as bars."""
    table = Table(
        "sampling", "steps", "NFE", "label accuracy", "Frechet", "x floor", "recall", "coverage", "images/s", box=None
    )
    for result in results:
        metrics, diversity = result.metrics, result.metrics.diversity
        table.add_row(
            result.label, str(result.sampling.steps), str(result.nfe), f"{metrics.accuracy:.2%}",
            _number(metrics.frechet.value, missing="-"), _number(metrics.frechet.ratio, ".2f", "-"),
            _number(diversity.recall if diversity else None, ".3f", "-"),
            _number(diversity.coverage if diversity else None, ".3f", "-"), f"{result.images_per_second:,.1f}",
        )  # fmt: skip
    measured = sorted(
        (each.nfe, each.metrics.frechet.ratio, each.label) for each in results if each.metrics.frechet.ratio is not None
    )
    if not measured:
        return Group(table, "\nthe Frechet distance cannot be compared with the real-data floor: too few test images")
    most = max(ratio for _, ratio, _ in measured)
    bars, bar = Table.grid(padding=(0, 1)), "█" if encodes(out.stdout, "█") else "#"
    for nfe, ratio, name in measured:
        length = max(1, round(BAR_WIDTH * ratio / most)) if most else 1
        bars.add_row(str(nfe), name, bar * length, f"{ratio:.2f}")
    return Group(table, "\nratio of the Frechet distance to the real-data floor, by NFE per image:", bars)


def _first(names: list[str]) -> str:
    return ", ".join(names[:WORST_CLASSES]) + (", .." if len(names) > WORST_CLASSES else "")


def _floor(distance: "Distance") -> str:
    if distance.floor is None:
        return NOT_MEASURED
    spread = "one draw" if distance.floor_std is None else f"+- {distance.floor_std:.2g} over {distance.draws} draws"
    return f"{distance.floor:.4g} ({spread})"


def _number(value: float | None, form: str = ".4g", missing: str = NOT_MEASURED) -> str:
    return missing if value is None else format(value, form)
