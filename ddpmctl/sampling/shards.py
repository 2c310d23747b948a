"""Many images in a folder of archives: made by any number of processes that do not talk, and checked as one.

Image k of a job has class ``k mod classes`` and draws its noise from ``seed + k``; shard j holds the images from
``j * shard_size`` on. What is in a shard depends on the job alone, so it matters to nobody who makes it.
"""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ddpmctl.config import build
from ddpmctl.errors import DataError, DdpmctlError
from ddpmctl.imaging.provenance import KEY, Provenance
from ddpmctl.registry.durable import replace_file, sweep

JOB = "job.json"
"""What all shards of a folder are parts of."""

DIGEST = "digest"
MOST_SHARDS = 99_999
_SHARD = re.compile(r"shard-\d{5}-of-\d{5}\.npz")

FREE = ("command", "versions", "model")
"""What a job may be gone on with: another command, other packages, and the model under another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Images of all classes in turn.

    Attributes:
        count: how many.
        shard_size: images a shard; the last may have fewer.
        labels: how many classes there are.
        shape: of an image: ``[S, S]``, or ``[S, S, 3]`` for colour.
        made: how all are made, from the seed of the first on.
    """

    count: int
    shard_size: int
    labels: int
    shape: tuple[int, ...]
    made: Provenance

    def __post_init__(self) -> None:
        if min(self.count, self.shard_size, self.labels) < 1 or len(self.shape) not in (2, 3):
            raise ValueError("its numbers do not fit together")
        if self.shards > MOST_SHARDS:
            raise ValueError(f"that makes {self.shards:,} shards, and {MOST_SHARDS:,} are the most")

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.count // self.shard_size)

    def images(self, shard: int) -> range:
        """The numbers of the images in a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.count))

    def classes_of(self, images: range) -> list[int]:
        """What these show."""
        return [k % self.labels for k in images]

    def path(self, folder: Path, shard: int) -> Path:
        """Where a shard lies."""
        return folder / f"shard-{shard:05d}-of-{self.shards:05d}.npz"

    def to_json(self) -> str:
        """As it is written into its folder."""
        return json.dumps({"version": 1, **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The job of a folder; None where it holds none.

        Raises:
            DataError: for one that cannot be read.
        """
        path = folder / JOB
        try:
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict) or values.pop("version", None) != 1:
                raise ValueError("it is of another version")
            found: Self = build(cls, values, "")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read: {error}", "begin in another folder") from error
        return found

    def begun(self, folder: Path, *, any_seed: bool) -> Self:
        """Begin it in a folder, or go on with it there.

        Args:
            folder: where.
            any_seed: whether another seed will do, where other processes have begun it from one.

        Raises:
            DdpmctlError: when another is begun there, naming the first thing that differs.
        """
        with FileLock(folder / f".{JOB}.lock"):
            before = self.read(folder)
            if before is None:
                replace_file(folder / JOB, self.to_json().encode())
                return self
        mine, theirs = (_settings(job) for job in (self, before))
        mine["seed"] = theirs["seed"] if any_seed else mine["seed"]
        for name, value in theirs.items():
            if mine[name] != value:
                raise DdpmctlError(
                    f"{folder} holds the shards of another job: its {name} is {value} and not {mine[name]}",
                    "leave the option out to go on with that one, or begin in another folder with -o",
                )
        return replace(before, made=replace(before.made, versions=self.made.versions))


def _settings(job: Job) -> dict[str, Any]:
    """What decides the pixels, by name."""
    values = dataclasses.asdict(job)
    made = values.pop("made")
    return {**values, **{name: value for name, value in made.items() if name not in FREE}}


def put_shard(path: Path, job: Job, shard: int, images: NDArray[np.uint8]) -> None:
    """Write a shard: it comes into sight whole, with its digest, and stays through a crash."""
    numbers = job.images(shard)
    seeds = np.arange(numbers.start, numbers.stop, dtype=np.int64) + job.made.seed
    arrays: dict[str, Any] = {
        "images": images,
        "labels": np.array(job.classes_of(numbers), np.int64),
        "seeds": seeds,
        KEY: np.array(replace(job.made, seed=job.made.seed + numbers.start).to_json()),
    }
    data = io.BytesIO()
    arrays[DIGEST] = np.array(_digest(arrays))
    np.savez_compressed(data, **arrays)
    replace_file(path, data.getvalue())


def check_shard(path: Path, job: Job, shard: int) -> str:
    """See that a shard holds what it is to hold.

    Returns:
        Its digest.

    Raises:
        FileNotFoundError: when it is not there.
        DataError: naming what is wrong.
    """
    numbers = job.images(shard)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        digest = str(arrays.pop(DIGEST))
        if digest != _digest(arrays):
            raise ValueError("its digest is another")
        made = build(Provenance, json.loads(str(arrays[KEY])), "")
        images, seeds = arrays["images"], arrays["seeds"].tolist()
        labels = arrays["labels"].tolist()
    except FileNotFoundError:
        raise
    except Exception as error:  # there is no end to what zip, zlib, NumPy and JSON raise for bytes that are wrong
        raise DataError(f"{path.name} is damaged: {error}") from error
    if _settings(replace(job, made=replace(made, seed=job.made.seed))) != _settings(job):
        raise DataError(f"{path.name} was made in another way than {JOB} tells")
    if images.shape != (len(numbers), *job.shape) or images.dtype != np.uint8:
        raise DataError(f"{path.name} holds other images than {JOB} tells")
    if seeds != [job.made.seed + k for k in numbers] or labels != job.classes_of(numbers):
        raise DataError(f"{path.name} holds other seeds or labels than {JOB} tells")
    return digest


def _digest(arrays: dict[str, Any]) -> str:
    """sha256 of names, shapes and contents but for how a command was typed and what made it, hexadecimal."""
    digest = hashlib.sha256()
    for name in ("images", "labels", "seeds"):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What is in a folder of shards.

    Attributes:
        missing: shards that are not there, by number.
        damaged: what is wrong with those that are there, in words.
        strange: what is no part of the job, in words.
        digest: sha256 of the digests of all shards, hexadecimal; empty where not all are whole.
    """

    missing: list[int]
    damaged: list[str]
    strange: list[str]
    digest: str


def verify(folder: Path, job: Job) -> Verified:
    """Read all shards, one at a time: each image of the job is there once, and nothing else."""
    missing, damaged, union = [], [], hashlib.sha256()
    for shard in range(job.shards):
        try:
            union.update(check_shard(job.path(folder, shard), job, shard).encode())
        except FileNotFoundError:
            missing.append(shard)
        except DataError as error:
            damaged.append(error.message)
    ours = {job.path(folder, shard).name for shard in range(job.shards)}
    others = sorted(path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name) and path.name not in ours)
    return Verified(
        missing=missing,
        damaged=damaged,
        strange=[f"{name} is no part of this job" for name in others],
        digest="" if missing or damaged or others else union.hexdigest(),
    )


def unmade(folder: Path, job: Job, mine: range) -> Iterator[int]:
    """Of these shards, those that are not there or not whole."""
    for shard in mine:
        try:
            check_shard(job.path(folder, shard), job, shard)
        except (FileNotFoundError, DataError):
            yield shard


def hold(folder: Path, job: Job, shard: int) -> FileLock:
    """What the process that makes a shard holds, so that others on this machine leave it alone."""
    return FileLock(folder / f".{job.path(folder, shard).stem}.lock")


def swept(folder: Path, job: Job, shard: int) -> None:
    """Remove what a process that was killed left of a shard."""
    sweep(folder, job.path(folder, shard).name)
