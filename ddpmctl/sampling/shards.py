"""Many images in a folder of archives: made by any number of processes that do not talk, and checked as one.

Image k of a job has class ``k mod classes`` and draws its noise from ``seed + k``; shard j holds the images from
``j * shard_size`` on. What is in a shard depends on the job alone, so it does not matter which process makes it.
"""

import dataclasses
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from ddpmctl.config import check_seed
from ddpmctl.durable import replace_file, sweep
from ddpmctl.errors import DataError, DdpmctlError, Setting
from ddpmctl.imaging.provenance import KEY, Provenance
from ddpmctl.parsing import parse
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images
from ddpmctl.sampling.reproduce import build_provenance, recorded_options
from ddpmctl.sampling.request import SamplingRequest

log = logging.getLogger("ddpmctl")

JOB = "job.json"
DIGEST = "digest"
SHARD_SIZE = 10_000
MAX_SHARDS = 99_999
MAX_IMAGES = 1_000_000_000
_SHARD = re.compile(r"shard-\d{5}-of-\d{5}\.npz")

FREE = ("command", "versions", "model")
"""What may differ when a job is continued: the command, the packages, and the name of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Images of all classes in turn.

    Attributes:
        count: images in all.
        shard_size: images per shard; the last may have fewer.
        labels: number of classes.
        shape: of an image: ``[S, S]``, or ``[S, S, 3]`` for colour.
        provenance: of all images, from the seed of the first one on.
    """

    count: int
    shard_size: int
    labels: int
    shape: tuple[int, ...]
    provenance: Provenance

    def __post_init__(self) -> None:
        if min(self.count, self.shard_size, self.labels) < 1 or len(self.shape) not in (2, 3):
            raise ValueError("its numbers do not fit together")
        if self.count > MAX_IMAGES:
            raise ValueError(f"{self.count:,} images are too many: {MAX_IMAGES:,} are the most")
        if self.shards > MAX_SHARDS:
            raise ValueError(f"that makes {self.shards:,} shards, and {MAX_SHARDS:,} are the most")

    @classmethod
    def of(cls, request: SamplingRequest, count: int, shard_size: int = SHARD_SIZE) -> Self:
        """A job of so many images.

        Args:
            request: completed by `Engine.resolve`, without labels.

        Raises:
            ValueError: for numbers that do not fit together.
        """
        model = request.checkpoint.manifest.config.model
        check_seed(request.seed, count)
        side = (model.image_size, model.image_size)
        settings: dict[str, object] = {"count": count, "shard_size": shard_size, "batch_size": request.batch_size}
        argv = request.to_argv("generate", all=True, **settings, output="shards", upscale=1)
        return cls(
            count=count,
            shard_size=shard_size,
            labels=model.num_classes,
            shape=side if model.channels == 1 else (*side, model.channels),
            provenance=build_provenance(request, "images", argv, interpolation="nearest"),
        )

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.count // self.shard_size)

    def images(self, shard: int) -> range:
        """The numbers of the images in a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.count))

    def labels_of(self, images: range) -> list[int]:
        """The labels of images by number."""
        return [k % self.labels for k in images]

    def path(self, folder: Path, shard: int) -> Path:
        """The file of a shard."""
        return folder / f"shard-{shard:05d}-of-{self.shards:05d}.npz"

    def to_json(self) -> str:
        """The text of `JOB`."""
        return json.dumps({"version": 1, **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The job of a folder; None where it holds none."""
        path = folder / JOB
        try:
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict) or values.pop("version", None) != 1:
                raise ValueError("it is of another version")
            found = parse(cls, values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read: {error}", "use another folder") from error
        return found

    def create_or_open(self, folder: Path, *, any_seed: bool = False) -> Self:
        """Create the job in a folder, or open the same job that is there already.

        Args:
            any_seed: accept another seed, of the process that created the job first.

        Raises:
            DdpmctlError: when another job is there, naming the first setting that differs.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{JOB}.lock"):
            existing = self.read(folder)
            if existing is None:
                replace_file(folder / JOB, self.to_json().encode())
                return self
        wanted, present = (_settings(job) for job in (self, existing))
        wanted["seed"] = present["seed"] if any_seed else wanted["seed"]
        for name, value in present.items():
            if wanted[name] != value:
                raise DdpmctlError(
                    f"{folder} holds the shards of another job: its {name} is {value} and not {wanted[name]}",
                    "leave the option out to continue that one, or use another folder with ", Setting("output"),
                )  # fmt: skip
        return replace(existing, provenance=replace(existing.provenance, versions=self.provenance.versions))

    def pending(self, folder: Path, shards: Iterable[int]) -> Iterator[int]:
        """Of these shards, those that are missing or damaged."""
        for shard in shards:
            try:
                check_shard(self.path(folder, shard), self, shard)
            except (FileNotFoundError, DataError):
                yield shard


def _settings(job: Job) -> dict[str, Any]:
    """What decides the pixels, by name."""
    values = dataclasses.asdict(job)
    provenance = values.pop("provenance")
    return {**values, **{name: value for name, value in provenance.items() if name not in FREE}}


def make_shards(
    engine: Engine,
    job: Job,
    folder: Path,
    shards: Iterable[int],
    on_step: Callable[[int], None] | None = None,
) -> int:
    """Make shards, first those that no other process is making.

    Returns:
        How many were still to be made.
    """
    made, locked = 0, []
    for shard in shards:
        try:
            made += _make_shard(engine, job, folder, shard, on_step, wait=False)
        except Timeout:
            locked.append(shard)
    if locked:
        log.info(f"waiting for another process that makes {len(locked)} of them")
    return made + sum(_make_shard(engine, job, folder, shard, on_step, wait=True) for shard in locked)


def _make_shard(
    engine: Engine, job: Job, folder: Path, shard: int, on_step: Callable[[int], None] | None, *, wait: bool
) -> bool:
    """Make a shard unless another process has made it by now; Timeout where one is making it."""
    path, numbers, provenance = job.path(folder, shard), job.images(shard), job.provenance
    lock = FileLock(folder / f".{path.stem}.lock")
    lock.acquire(timeout=-1 if wait else 0)
    try:
        if not list(job.pending(folder, [shard])):
            return False
        sweep(folder, path.name)  # temporary files of a process that was killed
        images = engine.generate(
            job.labels_of(numbers),
            provenance.seed + numbers.start,
            batch_size=provenance.batch,
            fixed=True,
            on_step=on_step,
            **recorded_options(provenance),
        )
        write_shard(path, job, shard, images)
        with suppress(OSError):  # Windows keeps a file that is open
            Path(lock.lock_file).unlink()
    finally:
        lock.release()
    return True


def write_shard(path: Path, job: Job, shard: int, images: Images) -> None:
    """Write a shard with its digest, atomically and durably."""
    numbers, first = job.images(shard), job.provenance.seed
    arrays: dict[str, Any] = {
        "images": images,
        "labels": np.array(job.labels_of(numbers), np.int64),
        "seeds": np.arange(numbers.start, numbers.stop, dtype=np.int64) + first,
        KEY: np.array(replace(job.provenance, seed=first + numbers.start).to_json()),
    }
    data = io.BytesIO()
    arrays[DIGEST] = np.array(_digest(arrays))
    np.savez_compressed(data, **arrays)
    replace_file(path, data.getvalue())


def check_shard(path: Path, job: Job, shard: int) -> str:
    """Check that a shard holds what its job says.

    Returns:
        Its digest.

    Raises:
        FileNotFoundError: when it does not exist.
        DataError: naming what is wrong.
    """
    numbers, first = job.images(shard), job.provenance.seed
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        digest = str(arrays.pop(DIGEST))
        if digest != _digest(arrays):
            raise ValueError("its digest is another")
        provenance = parse(Provenance, json.loads(str(arrays[KEY])))
        images, seeds = arrays["images"], arrays["seeds"].tolist()
        labels = arrays["labels"].tolist()
    except FileNotFoundError:
        raise
    except Exception as error:  # there is no end to what zip, zlib, NumPy and JSON raise for bytes that are wrong
        raise DataError(f"{path.name} is damaged: {error}") from error
    if _settings(replace(job, provenance=replace(provenance, seed=first))) != _settings(job):
        raise DataError(f"{path.name} was made with other settings than {JOB} records")
    if images.shape != (len(numbers), *job.shape) or images.dtype != np.uint8:
        raise DataError(f"{path.name} holds other images than {JOB} records")
    if seeds != [first + k for k in numbers] or labels != job.labels_of(numbers):
        raise DataError(f"{path.name} holds other seeds or labels than {JOB} records")
    return digest


def _digest(arrays: dict[str, Any]) -> str:
    """sha256 of names, shapes and contents but for how a command was typed and what made it, hexadecimal."""
    digest = hashlib.sha256()
    for name in ("images", "labels", "seeds"):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderCheck:
    """What is in a folder of shards.

    Attributes:
        missing: shards that do not exist, by number.
        damaged: what is wrong with shards that exist, a sentence each.
        unexpected: what is not part of the job, a sentence each.
        digest: sha256 of the digests of all shards, hexadecimal; empty where some are missing or damaged.
    """

    missing: list[int]
    damaged: list[str]
    unexpected: list[str]
    digest: str


def verify(folder: Path, job: Job) -> FolderCheck:
    """Read all shards, one at a time, and check that they hold each image of the job once, and nothing else."""
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
    return FolderCheck(
        missing=missing,
        damaged=damaged,
        unexpected=[f"{name} is not part of this job" for name in others],
        digest="" if missing or damaged or others else union.hexdigest(),
    )
