"""``ddpmctl generate``."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmctl.cli import options
from ddpmctl.cli.interactive import converse
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import SamplingArguments, open_model, steps_bar
from ddpmctl.cli.shards import ShardArguments, generate_shards
from ddpmctl.cli.streams import stdout_is_closed, written_to_stdout
from ddpmctl.cli.terminal_images import draw
from ddpmctl.errors import UsageError

if TYPE_CHECKING:
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.reproduce import ReproductionTarget
    from ddpmctl.sampling.request import SamplingRequest

STDOUT = Path("-")
MAX_COUNT = 1_000_000


def generate(
    labels: options.Labels = None,
    count: options.Count = None,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    like: options.Like = None,
    interactive: options.Interactive = False,
    every_class: options.All = False,
    shard_size: options.ShardSize = None,
    batch_size: options.BatchSize = None,
    share: options.Share = None,
    output: options.ImagesOutput = None,
    upscale: options.UpscaleOrNone = None,
    interpolation: options.InterpolationOrNone = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Generate images of the classes you name.

    Example: ddpmctl generate 8 --upscale 4 -o eight.png

    Image k of a request is generated from seed + k, so each can be reproduced alone.

    Show how a picture was generated: ddpmctl inspect eight.png

    Generate it again: ddpmctl generate --like eight.png

    Keep the model loaded and ask for labels: ddpmctl generate --interactive

    Generate many images as shards, in any number of processes: ddpmctl generate --all -n 1000 -o images
    """
    out = Output("generate", as_json=as_json, quiet=quiet)
    sampling = SamplingArguments(
        model=model, sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed,
        device=device, precision=precision,
    )  # fmt: skip
    sharded = ShardArguments(output=output, count=count, shard_size=shard_size, batch_size=batch_size, share=share)
    if every_class:
        unused = {"labels": labels, "like": like, "interactive": interactive, "upscale": upscale}
        generate_shards(out, sharded, sampling, {**unused, "interpolation": interpolation, "show": show})
        return
    sharded.check_unused()
    count = 1 if count is None else count
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"a count of {count} is out of range", f"-n 1..{MAX_COUNT}")
    if output == STDOUT and as_json:
        raise UsageError("-o - and --json both want stdout", "choose one of them")
    from ddpmctl.sampling.files import Enlargement
    from ddpmctl.sampling.reproduce import ReproductionTarget

    target = ReproductionTarget.read(like) if like else None
    if not labels and not target and not interactive:
        raise UsageError("no label was given", "ddpmctl generate 8, or ddpmctl generate --like PICTURE")
    if target and seed is None:
        sampling = replace(sampling, seed=target.provenance.seed)
    checkpoint = None if target and not model else open_model(out, model)
    request = sampling.request(checkpoint, [label for label in labels or [] for _ in range(count)], target)
    usual = (target.provenance.upscale, target.provenance.interpolation) if target else (1, "cubic")
    enlargement = Enlargement(usual[0] if upscale is None else upscale, interpolation or usual[1])
    if interactive:
        if labels or target or as_json:
            raise UsageError("--interactive asks for labels itself", "ddpmctl generate --interactive, without them")
        converse(out, sampling, request, enlargement, count, output, show)
        return
    _generate(out, sampling, request, enlargement, output, target, show)


def _generate(
    out: Output,
    sampling: SamplingArguments,
    request: "SamplingRequest",
    enlargement: "Enlargement",
    output: Path | None,
    target: "ReproductionTarget | None",
    show: bool | None,
) -> None:
    """Sample, write and report, and compare with the picture that is to be made again."""
    from ddpmctl.imaging.files import free_path
    from ddpmctl.sampling.files import plan_files, save_images

    if output is None and target and target.provenance.kind == "images":
        output = free_path(Path("images.npz"))
    enlargement.check(request.checkpoint.manifest.config.model, len(request.labels))
    if output == STDOUT:
        _check_stdout(len(request.labels))
    paths = [STDOUT] if output == STDOUT else plan_files(output, request)
    engine, request = sampling.load(out, request)
    with steps_bar(out, request.sampling.steps * len(request.labels)) as on_step:
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


def _records(request: "SamplingRequest") -> list[dict[str, Any]]:
    pairs = zip(request.labels, request.classes, strict=True)
    return [{"label": label, "class": name, "seed": request.seed + k} for k, (label, name) in enumerate(pairs)]


def _compare(
    out: Output,
    target: "ReproductionTarget",
    request: "SamplingRequest",
    enlargement: "Enlargement",
    images: "Images",
) -> bool | None:
    """Say whether a picture was reproduced bit for bit; None where another one was asked for."""
    apart = target.difference(images) if target.is_repeated_by(request, enlargement.factor) else None
    if apart is None:
        return None
    if apart:
        before = target.provenance
        versions = ", ".join(f"{name} {version}" for name, version in before.versions.items())
        out.warn(
            f"not bit for bit as {target.path}: up to {apart} grey levels apart; it was made on {before.device} "
            f"in {before.precision} by {versions}"
        )
    else:
        out.note(f"bit for bit as {target.path}")
    return not apart


def _check_stdout(count: int) -> None:
    if count > 1:
        raise UsageError(f"stdout takes one image, not {count}", "-o images.npz holds any number")
    if stdout_is_closed():
        raise UsageError("stdout is closed", "name a file with -o")
    if sys.stdout.isatty():
        raise UsageError("a terminal cannot show the bytes of a PNG", "pipe them on, or name a file with -o")


def _write_to_stdout(images: "Images", request: "SamplingRequest", enlargement: "Enlargement") -> None:
    from ddpmctl.imaging.files import png
    from ddpmctl.sampling.files import image_provenance

    with written_to_stdout():
        sys.stdout.buffer.write(png(images[0], image_provenance(request, enlargement)))
