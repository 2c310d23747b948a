"""``generate --all``: many images of all classes in a folder of shards."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import SamplingArguments, steps_bar
from ddpmctl.distributed.store import report_once
from ddpmctl.errors import DataError, Interrupted, UsageError
from ddpmctl.paths import check_folder
from ddpmctl.ranks import ranks
from ddpmctl.registry import open_model

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine
    from ddpmctl.sampling.shards import Job

EXAMPLE = "ddpmctl generate --all -n 1000 -o FOLDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardArguments:
    """The options of ``generate --all``, as they were typed; ``share`` is ``i/n``, the i-th of n shares from 0."""

    output: Path | None
    count: int | None
    shard_size: int | None
    batch_size: int | None
    share: str | None

    def check_unused(self) -> None:
        """Refuse options that only ``--all`` uses."""
        given = {"--shard-size": self.shard_size, "--batch-size": self.batch_size, "--shard": self.share}
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"{option} requires --all", EXAMPLE)
        if ranks().size > 1:
            raise UsageError("several processes can only generate with --all", EXAMPLE)


def generate_shards(
    out: Output, wanted: ShardArguments, sampling: SamplingArguments, unused: Mapping[str, object]
) -> None:
    """Generate the missing and damaged shards of a job, or this process's share of them.

    Args:
        unused: options that cannot be combined with ``--all``, by name.
    """
    for name, value in unused.items():
        if value:
            option = name if name == "labels" else f"--{name}"
            raise UsageError(f"{option} cannot be combined with --all", f"omit {option}")
    with report_once():
        turn, turns = parse_share(wanted.share)
        here = ranks()
        turn, turns = turn * here.size + here.rank, turns * here.size
        if wanted.output is None:
            raise UsageError("--all requires an output folder", EXAMPLE)
        check_folder(wanted.output)
        folder = Path(wanted.output)
        from ddpmctl.sampling import shards

        engine, job = _create_or_open(out, wanted, sampling, folder)
        mine = range(turn, job.shards, turns)
        pending = list(job.pending(folder, mine))
        out.note(_summary(job, mine, pending))
        try:
            images = sum(len(job.images(shard)) for shard in pending)
            with steps_bar(out, job.provenance.steps * images) as on_step:
                generated = shards.generate_shards(engine, job, folder, pending, on_step)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; complete shards are kept in {folder}",
                f"continue: ddpmctl generate --all -o '{folder}'",
            ) from None
        if here.is_main_process:
            files = [str(job.path(folder, shard)) for shard in mine]
            record = {"folder": str(folder), "images": job.count, "shards": job.shards, "share": [turn, turns]}
            out.note(
                f"{'verify' if turns == 1 else 'after all parts have finished, verify'}: ddpmctl data verify '{folder}'"
            )
            out.result({**record, "made": generated, "files": files, "how": asdict(job.provenance)}, bare=[str(folder)])


def _create_or_open(
    out: Output, wanted: ShardArguments, sampling: SamplingArguments, folder: Path
) -> "tuple[Engine, Job]":
    """The job in the folder, with its own numbers unless others are given, and the engine for it."""
    from ddpmctl.sampling import shards
    from ddpmctl.sampling.engine import Engine
    from ddpmctl.sampling.reproduce import ReproductionTarget

    existing = shards.Job.read(folder)
    target = ReproductionTarget(folder / shards.JOB, existing.provenance, []) if existing else None
    draws_seed = sampling.seed is None and existing is None
    checkpoint = target.find_checkpoint() if target and not sampling.model else open_model(sampling.model)
    request = sampling.request(checkpoint, (), target)
    if wanted.count is None and existing is None:
        raise UsageError("missing option --count", EXAMPLE)
    count, shard_size, batch_size = wanted.count or 0, wanted.shard_size or shards.SHARD_SIZE, wanted.batch_size
    if existing:
        count, shard_size = wanted.count or existing.count, wanted.shard_size or existing.shard_size
        batch_size = wanted.batch_size or existing.provenance.batch
    engine = Engine(request.checkpoint, request.device, request.precision)
    try:
        job = shards.Job.of(engine.resolve(replace(request, batch_size=batch_size)), count, shard_size)
    except ValueError as error:
        raise UsageError(str(error), f"--shard-size {shards.SHARD_SIZE} or more") from error
    job = job.create_or_open(folder, any_seed=draws_seed)
    if draws_seed:
        out.note(f"seed {job.provenance.seed}")
    return engine, job


def parse_share(text: str | None) -> tuple[int, int]:
    """``2/8`` as two numbers; (0, 1) if not given."""
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 0 <= int(match[1]) < int(match[2]):
        raise UsageError(f"'{text}' is not a valid shard", "--shard I/N with 0 <= I < N, for example --shard 0/8")
    return int(match[1]), int(match[2])


def _summary(job: "Job", mine: range, pending: list[int]) -> str:
    share = "" if len(mine) == job.shards else f", {len(mine)} assigned to this process"
    existing = f"; {len(mine) - len(pending)} exist already" if len(pending) < len(mine) else ""
    return f"{job.count:,} images in {job.shards:,} shards{share}{existing}"


def has_shards(folder: Path) -> bool:
    """Whether ``generate --all`` was used on a folder."""
    from ddpmctl.sampling import shards

    return (folder / shards.JOB).is_file()


def verify_shards(folder: Path) -> tuple[dict[str, object], str, list[str]]:
    """The content of a folder of shards: the record for ``--json``, a summary, and the problems."""
    from ddpmctl.sampling import shards

    job = shards.Job.read(folder)
    if job is None:
        raise DataError(f"{folder} does not contain shards", f"ddpmctl data verify folder:{folder}")
    found = shards.verify(folder, job)
    problems = [*found.damaged, *found.unexpected]
    if found.missing:
        problems.append(f"{len(found.missing):,} of {job.shards:,} shards are missing: {_listed(found.missing)}")
    if found.missing or found.damaged:
        problems.append(f"regenerate missing and damaged shards: ddpmctl generate --all -o '{folder}'")
    summary = f"{folder}: {job.count:,} images in {job.shards:,} shards"
    summary += f", complete; digest {found.digest}" if found.digest else ""
    record = {"name": str(folder), "images": job.count, "shards": job.shards, "missing": found.missing}
    return {**record, "digest": found.digest, "problems": problems}, summary, problems


def _listed(numbers: Iterable[int], most: int = 10) -> str:
    first = list(numbers)
    return ", ".join(map(str, first[:most])) + (", .." if len(first) > most else "")
