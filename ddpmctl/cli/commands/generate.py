"""``ddpmctl generate``."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from ddpmctl.cli import options
from ddpmctl.cli.interactive import ask
from ddpmctl.cli.output import Output
from ddpmctl.cli.provenance import Liked, made_by
from ddpmctl.cli.sampling import Request, label_index, prepare, steps_bar
from ddpmctl.cli.shards import Wanted, make_shards
from ddpmctl.cli.streams import stdout_is_closed, written_to_stdout
from ddpmctl.cli.terminal_images import draw
from ddpmctl.errors import UsageError
from ddpmctl.labels import typed_label
from ddpmctl.paths import FolderPath, check_folder, typed_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.engine import Engine

STDOUT = Path("-")
SUFFIXES = (".png", ".npz")
MAX_COUNT = 1_000_000


Labels = Annotated[list[str] | None, typer.Argument(metavar="LABEL", help="Class names or indices: eight, 8.")]
Count = Annotated[int | None, typer.Option("-n", "--count", metavar="COUNT", help="Images a label; 1.")]
Upscale = Annotated[int | None, typer.Option(metavar="K", help="Enlarge K times with OpenCV.")]
Interpolation = Annotated[
    str | None, typer.Option(metavar="nearest|linear|cubic|lanczos", help="How to enlarge; cubic when not given.")
]
Target = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", parser=typed_output, metavar="PATH", help="x.png, x.npz, a folder/, or - for stdout."
    ),
]
Interactive = Annotated[
    bool, typer.Option("--interactive", "-i", help="Keep the model loaded and ask for one label after the other.")
]


def generate(
    labels: Labels = None,
    count: Count = None,
    every_class: options.All = False,
    shard_size: options.ShardSize = None,
    batch_size: options.BatchSize = None,
    share: options.Share = None,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    seed: options.Seed = None,
    upscale: Upscale = None,
    interpolation: Interpolation = None,
    output: Target = None,
    like: options.Like = None,
    interactive: Interactive = False,
    show: options.Show = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make images of the labels you name.

    Example: ddpmctl generate 8 --upscale 4 -o eight.png

    Image k of the whole request is made from seed + k, so that any one can be made again alone.

    A picture tells how it was made: ddpmctl inspect eight.png; ddpmctl generate --like eight.png makes it again.

    One label after the other, with the model in memory: ddpmctl generate --interactive

    Very many, by as many processes as one likes, each with its share: ddpmctl generate --all -n 1000 -o images
    """
    out = Output("generate", as_json=as_json, quiet=quiet)
    given: dict[str, Any] = {"model": model, "seed": seed, "device": device, "precision": precision}
    given |= {"sampler": sampler, "steps": steps, "guidance": guidance, "interval": guidance_interval}
    sharded = Wanted(output=output, count=count, shard_size=shard_size, batch_size=batch_size, share=share)
    if every_class:
        useless = {"labels": labels, "like": like, "interactive": interactive, "upscale": upscale}
        make_shards(out, sharded, given, {**useless, "interpolation": interpolation, "show": show})
        return
    sharded.see_that_all_is_given()
    count = checked_count(1 if count is None else count)
    if output == STDOUT and as_json:
        raise UsageError("-o - and --json both want stdout", "choose one of them")
    liked = Liked.read(like) if like else None
    if not labels and not liked and not interactive:
        raise UsageError("no label was given", "ddpmctl generate 8, or ddpmctl generate --like PICTURE")
    request = prepare(out, **(liked.completed(given) if liked else given))
    enlarge = Enlargement.of(upscale, interpolation, liked)
    if interactive:
        if labels or liked or as_json:
            raise UsageError("--interactive asks for labels itself", "ddpmctl generate --interactive, without them")
        _converse(out, request, enlarge, count, output, show)
        return
    wanted = wanted_labels(out, request, labels or [], count) or (liked.labels if liked else [])
    _make(out, request, wanted, enlarge, output, liked, show)


def _make(
    out: Output,
    request: Request,
    wanted: list[int],
    enlarge: "Enlargement",
    output: Path | None,
    liked: Liked | None,
    show: bool | None,
) -> None:
    """Make the images, write them, and compare them with the picture that they are to be like."""
    targets = _checked_targets(request, wanted, enlarge, output or (liked.default_file() if liked else None))
    engine = request.load(out)
    made = _sample(out, engine, request, wanted)
    images = enlarge.applied(made)
    _write(targets, images, wanted, request.seed, _recorder(request, engine, len(wanted), enlarge))
    draw(out, made, show)
    comparable = liked and liked.is_asked_for(request, wanted, enlarge.factor)
    same = liked.compare(out, images) if liked and comparable else None
    if output != STDOUT:
        paths = [str(path) for path in targets]
        told = {**request.record(), "upscale": enlarge.factor, "files": paths, "images": _each(request, wanted)}
        out.result({**told, "like": {"file": str(liked.path), "same": same}} if liked else told, bare=paths)


def _converse(
    out: Output, request: Request, enlarge: "Enlargement", count: int, output: Path | None, show: bool | None
) -> None:
    """Make what is typed, each line from the seeds after those of the line before."""
    if output is not None and not _is_folder(output):
        raise UsageError(f"--interactive makes a file for each image, and {output} is not a folder", "-o FOLDER/")
    classes = request.checkpoint.manifest.classes
    engine = request.load(out)
    silent = Output("generate", quiet=True)

    def make(labels: list[str], before: int) -> int:
        one = replace(request, seed=request.seed + before)
        wanted = wanted_labels(out, one, labels, count)
        targets = _checked_targets(one, wanted, enlarge, output)
        made = _sample(silent, engine, one, wanted)
        _write(targets, enlarge.applied(made), wanted, one.seed, _recorder(one, engine, len(wanted), enlarge))
        draw(out, made, show)
        out.result({}, bare=[str(path) for path in targets])
        return len(wanted)

    ask(out, make, ", ".join(classes[:30]) + (", .." if len(classes) > 30 else ""))


