"""``ddpmctl lessons``."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ddpmctl.cli import options
from ddpmctl.cli.output import Output, encodes, task_bars
from ddpmctl.config import choose
from ddpmctl.data import find_loader
from ddpmctl.durations import parse_duration
from ddpmctl.errors import Interrupted
from ddpmctl.lessons.result import LESSONS, PAGE, Result
from ddpmctl.paths import check_folder
from ddpmctl.training.run_spec import RunSpec

FOLDER = Path("ddpmctl-lessons")


def lessons(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help=f"Lessons: {', '.join(LESSONS)}.", show_default="all")
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="<duration>", help="Training time per network, such as 60s or 5m.")
    ] = "60s",
    count: Annotated[int, typer.Option("-n", "--count", min=50, max=100_000, help="Images per metric.")] = 500,
    output: options.FolderOutput = FOLDER,
    dataset: options.Dataset = "mnist",
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Reproduce three classic mistakes and compare them with their fixes.

    Example: ddpmctl lessons range --budget 30s

    All three take up to fifteen minutes on two CPU cores. Ctrl-C keeps the finished lessons.
    """
    out = Output("lessons", as_json=as_json, quiet=quiet)
    chosen = [name for name in LESSONS if name in {choose("lesson", name, LESSONS) for name in names or LESSONS}]
    seconds = parse_duration(budget)
    spec = RunSpec(dataset=dataset, data_dir=data_dir, device=device, precision=precision, seed=seed).checked()
    find_loader(spec.dataset)
    check_folder(output)
    # Imported late: importing torch takes a second.
    from ddpmctl.lessons.runner import run_lessons

    results: list[Result] = []
    try:
        with task_bars(out) as bars:
            for result in run_lessons(chosen, output, spec, budget=seconds, count=count, progress=_noting(out, bars)):
                results.append(result)
                out.note(f"{result.lesson}: {_status(result)}. {result.verdict}")
    except KeyboardInterrupt:
        done = [result.lesson for result in results]
        left = " ".join(name for name in chosen if name not in done)
        saved = f"saved in {output}: {', '.join(done)}" if done else "no lesson finished"
        raise Interrupted(
            f"interrupted; {saved}", f"run the remaining lessons: ddpmctl lessons {left} -o {output}"
        ) from None
    page = str(output / PAGE)
    parts = [part for result in results for part in _rendered(out, output, result)]
    data = {"page": page, "lessons": [result.to_dict() for result in results]}
    out.result(data, Group(*parts, f"\nreport: {page}"), bare=[page])


def _noting(out: Output, bars: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """The progress of a task as a bar, or if none is drawn, as a line when it starts."""

    def progress(task: str, done: int, total: int) -> None:
        if done == 0 and not out.animated:
            out.note(f"{task}: {total:,} steps")
        bars(task, done, total)

    return progress


def _status(result: Result) -> str:
    return "reproduced" if result.reproduced else "not reproduced"


def _rendered(out: Output, folder: Path, result: Result) -> Iterator[RenderableType]:
    """A lesson for the terminal."""
    from ddpmctl.cli.terminal import curve

    yield Text(f"\n{result.title} ({result.lesson})", style="bold")
    yield f"mistake: {result.trap}\nfix: {result.fix}\nclaim: {result.claim}"
    yield Text(f"{_status(result)}: {result.verdict}\n", style="bold")
    if out.stdout.is_terminal:
        yield _sheet(out, folder, result)
    for paragraph in result.why:
        yield f"{paragraph}\n"
    yield f"{result.formula}\n"
    for table in result.tables:
        drawn = Table(*table.columns, title=table.title, title_justify="left", title_style="bold", box=None)
        for row in table.rows:
            drawn.add_row(*row)
        yield drawn
        yield f"{table.note}\n"
    for network in result.networks[:2]:
        for what, values in (("loss", network.losses), ("gradient norm", network.gradients)):
            if values:
                yield f"{what} of '{network.name}', {network.role}, over {network.steps:,} steps:"
                plain = not encodes(out.stdout, "\u2800")
                yield Text(curve(list(values), rows=4, plain=plain), no_wrap=True)
    yield f"figures: {', '.join(str(folder / picture.file) for picture in result.pictures)}"
    yield f"samples: ddpmctl grid --model {folder / 'models' / result.networks[0].name}"


def _sheet(out: Output, folder: Path, result: Result) -> RenderableType:
    import numpy as np
    from PIL import Image

    from ddpmctl.cli.terminal import to_characters

    with Image.open(folder / result.pictures[0].file) as image:
        pixels = np.asarray(image)
    return to_characters(pixels, out.stdout.width, colour=out.stdout.color_system == "truecolor")
