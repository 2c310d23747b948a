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


def run_interactive(
    out: Output,
    sampling: SamplingArguments,
    request: "SamplingRequest",
    enlargement: "Enlargement",
    count: int,
    output: Path | None,
    show: bool | None,
) -> None:
    """Generate the labels of each typed line; seeds continue from the previous line."""
    from ddpmctl.sampling.files import is_folder, plan_files, save_images

    if output is not None and not is_folder(output):
        raise UsageError(f"--interactive writes one file per image, and {output} is not a folder", "-o FOLDER/")
    classes = request.checkpoint.manifest.classes
    engine, request = sampling.load(out, request)

    prompts = sys.stdin.isatty()
    if prompts:
        more = ", .." if len(classes) > MAX_NAMES else ""
        out.note(f"labels: {', '.join(classes[:MAX_NAMES])}{more}\nan empty line quits")
    generated = failed = 0
    for line in _lines(out, prompts):
        started = time.perf_counter()
        try:
            labels = [label for label in line.split() for _ in range(count)]
            varied = request.variation
            one = engine.request(labels, request.seed + generated, variation=varied, **request.options)
            enlargement.check(engine.config.model, len(labels))
            paths = plan_files(output, one)
            samples = engine.run(one)
            save_images(paths, enlargement.apply(samples), one, enlargement)
        except UsageError as error:
            failed += 1
            failure = describe(error)
            print_error(failure.message, failure.hint)
            continue
        generated += len(labels)
        draw(out, samples, show)
        out.result({}, bare=[str(path) for path in paths])
        out.note(f"{time.perf_counter() - started:.2f} s")
    if failed and not prompts:
        lines = f"{failed} line{'' if failed == 1 else 's'}"
        raise DdpmctlError(f"{lines} failed", "see the errors above")


def _lines(out: Output, prompts: bool) -> Iterator[str]:
    while True:
        try:
            # Piped input needs no prompt.
            line = (out.stderr.input("label> ") if prompts else sys.stdin.readline()).strip()
        except EOFError:
            out.note("")
            return
        if line.casefold() in ENDINGS:
            return
        yield line
