"""``ddpmctl lessons``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ddpmctl.cli import options
from ddpmctl.cli.formatting import parse_duration, words
from ddpmctl.cli.output import Output, encodes
from ddpmctl.config import choose, load_preset
from ddpmctl.data import OWN, find_loader, load_dataset
from ddpmctl.errors import DataError, DdpmctlError, Interrupted, UsageError
from ddpmctl.lessons.findings import NAMES, Finding
from ddpmctl.paths import check_folder
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.runs import fit_to_dataset

if TYPE_CHECKING:
    from ddpmctl.lessons.workshop import Workshop

FOLDER = Path("ddpmctl-lessons")
PAGE = "lessons.html"
PRESET = "quick"
"""What all networks begin from, small and fast; but for its target, which is the noise: the first lesson's fix."""

NETWORKS = {"one-shot": 1.0, "range": 1.0, "batchnorm": 1.0 + 6 * 0.5}
"""Budgets that a lesson takes beside the one of the fix."""


def lessons(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help=f"Lessons: {', '.join(NAMES)}.", show_default="all")
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
    """Reproduce three classic mistakes beside their fixes.

    Example: ddpmctl lessons range --budget 30s

    All three take up to fifteen minutes on two CPU cores. Ctrl-C keeps the finished lessons.
    """
    out = Output("lessons", as_json=as_json, quiet=quiet)
    chosen = [name for name in NAMES if name in {choose("lesson", name, NAMES) for name in names or NAMES}]
    seconds = parse_duration(budget)
    if not 50 <= count <= 100_000:
        raise UsageError(f"{count} images cannot be judged", "-n 50..100000")
    RunSpec(device=device, precision=precision, seed=seed).checked()
    find_loader(dataset)
    check_folder(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DdpmctlError(f"cannot make the folder {output}: {error.strerror}", "-o with a folder of yours") from error
    training = seconds * (1 + sum(NETWORKS[name] for name in chosen))
    out.note(f"{', '.join(chosen)}: {words(training)} of training, and some to look at what came of it")

    done: list[str] = []
    try:
        shop = open_workshop(out, output, dataset, data_dir, device, precision, seed, seconds, count)
        for name in chosen:
            finding = teach(shop, name)
            keep(out, output, finding)
            done.append(name)
            out.note(f"{name}: {'reproduced' if finding.reproduced else 'not reproduced'}. {finding.verdict}")
    except KeyboardInterrupt:
        left = " ".join(name for name in chosen if name not in done)
        kept = f"kept in {output}: {', '.join(done)}" if done else "no lesson was done yet"
        raise Interrupted(f"interrupted; {kept}", f"the others: ddpmctl lessons {left} -o {output}") from None
    page = str(output / PAGE)
    findings = [Finding.read(output / f"{name}.json") for name in chosen]
    data = {"page": page, "lessons": [finding.to_dict() for finding in findings]}
    parts: list[RenderableType] = [part for finding in findings for part in told(out, output, finding)]
    out.result(data, Group(*parts, f"\nall of it as a page: {page}"), bare=[page])


def open_workshop(
    out: Output,
    folder: Path,
    dataset: str,
    data_dir: Path | None,
    device: str,
    precision: str,
    seed: int,
    budget: float,
    count: int,
) -> "Workshop":
    """Load what all lessons need: the images, a reader of them where one is to be had, and the settings."""
    from ddpmctl.devices import choose_device, choose_precision
    from ddpmctl.lessons.figures import Judge
    from ddpmctl.lessons.workshop import Workshop
    from ddpmctl.training.execution import Execution

    where = choose_device(device)
    preset = load_preset(PRESET).config
    size = preset.model.image_size
    about = RunSpec(preset=PRESET, dataset=dataset, device=device, precision=precision, seed=seed).checked()
    dataset, fit = about.dataset, about.fit or ""
    data = load_dataset(dataset, size, data_dir, fit=fit, notice=out.warn)
    channels = int(data.images.shape[1]) if dataset.startswith(f"{OWN}:") else None
    test = load_dataset(dataset, size, data_dir, train=False, fit=fit, channels=channels)
    base = fit_to_dataset(replace(preset, diffusion=replace(preset.diffusion, parameterization="epsilon")), data)
    finely, _ = choose_precision(precision, where)
    execution = Execution(device=where, precision=finely)
    teller = _Teller(out)
    with teller.progress("training the classifier", 0) as progress:
        judge = Judge(data, test, where, lambda done, total: progress(done))
    out.note(f"labels are read by {judge.name}")
    return Workshop(folder, base, data, about, execution, budget, count, judge, teller)


def teach(shop: "Workshop", name: str) -> Finding:
    """Teach one lesson."""
    from ddpmctl.lessons import batchnorm, one_shot, pixel_range

    ways = {"one-shot": one_shot.teach, "range": pixel_range.teach, "batchnorm": batchnorm.teach}
    return ways[name](shop)


def keep(out: Output, folder: Path, finding: Finding) -> None:
    """Write a lesson down, and the page of all lessons that the folder holds."""
    import json

    from ddpmctl.imaging.files import write_whole
    from ddpmctl.lessons.page import page

    write_whole(folder / f"{finding.lesson}.json", json.dumps(finding.to_dict(), indent=2).encode())
    findings = []
    for name in NAMES:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        try:
            found = Finding.read(path)
            page([found], folder)
        except (DataError, OSError) as error:
            out.warn(f"the page leaves {name} out: {error}")
            continue
        findings.append(found)
    write_whole(folder / PAGE, page(findings, folder).encode())


def told(out: Output, folder: Path, finding: Finding) -> Iterator[RenderableType]:
    """A lesson for the terminal."""
    from ddpmctl.cli.terminal import curve

    yield Text(f"\n{finding.title} ({finding.lesson})", style="bold")
    yield f"trap: {finding.trap}\nfix: {finding.fix}\nclaim: {finding.claim}"
    yield Text(f"{'reproduced' if finding.reproduced else 'not reproduced'}: {finding.verdict}\n", style="bold")
    if out.stdout.is_terminal:
        yield _sheet(out, folder, finding)
    for paragraph in finding.why:
        yield f"{paragraph}\n"
    yield f"{finding.formula}\n"
    for table in finding.tables:
        drawn = Table(*table.columns, title=table.title, title_justify="left", title_style="bold", box=None)
        for row in table.rows:
            drawn.add_row(*row)
        yield drawn
        yield f"{table.note}\n"
    for network in finding.networks[:2]:
        for what, values in (("loss", network.losses), ("norm of the gradient", network.gradients)):
            if values:
                yield f"{what} of '{network.name}', {network.role}, over {network.steps:,} steps:"
                plain = not encodes(out.stdout, "\u2800")
                yield Text(curve(list(values), rows=4, plain=plain), no_wrap=True)
    yield f"pictures: {', '.join(str(folder / picture.file) for picture in finding.pictures)}"
    yield f"networks: ddpmctl grid --model {folder / 'models' / finding.networks[0].name}"


def _sheet(out: Output, folder: Path, finding: Finding) -> RenderableType:
    import numpy as np
    from PIL import Image

    from ddpmctl.cli.terminal import picture

    with Image.open(folder / finding.pictures[0].file) as image:
        pixels = np.asarray(image)
    return picture(pixels, out.stdout.width, colour=out.stdout.color_system == "truecolor")


class _Teller:
    """Progress bars and notes of a workshop."""

    def __init__(self, out: Output) -> None:
        self.out = out

    def note(self, words: str) -> None:
        """Say it."""
        self.out.note(words)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal; a line elsewhere. A total of 0 is one that nobody knows."""
        if total and not self.out.animated:
            self.out.note(f"{what}: {total:,} steps")
        with self.out.progress() as bar:
            task = bar.add_task(what, total=total or None)
            yield lambda done: bar.update(task, completed=done)
