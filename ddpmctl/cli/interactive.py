"""``ddpmctl generate --interactive``: one model in memory, one label after the other."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl.cli.failures import describe
from ddpmctl.cli.output import Output, print_error
from ddpmctl.cli.sampling import SamplingArguments
from ddpmctl.cli.terminal_images import draw
from ddpmctl.errors import DdpmctlError, UsageError

if TYPE_CHECKING:
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.request import SamplingRequest

ENDINGS = ("", "quit", "exit")
MAX_NAMES = 30


def converse(
    out: Output,
    sampling: SamplingArguments,
    request: "SamplingRequest",
    enlargement: "Enlargement",
    count: int,
    output: Path | None,
    show: bool | None,
) -> None:
    """Make the labels that are typed, each line from the seeds after those of the line before."""
    from ddpmctl.sampling.files import is_folder, plan_files, save_images

    if output is not None and not is_folder(output):
        raise UsageError(f"--interactive makes a file for each image, and {output} is not a folder", "-o FOLDER/")
    classes = request.checkpoint.manifest.classes
    engine, request = sampling.load(out, request)

    prompts = sys.stdin.isatty()
    if prompts:
        more = ", .." if len(classes) > MAX_NAMES else ""
        out.note(f"labels: {', '.join(classes[:MAX_NAMES])}{more}\nan empty line ends")
    made = refused = 0
    for line in _lines(out, prompts):
        started = time.perf_counter()
        try:
            labels = [label for label in line.split() for _ in range(count)]
            one = engine.request(labels, request.seed + made, **request.options)
            enlargement.check(engine.config.model, len(labels))
            paths = plan_files(output, one)
            samples = engine.run(one)
            save_images(paths, enlargement.apply(samples), one, enlargement)
        except UsageError as error:
            refused += 1
            failure = describe(error)
            print_error(failure.message, failure.hint)
            continue
        made += len(labels)
        draw(out, samples, show)
        out.result({}, bare=[str(path) for path in paths])
        out.note(f"{time.perf_counter() - started:.2f} s")
    if refused and not prompts:
        raise DdpmctlError(f"{refused} of the lines could not be made", "see what is said above of each")


def _lines(out: Output, prompts: bool) -> Iterator[str]:
    while True:
        try:
            # The prompt is for people; what is piped in needs none.
            line = (out.stderr.input("label> ") if prompts else sys.stdin.readline()).strip()
        except EOFError:
            out.note("")
            return
        if line.casefold() in ENDINGS:
            return
        yield line
