"""``generate``: images of some labels as files, from a request, or an image to reproduce."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl.cli.interactive import run_interactive
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import SamplingArguments, steps_bar
from ddpmctl.cli.streams import stdout_is_closed, written_to_stdout
from ddpmctl.cli.terminal_images import draw
from ddpmctl.errors import UsageError
from ddpmctl.registry import open_model
from ddpmctl.sampling.variation import Variation, parse_mix

if TYPE_CHECKING:
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.reproduce import ReproductionTarget
    from ddpmctl.sampling.request import SamplingRequest

STDOUT = Path("-")
MAX_COUNT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageArguments:
    """The options of ``generate`` other than those of sampling, as they were typed."""

    labels: list[str]
    count: int
    upscale: int | None
    interpolation: str | None
    output: Path | None
    like: Path | None
    show: bool | None
    mix: list[str]


def generate_images(out: Output, sampling: SamplingArguments, options: ImageArguments, *, interactive: bool) -> None:
    """Sample the images of a request, of an image to reproduce, or of typed lines."""
    if not 1 <= options.count <= MAX_COUNT:
        raise UsageError(f"the count {options.count} is out of range", f"-n must be in 1..{MAX_COUNT}")
    if options.output == STDOUT and out.as_json:
        raise UsageError("-o - and --json both write to stdout", "use only one of them")
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.reproduce import ReproductionTarget

    target = ReproductionTarget.read(options.like) if options.like else None
    if not options.labels and not target and not interactive:
        raise UsageError("missing argument LABEL", "ddpmctl generate 8, or ddpmctl generate --like IMAGE")
    if target and sampling.seed is None:
        sampling = replace(sampling, seed=target.provenance.seed)
    checkpoint = target.find_checkpoint() if target and not sampling.model else open_model(sampling.model)
    variation = Variation(mix=parse_mix(options.mix, checkpoint.manifest.classes))
    labels = [label for label in options.labels for _ in range(options.count)]
    request = sampling.request(checkpoint, labels, target, variation)
    default = (target.provenance.upscale, target.provenance.interpolation) if target else (1, "cubic")
    factor = default[0] if options.upscale is None else options.upscale
    enlargement = Enlargement(factor, options.interpolation or default[1])
    if not interactive:
        write_images(out, sampling, request, enlargement, options.output, options.show, target)
        return
    if options.labels or target or out.as_json:
        raise UsageError(
            "--interactive cannot be combined with labels, --like or --json", "ddpmctl generate --interactive"
        )

    run_interactive(out, sampling, request, enlargement, options.count, options.output, options.show)


def write_images(
    out: Output,
    sampling: SamplingArguments,
    request: "SamplingRequest",
    enlargement: "Enlargement",
    output: Path | None,
    show: bool | None,
    target: "ReproductionTarget | None" = None,
) -> None:
    """Sample, write and report the images of a request, and compare them with those to reproduce."""
    from ddpmctl.imaging.files import free_path
    from ddpmctl.sampling.files import plan_files, save_images

    if output is None and target and target.provenance.kind == "images":
        output = free_path(Path("images.npz"))
    enlargement.check(request.checkpoint.manifest.config.model, len(request.labels))
    if output == STDOUT:
        _check_stdout(len(request.labels))
    paths = [STDOUT] if output == STDOUT else plan_files(output, request)
    engine, request = sampling.load(out, request)
    with steps_bar(out, engine.step_count(request) * len(request.labels)) as on_step:
        samples = engine.run(request, on_step)
    images = enlargement.apply(samples)
    if output == STDOUT:
        _write_to_stdout(images, request, enlargement)
    else:
        save_images(paths, images, request, enlargement)
    draw(out, samples, show)
    same = _compare(out, target, request, enlargement, images) if target else None
    if output != STDOUT:
        files = [str(path) for path in paths]
        record = {**request.to_dict(), "upscale": enlargement.factor, "files": files, "images": _records(request)}
        out.result({**record, "like": {"file": str(target.path), "same": same}} if target else record, bare=files)


def _records(request: "SamplingRequest") -> list[dict[str, object]]:
    pairs = zip(request.labels, request.classes, strict=True)
    return [{"label": label, "class": name, "seed": request.seed + k} for k, (label, name) in enumerate(pairs)]


def _compare(
    out: Output,
    target: "ReproductionTarget",
    request: "SamplingRequest",
    enlargement: "Enlargement",
    images: "Images",
) -> bool | None:
    """Whether an image was reproduced bit for bit; None if the request differs."""
    apart = target.difference(images) if target.matches_request(request, enlargement.factor) else None
    if apart is None:
        return None
    if apart:
        before = target.provenance
        versions = ", ".join(f"{name} {version}" for name, version in before.versions.items())
        out.warn(
            f"not identical to {target.path}: differs by up to {apart} grey levels; the original was generated "
            f"on {before.device} in {before.precision} with {versions}"
        )
    else:
        out.note(f"identical to {target.path}, bit for bit")
    return not apart


def _check_stdout(count: int) -> None:
    if count > 1:
        raise UsageError(f"only one image can be written to stdout, not {count}", "-o images.npz stores any number")
    if stdout_is_closed():
        raise UsageError("stdout is closed", "write to a file with -o")
    if sys.stdout.isatty():
        raise UsageError("a terminal cannot show the bytes of a PNG", "redirect stdout, or write to a file with -o")


def _write_to_stdout(images: "Images", request: "SamplingRequest", enlargement: "Enlargement") -> None:
    from ddpmctl.imaging.files import png
    from ddpmctl.sampling.files import image_provenance

    with written_to_stdout():
        sys.stdout.buffer.write(png(images[0], image_provenance(request, enlargement)))