def _checked_targets(request: Request, wanted: list[int], enlarge: "Enlargement", output: Path | None) -> list[Path]:
    """Where the images go, once it is seen that they can be made and written."""
    from ddpmctl.imaging.upscale import check_upscale

    shape = request.checkpoint.manifest.config.model
    check_upscale(enlarge.factor, enlarge.how, len(wanted), shape.image_size, shape.channels)
    return plan_files(output, wanted, request.checkpoint.manifest.classes)


@dataclass(frozen=True, slots=True)
class Enlargement:
    """How images are enlarged.

    Attributes:
        factor: how many times; 1 leaves them as they are.
        how: the interpolation.
    """

    factor: int
    how: str

    @classmethod
    def of(cls, factor: int | None, how: str | None, liked: Liked | None) -> Self:
        """What was given, else that of the picture, else none."""
        usual = (liked.made.upscale, liked.made.interpolation) if liked else (1, "cubic")
        return cls(usual[0] if factor is None else factor, usual[1] if how is None else how)

    def applied(self, images: "Images") -> "Images":
        """Enlarge each."""
        if self.factor == 1:
            return images
        import numpy as np

        from ddpmctl.imaging.upscale import upscale

        return np.stack([upscale(image, self.factor, self.how) for image in images])


def checked_count(count: int) -> int:
    """A number of images a label that is one.

    Raises:
        UsageError: when it is not.
    """
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"a count of {count} is out of range", f"-n 1..{MAX_COUNT}")
    return count


def wanted_labels(out: Output, request: Request, labels: list[str], count: int) -> list[int]:
    """Each label so many times, as indices."""
    classes = request.checkpoint.manifest.classes
    return [index for text in labels for index in [label_index(out, text, classes)] * count]


def _each(request: Request, wanted: list[int]) -> list[dict[str, Any]]:
    classes = request.checkpoint.manifest.classes
    return [{"label": index, "class": classes[index], "seed": request.seed + k} for k, index in enumerate(wanted)]


def _recorder(
    request: Request, engine: "Engine", count: int, enlarge: Enlargement
) -> "Callable[[str, list[int], int], Provenance]":
    """Makes the record of a file, from its kind, its labels and the number of its first image."""

    def record(kind: str, shown: list[int], first: int) -> "Provenance":
        classes = request.checkpoint.manifest.classes
        command: list[object] = ["generate", *(typed_label(index, classes) for index in shown)]
        command += ["--interpolation", enlarge.how] if enlarge.factor > 1 else []
        return made_by(
            request, engine, kind, shown, command, seed=request.seed + first, count=count, upscale=enlarge.factor,
            interpolation=enlarge.how,
        )  # fmt: skip

    return record


def plan_files(output: Path | None, wanted: list[int], classes: tuple[str, ...]) -> list[Path]:
    """Where the images go: one archive, one file each, or stdout; checked, but nothing is written yet."""
    from ddpmctl.imaging.files import check_target, free_path, numbered_paths, safe_stem

    if output == STDOUT:
        if len(wanted) > 1:
            raise UsageError(f"stdout takes one image, not {len(wanted)}", "-o images.npz holds any number")
        if stdout_is_closed():
            raise UsageError("stdout is closed", "name a file with -o")
        if sys.stdout.isatty():
            raise UsageError("a terminal cannot show the bytes of a PNG", "pipe them on, or name a file with -o")
        return [STDOUT]
    given = output is not None and not _is_folder(output)
    stem = safe_stem(classes[wanted[0]]) if len(set(wanted)) == 1 else "images"
    path = output if output is not None and given else (output or Path()) / f"{stem}.png"
    if isinstance(output, FolderPath) and not output.is_dir():
        check_folder(output)
        path = Path(path)
    else:
        check_target(path, SUFFIXES)
    if path.suffix.lower() == ".npz":
        return [path]
    if len(wanted) == 1:
        return [path if given else free_path(path)]
    numbered = numbered_paths(path, len(wanted), fresh=not given)
    if path.parent.is_dir():
        check_target(numbered[-1], SUFFIXES)  # the number makes the name longer
    return numbered


def _is_folder(output: Path) -> bool:
    """Whether images go into a folder under default names: it exists, or it was typed with a slash at its end."""
    return isinstance(output, FolderPath) or output.is_dir()


def _sample(out: Output, engine: "Engine", request: Request, wanted: list[int]) -> "Images":
    with steps_bar(out, request.sampling.steps * len(wanted)) as (bar, task):
        return engine.generate(wanted, **request.keywords(), on_step=lambda done: bar.advance(task, done))


def _write(
    targets: list[Path],
    images: "Images",
    wanted: list[int],
    seed: int,
    record: "Callable[[str, list[int], int], Provenance]",
) -> None:
    from ddpmctl.imaging.files import npz, png, write_whole

    if targets != [STDOUT]:
        targets[0].parent.mkdir(parents=True, exist_ok=True)
    if targets == [STDOUT]:
        with written_to_stdout():
            sys.stdout.buffer.write(png(images[0], record("image", wanted, 0)))
    elif targets[0].suffix.lower() == ".npz":
        write_whole(targets[0], npz(images, wanted, [seed + k for k in range(len(wanted))], record("images", [], 0)))
    else:
        for k, (path, image) in enumerate(zip(targets, images, strict=True)):
            write_whole(path, png(image, record("image", [wanted[k]], k)))
