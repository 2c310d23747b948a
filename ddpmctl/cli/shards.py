"""``generate --all``: many images of all classes in a folder of shards."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from ddpmctl.cli.output import Output
from ddpmctl.cli.provenance import Liked, made_by
from ddpmctl.cli.sampling import Request, prepare, steps_bar
from ddpmctl.distributed.store import report_once
from ddpmctl.errors import DataError, Interrupted, UsageError
from ddpmctl.paths import check_folder
from ddpmctl.ranks import ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddpmctl.sampling.engine import Engine
    from ddpmctl.sampling.shards import Job

SHARD_SIZE = 10_000
MOST_IMAGES = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for, None where nothing was.

    Attributes:
        output: the folder.
        count: images in all.
        shard_size: images a shard.
        batch_size: images that are made together.
        share: ``i/n``: this process makes the i-th of n shares, from 0.
    """

    output: Path | None
    count: int | None
    shard_size: int | None
    batch_size: int | None
    share: str | None

    def see_that_all_is_given(self) -> None:
        """Refuse what only ``--all`` has a use for.

        Raises:
            UsageError: naming it.
        """
        given = {"--shard-size": self.shard_size, "--batch-size": self.batch_size, "--shard": self.share}
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"{option} is for --all", "ddpmctl generate --all -n 1000 -o FOLDER")
        if ranks().size > 1:
            raise UsageError("several processes share --all", "ddpmctl generate --all -n 1000 -o FOLDER")


def make_shards(out: Output, wanted: Wanted, given: dict[str, Any], useless: dict[str, object]) -> None:
    """Make the shards that are not there yet, or this process's share of them.

    Args:
        out: the voice of the command.
        wanted: what is asked for.
        given: the arguments of `prepare` but for the voice.
        useless: other things that may have been given, and are refused.
    """
    for name, value in useless.items():
        if value:
            raise UsageError(f"--all makes all classes as they are, and has no use for {name}", "leave it out")
    with report_once():
        turn, turns = parse_share(wanted.share)
        here = ranks()
        turn, turns = turn * here.size + here.rank, turns * here.size
        folder = _checked_folder(wanted.output)
        from ddpmctl.sampling import shards

        before = shards.Job.read(folder)
        if before:
            given = Liked(folder / shards.JOB, before.made, []).completed(given)
        request = prepare(out, **given)
        _check_numbers(wanted, before)
        engine = replace(request, drawn=False).load(out)
        folder.mkdir(parents=True, exist_ok=True)
        job = _job(wanted, before, request, engine).begun(folder, any_seed=request.drawn)
        if request.drawn:
            out.note(f"seed {job.made.seed}")
        mine = range(turn, job.shards, turns)
        todo = list(shards.unmade(folder, job, mine))
        out.note(_words(job, mine, todo))
        try:
            made = _make(out, engine, folder, job, todo)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; the shards that are whole are kept in {folder}",
                f"go on: ddpmctl generate --all -o '{folder}'",
            ) from None
        if here.is_main_process:
            files = [str(job.path(folder, shard)) for shard in mine]
            record = {"folder": str(folder), "images": job.count, "shards": job.shards, "share": [turn, turns]}
            out.note(f"{'check it' if turns == 1 else 'when all have ended'}: ddpmctl data verify '{folder}'")
            out.result({**record, "made": made, "files": files, "how": asdict(job.made)}, bare=[str(folder)])


def parse_share(text: str | None) -> tuple[int, int]:
    """``2/8`` as two numbers; all of it where nothing was given.

    Raises:
        UsageError: when they are none, or there is no such share.
    """
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 0 <= int(match[1]) < int(match[2]):
        raise UsageError(f"'{text}' is no share", "--shard 0/8 to --shard 7/8 are the eight shares of eight")
    return int(match[1]), int(match[2])


def _checked_folder(output: Path | None) -> Path:
    """Where the shards go; it may still have to be made.

    Raises:
        UsageError: where none is named.
        DdpmctlError: where nothing can be written.
    """
    if output is None:
        raise UsageError("--all fills a folder", "ddpmctl generate --all -n 1000 -o FOLDER")
    check_folder(output)
    return Path(output)


def _check_numbers(wanted: Wanted, before: "Job | None") -> None:
    if wanted.count is None and before is None:
        raise UsageError("it is not said how many images", "ddpmctl generate --all -n 1000 -o FOLDER")
    given = {"-n": wanted.count, "--shard-size": wanted.shard_size, "--batch-size": wanted.batch_size}
    for option, value in given.items():
        if value is not None and not 1 <= value <= MOST_IMAGES:
            raise UsageError(f"{option} {value} is out of range", f"{option} 1..{MOST_IMAGES}")


