"""Students of four, two and one steps beside their teacher: quality, speed, and digits from the same noise."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import ddpmctl
from ddpmctl.evaluation.evaluator import Metrics
from ddpmctl.imaging.files import png
from ddpmctl.imaging.grid import labelled_grid
from ddpmctl.registry import Registry
from ddpmctl.sampling.loop import Images

from .machine import about_this_machine, markdown

SHEET = Path("students.png")
SEEDS, UPSCALE = 20, 2
COLUMNS = ("model", "training", "NFE", "label accuracy", "ratio", "recall, coverage", "images/s")


@dataclass(frozen=True)
class Row:
    """One model of the table."""

    name: str
    minutes: float
    metrics: Metrics
    nfe: int
    images_per_second: float


def students(data_dir: Path, count: int, teacher: str | None, minutes: float) -> None:
    """Distill, evaluate and draw; without a teacher, `quick` is trained for 90 seconds."""
    with TemporaryDirectory() as folder:
        registry = Registry() if teacher else Registry(Path(folder))
        if teacher is None:
            teacher = ddpmctl.train(
                preset="quick", max_time=90, data_dir=data_dir, name="quick", registry=registry
            ).name
        rows, sheet = [_row(registry, teacher, 1.5, data_dir, count)], [_digits(registry, teacher)]
        for name, source, steps, share in _plan(teacher):
            ddpmctl.distill(
                source,
                steps,
                max_time=60 * minutes * share,
                data_dir=data_dir,
                name=name,
                force=True,
                registry=registry,
            )
            rows.append(_row(registry, name, minutes * share, data_dir, count))
            sheet.append(_digits(registry, name))
    print(about_this_machine(), flush=True)
    print(
        markdown(
            ["model", "training", "NFE", "label accuracy", "ratio", "recall, coverage", "images/s"], map(_cells, rows)
        )
    )
    SHEET.write_bytes(png(labelled_grid(sheet, [[row.name] + [""] * (SEEDS - 1) for row in rows], UPSCALE), None))
    print(f"\n{SHEET}: {SEEDS} digits of each model in a row, from the same noise")


def _plan(teacher: str) -> list[tuple[str, str, int, float]]:
    """Names of students and their teachers, steps and share of the time: one step in two ways."""
    four, two, one = (f"{teacher}-{steps}" for steps in (4, 2, 1))
    return [(four, teacher, 4, 1.0), (two, four, 2, 0.5), (one, two, 1, 0.5), (f"{one}-direct", teacher, 1, 0.5)]


def _cells(row: Row) -> list[str]:
    found, ratio = row.metrics, row.metrics.frechet.ratio
    spread = f"{found.diversity.recall:.2f}, {found.diversity.coverage:.2f}" if found.diversity else "-"
    return [
        row.name,
        f"{row.minutes:g} min",
        str(row.nfe),
        f"{found.accuracy:.2%}",
        "-" if ratio is None else f"{ratio:.2f}",
        spread,
        f"{row.images_per_second:,.0f}",
    ]


def _row(registry: Registry, name: str, minutes: float, data_dir: Path, count: int) -> Row:
    (result,) = ddpmctl.evaluate(registry.open(name), n=count, data_dir=data_dir).results
    return Row(name, minutes, result.metrics, result.nfe, result.images_per_second)


def _digits(registry: Registry, name: str) -> list[Images]:
    return list(ddpmctl.Engine(registry.open(name)).generate([k % 10 for k in range(SEEDS)], seed=0))
