"""``ddpmctl data``: the images there are to learn from."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ddpmctl import plugins
from ddpmctl.cli.commands.train import own_images
from ddpmctl.cli.options import DataDir, DatasetArgument, DatasetOrFolder, Json, Quiet, SheetOutput, Show, Upscale
from ddpmctl.cli.output import Output
from ddpmctl.cli.shards import holds_shards, verify_shards
from ddpmctl.cli.terminal_images import draw, warn_of_boxes
from ddpmctl.config import IMAGE_SIZES, choose
from ddpmctl.data import DATASETS, OWN, find_loader, load_dataset
from ddpmctl.data.report import LoadReport, counted
from ddpmctl.errors import DataError, ExitCode, UsageError
from ddpmctl.paths import expand_home

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset
    from ddpmctl.data.mnist import Source
    from ddpmctl.imaging.upscale import Images

app = typer.Typer(
    help="List, download, verify and show datasets.\n\nExample: ddpmctl data",
    invoke_without_command=True,
    add_completion=False,
)

ROWS = 5
"""Images of each class on a sheet."""

WIDEST = 10
"""Classes side by side on a sheet."""

VERIFIED_SIZE = 32


@app.callback()
def data(context: typer.Context, data_dir: DataDir = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the datasets.

    Example: ddpmctl data
    """
    if context.invoked_subcommand is None:
        show_all(data_dir, as_json, quiet)


