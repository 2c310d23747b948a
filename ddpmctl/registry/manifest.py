"""The manifest of a checkpoint: everything known about a checkpoint, as strict JSON with a checksum."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from ddpmctl.config import Config, ParameterizationName
from ddpmctl.labels import class_names_problem
from ddpmctl.parsing import parse
from ddpmctl.plan import Plan

SCHEMA = 6
MAX_BYTES = 1_000_000
"""Maximum size of a manifest; a larger file is not read."""

MAX_FILE = 4 * 2**30
"""Maximum size of each file of a checkpoint, in bytes."""

FINISHED = ("done", "early")
"""The values of ``RunRecord.stopped`` for a run that has completed its plan."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

CHECKSUM = "checksum"
_BLANK = "0" * 64
_SEAL = re.compile(rf'"{CHECKSUM}": "([0-9a-f]{{64}})"\n}}\n\Z')


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Size in bytes and sha256, hexadecimal, of a file of the checkpoint."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 must be 64 hexadecimal digits")
        if not 0 <= self.size <= MAX_FILE:
            raise ValueError(f"size must be in 0..{MAX_FILE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """The images that a model was trained on."""

    name: str
    """As in `RunSpec.dataset`."""
    digest: str
    """sha256 of pixels and labels, hexadecimal; empty if it is unknown."""
    count: int
    """Training images, validation images included."""
    fit: str
    """How images were made square; empty if all were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A mean squared error over pixels and timesteps, and when it was measured."""

    name: str
    """``validation_mse`` or ``train_mse``."""
    parameterization: ParameterizationName
    """What the network predicts; values of different parameterizations do not compare."""
    value: float
    epoch: int
    """Counted from 1."""
    step: int

    @property
    def title(self) -> str:
        """Its human-readable name."""
        return {"validation_mse": "validation MSE", "train_mse": "train MSE"}.get(self.name, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """A part of a run without an interruption."""

    why: str
    """``begun``, ``resumed``, ``extended`` or ``rolled back``."""
    step: int
    """Optimizer steps done before it."""
    planned_steps: int
    """Of the whole run, as last planned in this part."""
    peak_lr: float
    created: str
    """UTC, ISO 8601."""
    device: str
    """Human-readable."""
    precision: str
    threads: int
    """CPU threads of torch."""
    versions: dict[str, str]
    exact: bool
    """Whether it continues bit for bit as an uninterrupted run would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRecord:
    """Resume state besides the tensors in ``state.safetensors``."""

    plan: Plan
    device: str
    """As in `RunSpec.device`."""
    within_epochs: bool
    """Whether the number of epochs limits the run in addition to a time limit."""
    epochs_without_better: int
    """Counts towards the patience."""
    rollbacks: int
    """Number of roll-backs after a non-finite loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The training so far."""

    id: str
    """Unique to the run."""
    step: int
    """Optimizer steps done."""
    planned_steps: int
    epochs: int
    """Epochs started."""
    images: int
    """Training images seen."""
    seconds: float
    """Time spent training, without evaluation and saving."""
    seed: int
    device: str
    """Human-readable."""
    precision: str
    threads: int
    """CPU threads of torch."""
    stopped: Literal["running", "interrupted", "done", "early"]
    max_time: float
    """Time limit in seconds; 0 for none."""
    accumulate: int
    """Gradient accumulation steps."""
    compiled: bool
    """Whether the network runs under torch.compile."""
    segments: tuple[SegmentRecord, ...]
    """Empty if they are unknown."""

    def __post_init__(self) -> None:
        counts = (self.step, self.epochs, self.images, self.seconds, self.seed, self.threads, self.max_time)
        if min(counts) < 0 or self.accumulate < 1 or self.planned_steps < self.step:
            raise ValueError("the counts of the run are inconsistent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything known about one checkpoint of a model, and all that sampling needs in addition to the weights."""

    schema: int = SCHEMA
    created: str
    """UTC, ISO 8601."""
    preset: str
    config: Config
    classes: tuple[str, ...]
    dataset: DatasetRecord
    run: RunRecord
    metric: Metric | None
    """Of this checkpoint; None if it was not validated."""
    best: Metric | None
    """Of the best checkpoint so far; None before the first was validated."""
    resume: ResumeRecord | None
    """None if the run cannot be resumed from here."""
    parameters: int
    """Elements of all tensors in the weights; the running statistics of BatchNorm are included."""
    versions: dict[str, str]
    files: dict[str, FileRecord]

    def __post_init__(self) -> None:
        if len(self.classes) != self.config.model.num_classes:
            raise ValueError("the number of classes must equal config.model.num_classes")
        if problem := class_names_problem(self.classes):
            raise ValueError(problem)
        if datetime.fromisoformat(self.created).tzinfo is None:
            raise ValueError("created must have a time zone")
        expected = {"weights.safetensors", "history.csv", *(["state.safetensors"] if self.resume else [])}
        if set(self.files) != expected:
            raise ValueError(f"files must be {' and '.join(sorted(expected, reverse=True))}")
        if self.resume and (not self.run.segments or self.resume.plan.steps != self.run.planned_steps):
            raise ValueError("resume does not match the run")
        if self.metric and not self.best:
            raise ValueError("metric requires best")

    def to_json(self) -> str:
        """Readable JSON, one field per line, with a checksum over all of it."""
        return with_checksum(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse strictly; raises ValueError naming the field."""
        values = json.loads(text, parse_constant=_refuse)
        if not isinstance(values, Mapping):
            raise ValueError("it is not a JSON object")
        schema = values.get("schema")
        if type(schema) is not int or schema < 1:
            raise ValueError("it has no valid schema version")
        if schema > SCHEMA:
            raise ValueError(f"it has schema {schema} but this ddpmctl supports up to {SCHEMA}: upgrade ddpmctl")
        if schema < SCHEMA:
            raise ValueError(
                f"it has schema {schema} and was written by an earlier version of ddpmctl: train the model again"
            )
        manifest = parse(cls, {name: value for name, value in values.items() if name != CHECKSUM})
        if not checksum_of(text):
            raise ValueError("its checksum does not match its content")
        return manifest


def with_checksum(values: Mapping[str, object]) -> str:
    """The text of a manifest, whose last field is the sha256 of the text with zeros in that place."""
    text = json.dumps({**values, CHECKSUM: _BLANK}, indent=2, ensure_ascii=False) + "\n"
    at = text.rindex(_BLANK)
    return text[:at] + hashlib.sha256(text.encode()).hexdigest() + text[at + len(_BLANK) :]


def checksum_of(text: str) -> str:
    """The checksum in the text of a manifest; empty if there is none or it does not match."""
    match = _SEAL.search(text)
    blank = text[: match.start(1)] + _BLANK + text[match.end(1) :] if match else ""
    return match[1] if match and hashlib.sha256(blank.encode()).hexdigest() == match[1] else ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")