def _job(wanted: Wanted, before: "Job | None", request: Request, engine: "Engine") -> "Job":
    """The job that is asked for, with the numbers of the one that was begun where none were given."""
    from ddpmctl.sampling.engine import BATCH_SIZES, check_seed
    from ddpmctl.sampling.shards import Job

    usual = (0, SHARD_SIZE, BATCH_SIZES[engine.device.type])
    if before:
        usual = (before.count, before.shard_size, before.made.batch)
    given = (wanted.count, wanted.shard_size, wanted.batch_size)
    count, size, batch = (old if new is None else new for new, old in zip(given, usual, strict=True))
    check_seed(request.seed, count)
    command = ["generate", "--all", "-n", count, "--shard-size", size, "--batch-size", batch, "-o", "shards"]
    model = engine.config.model
    side = (model.image_size, model.image_size)
    try:
        return Job(
            count=count,
            shard_size=size,
            labels=len(engine.classes),
            shape=side if model.channels == 1 else (*side, model.channels),
            made=replace(made_by(request, engine, "images", [], command), batch=batch),
        )
    except ValueError as error:
        raise UsageError(str(error), f"--shard-size {SHARD_SIZE} or more") from error


def _words(job: "Job", mine: range, todo: list[int]) -> str:
    share = "" if len(mine) == job.shards else f", {len(mine)} of them this process's share"
    there = f"; {len(mine) - len(todo)} are there" if len(todo) < len(mine) else ""
    return f"{job.count:,} images in {job.shards:,} shards{share}{there}"


def _make(out: Output, engine: "Engine", folder: Path, job: "Job", todo: list[int]) -> int:
    """Make shards, first those that no other process is making; returns how many were left to make."""
    steps, made = job.made.steps, 0
    with steps_bar(out, steps * sum(len(job.images(shard)) for shard in todo)) as (bar, task):

        def on_step(images: int) -> None:
            bar.advance(task, images)

        left = []
        for shard in todo:
            try:
                made += _make_one(engine, folder, job, shard, on_step, wait=False)
            except Timeout:
                left.append(shard)
        if left:
            out.note(f"waiting for another process that makes {len(left)} of them")
        return made + sum(_make_one(engine, folder, job, shard, on_step, wait=True) for shard in left)


def _make_one(
    engine: "Engine", folder: Path, job: "Job", shard: int, on_step: "Callable[[int], None]", *, wait: bool
) -> bool:
    """Make a shard unless it is there by now, which is told.

    Raises:
        Timeout: where another process holds it, and that is not waited for.
    """
    from ddpmctl.sampling import shards

    held = shards.hold(folder, job, shard)
    held.acquire(timeout=-1 if wait else 0)
    try:
        if not list(shards.unmade(folder, job, range(shard, shard + 1))):
            return False
        shards.swept(folder, job, shard)
        numbers, made = job.images(shard), job.made
        images = engine.generate(
            job.classes_of(numbers),
            seed=made.seed + numbers.start,
            sampler=made.sampler,
            steps=made.steps,
            guidance=made.guidance,
            guidance_interval=made.guidance_interval,
            batch_size=made.batch,
            fixed=True,
            on_step=on_step,
        )
        shards.put_shard(job.path(folder, shard), job, shard, images)
        with suppress(OSError):  # Windows keeps a file that is open
            Path(held.lock_file).unlink()
    finally:
        held.release()
    return True


def holds_shards(folder: Path) -> bool:
    """Whether ``generate --all`` was used on a folder, as far as its name for that is there."""
    from ddpmctl.sampling import shards

    return (folder / shards.JOB).is_file()


def verify_shards(folder: Path) -> tuple[dict[str, Any], str, list[str]]:
    """What is in a folder of shards: the record, a summary, and the problems."""
    from ddpmctl.sampling import shards

    job = shards.Job.read(folder)
    if job is None:
        raise DataError(f"{folder} does not hold shards", f"ddpmctl data verify folder:{folder}")
    found = shards.verify(folder, job)
    problems = [*found.damaged, *found.strange]
    if found.missing:
        problems.append(f"{len(found.missing):,} of {job.shards:,} shards are missing: {_listed(found.missing)}")
    if found.missing or found.damaged:
        problems.append(f"ddpmctl generate --all -o '{folder}' makes what is not there or not whole")
    words = f"{folder}: {job.count:,} images in {job.shards:,} shards"
    words += f", each there once; digest {found.digest}" if found.digest else ""
    record = {"name": str(folder), "images": job.count, "shards": job.shards, "missing": found.missing}
    return {**record, "digest": found.digest, "problems": problems}, words, problems


def _listed(numbers: list[int], most: int = 10) -> str:
    return ", ".join(map(str, numbers[:most])) + (", .." if len(numbers) > most else "")
