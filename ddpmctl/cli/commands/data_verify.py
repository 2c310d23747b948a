"""``ddpmctl data verify``."""

import os

import typer

from ddpmctl import plugins
from ddpmctl.cli.options import DataDir, DatasetOrFolder, Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.cli.shards import has_shards, verify_shards
from ddpmctl.data import DATASETS, OWN
from ddpmctl.data.catalogue import verify_dataset
from ddpmctl.errors import ExitCode
from ddpmctl.paths import expand_home


def verify(
    name: DatasetOrFolder = "mnist", data_dir: DataDir = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Read a complete dataset and list unused files; exits with 1 if there are any.

    Example: ddpmctl data verify strokes

    For the output of generate --all, verify that every image is present exactly once and intact.
    """
    out = Output("data verify", as_json=as_json, quiet=quiet)
    datasets = (*DATASETS, *plugins.available(plugins.DATASETS))
    folder = expand_home(name)
    # An isdir that returns False, and does not raise, for text that cannot be a path.
    if name.partition(":")[0] not in datasets and os.path.isdir(folder):  # noqa: PTH112
        if has_shards(folder):
            record, summary, problems = verify_shards(folder)
            _report(out, record, [summary], problems)
            return
        name = f"{OWN}:{name}"
    found = verify_dataset(name, data_dir)
    record = {"name": found.name, "images": found.images, "digest": found.digest}
    record |= {} if found.test_images is None else {"test_images": found.test_images}
    record |= {"problems": found.problems, "notes": found.notes}
    _report(out, record, [found.summary, *found.notes], found.problems)


def _report(out: Output, record: dict[str, object], about: list[str], problems: list[str]) -> None:
    """Print the result of a verification, one line each; problems end the command with exit code 1."""
    if out.as_json:
        out.result(record)
    else:  # not as one renderable, which would be wrapped at the width of the terminal
        out.result(record, bare=problems if out.quiet else [*about, *problems])
    if problems:
        raise typer.Exit(ExitCode.FAILED)