@app.command("ls")
def ls(data_dir: DataDir = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the datasets, with their folders and whether they are complete.

    Example: ddpmctl data ls --json
    """
    show_all(data_dir, as_json, quiet)


@app.command("fetch")
def fetch(name: DatasetArgument = "mnist", as_json: Json = False, quiet: Quiet = False) -> None:
    """Download a dataset into the cache.

    Example: ddpmctl data fetch mnist
    """
    from ddpmctl.data.mnist import cached_root, download, is_whole

    out = Output("data fetch", as_json=as_json, quiet=quiet)
    source = _downloadable(name)
    root = cached_root()
    if is_whole(root, source):
        out.note(f"{source.title} is there already")
    else:
        out.note(f"downloading {source.title} into {root}")
        download(root, source)
    path = root / source.title
    out.result({"name": name, "path": str(path)}, bare=[str(path)])


@app.command("verify")
def verify(
    name: DatasetOrFolder = "mnist", data_dir: DataDir = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Read a whole dataset and list files that are not used; exits with 1 if there are any.

    Example: ddpmctl data verify strokes

    For a folder of generate --all, verify that every image is present once and correct.
    """
    out = Output("data verify", as_json=as_json, quiet=quiet)
    datasets = (*DATASETS, *plugins.available(plugins.DATASETS))
    folder = expand_home(name)
    # An isdir that returns False, and does not raise, for text that cannot be a path.
    if name.partition(":")[0] not in datasets and os.path.isdir(folder):  # noqa: PTH112
        if holds_shards(folder):
            found, words, problems = verify_shards(folder)
            _report(out, found, [words], problems)
            return
        name = f"{OWN}:{name}"
    name, fit, _ = own_images(name, None, None, "ddpmctl data verify")
    report = LoadReport()
    loaded = load_dataset(name, VERIFIED_SIZE, data_dir, fit=fit, report=report)
    record: dict[str, Any] = {"name": name, "images": len(loaded), "digest": loaded.digest()}
    size = counted(len(loaded), "image", "images")
    if name.startswith(f"{OWN}:"):  # the other part holds files of the user too
        record["test_images"] = _count_test_images(name, fit, int(loaded.images.shape[1]), report)
        size = counted(len(loaded), "training image", "training images")
        size += f" and {counted(record['test_images'], 'test image', 'test images')}"
    words = f"{name}: {size} of {counted(len(loaded.classes), 'class', 'classes')}, digest {record['digest']}"
    problems, notes = report.unused_lines(), report.notes()
    _report(out, {**record, "problems": problems, "notes": notes}, [words, *notes], problems)


def _count_test_images(name: str, fit: str, channels: int, report: LoadReport) -> int:
    try:
        return len(load_dataset(name, VERIFIED_SIZE, train=False, fit=fit, channels=channels, report=report))
    except DataError as error:
        report.remark(error.message)
        return 0


def _report(out: Output, record: dict[str, Any], about: list[str], problems: list[str]) -> None:
    """Print the result of a verification, one line each; problems end the command with exit code 1."""
    if out.as_json:
        out.result(record)
    else:  # not as one renderable, which would be wrapped at the width of the terminal
        out.result(record, bare=problems if out.quiet else [*about, *problems])
    if problems:
        raise typer.Exit(ExitCode.FAILED)


@app.command("show")
def show_sheet(
    name: DatasetArgument = "mnist",
    output: SheetOutput = None,
    image_size: Annotated[str, typer.Option(metavar="<32|64>", help="Side of the images in pixels.")] = "32",
    upscale: Upscale = 2,
    show: Show = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a sheet of real images, preprocessed as in training.

    Example: ddpmctl data show strokes -o strokes.png
    """
    out = Output("data show", as_json=as_json, quiet=quiet)
    name, fit, _ = own_images(name, None, None, "ddpmctl data show")
    side = int(choose("image size", image_size, IMAGE_SIZES))
    from ddpmctl.imaging.files import check_target, free_path, png, write_whole
    from ddpmctl.imaging.sheet import labelled_sheet
    from ddpmctl.imaging.upscale import check_upscale

    kind = name.partition(":")[0]
    path = output or free_path(Path(f"{kind}.png"))
    check_target(path, [".png"])
    loaded = load_dataset(name, side, data_dir, fit=fit, notice=out.warn)
    check_upscale(upscale, "nearest", ROWS * len(loaded.classes), side, int(loaded.images.shape[1]))
    warn_of_boxes(out, loaded.classes)
    rows, titles = _sheet(out, loaded)
    write_whole(path, png(labelled_sheet(rows, titles, upscale)))
    record = {"name": name, "images": len(loaded), "classes": list(loaded.classes), "files": [str(path)]}
    draw(out, [image for row in rows for image in row], show)
    out.note(f"{len(loaded):,} images of {len(loaded.classes)} classes")
    out.result(record, bare=[str(path)])


def _sheet(out: Output, loaded: "Dataset") -> "tuple[list[list[Images]], list[list[str]]]":
    """Rows of images of each class, and the titles of each row."""
    from ddpmctl.sampling.loop import channels_last_pixels

    by_class = [(loaded.labels == label).nonzero()[:ROWS, 0].tolist() for label in range(len(loaded.classes))]
    if empty := [name for name, ids in zip(loaded.classes, by_class, strict=True) if not ids]:
        out.warn(f"{loaded.name} has no images of: {', '.join(empty)}")
    present = [label for label, ids in enumerate(by_class) if ids]
    rows, titles = [], []
    for start in range(0, len(present), WIDEST):
        shown = present[start : start + WIDEST]
        for row in range(ROWS):
            # A class of few images repeats them.
            ids = [by_class[label][row % len(by_class[label])] for label in shown]
            rows.append(list(channels_last_pixels(loaded.images[ids])))
            titles.append([loaded.classes[label] for label in shown] if row == 0 else [])
    return rows, titles


def show_all(data_dir: Path | None, as_json: bool, quiet: bool) -> None:
    """Print a row a dataset."""
    out = Output("data", as_json=as_json, quiet=quiet)
    ways = {
        "strokes": ("drawn in code", "always whole"),
        OWN: ("folder:PATH", "pictures of your own, one folder per class"),
    }
    added = plugins.available(plugins.DATASETS)
    rows = []
    for name in [*DATASETS, *added]:
        if name in ways:
            place, state = ways[name]
        elif name in added:
            place, state = f"the plugin {added[name].distribution}", "not looked at"
        else:
            place, state = _state(_downloadable(name), data_dir)
        rows.append({"name": name, "place": place, "state": state})
    table = Table("name", "where", "state", box=None)
    for row in rows:
        table.add_row(*row.values())
    out.result({"datasets": rows}, table, bare=[row["name"] for row in rows])


def _state(source: "Source", data_dir: Path | None) -> tuple[str, str]:
    """Where files are looked for, and what is found there."""
    from ddpmctl.data.mnist import cached_root, check_whole

    root = data_dir or cached_root()
    try:
        check_whole(root, source)
    except DataError as error:
        lacking = data_dir is None and not (root / source.title).exists()
        return str(root), f"not here: ddpmctl data fetch {source.name}" if lacking else error.message
    return str(root), "whole"


def _downloadable(name: str) -> "Source":
    """What can be fetched.

    Raises:
        UsageError: for what cannot.
    """
    from ddpmctl.data.mnist import FASHION, MNIST

    sources: dict[str, Any] = {source.name: source for source in (MNIST, FASHION)}
    find_loader(name, "ddpmctl data verify")
    if name not in sources:
        raise UsageError(f"{name} is not downloaded", f"one of: {', '.join(sources)}")
    found: Source = sources[name]
    return found
