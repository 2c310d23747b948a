"""The page beside the weights: everything there is to know about a commit, as strict JSON."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from ddpmctl.config import Config, build
from ddpmctl.labels import class_names_problem
from ddpmctl.plan import Plan

SCHEMA = 5
MAX_BYTES = 1_000_000
"""No honest manifest comes near; a larger file is not read."""

MAX_FILE = 4 * 2**30
"""Bytes; nor do the files of a model come near this."""

FINISHED = ("done", "early")
"""How a run ends that has nothing left of its plan."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

CHECKSUM = "checksum"
_BLANK = "0" * 64
_SEAL = re.compile(rf'"{CHECKSUM}": "([0-9a-f]{{64}})"\n}}\n\Z')


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What a file of the commit must be."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 is 64 hexadecimal digits")
        if not 0 <= self.size <= MAX_FILE:
            raise ValueError(f"size lies in 0..{MAX_FILE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """The images that a model was trained on.

    Attributes:
        name: as given to ``--dataset``.
        digest: sha256 of pixels and labels, hexadecimal.
        count: training images, validation images included.
        fit: how pictures that are no squares were made to be; empty where all were.
    """

    name: str
    digest: str
    count: int
    fit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure and what it is measured on.

    Attributes:
        name: ``validation_mse`` or ``train_mse``, a mean over pixels and timesteps.
        parameterization: what the network predicts; values of different parameterizations do not compare.
        value: the figure.
        epoch: counted from 1.
        step: optimizer steps by then.
    """

    name: str
    parameterization: str
    value: float
    epoch: int
    step: int

    @property
    def title(self) -> str:
        """Its name for people."""
        return {"validation_mse": "validation MSE", "train_mse": "train MSE"}.get(self.name, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """A part of a run that went through without a break.

    Attributes:
        why: ``begun``, ``resumed``, ``extended`` or ``rolled back``.
        step: steps that were done before it.
        planned_steps: of the whole run, as it was last planned in this part.
        peak_lr: its learning rate between warm-up and decay.
        created: when it began; UTC, ISO 8601.
        device: what it ran on, in words.
        precision: ``fp32`` or ``bf16``.
        threads: of torch on the CPU.
        versions: what it ran with.
        exact: whether it goes on bit for bit as if there had been no break.
    """

    why: str
    step: int
    planned_steps: int
    peak_lr: float
    created: str
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRecord:
    """What a run needs to go on, beside the tensors in ``state.safetensors``.

    Attributes:
        plan: the steps of the whole run and their learning rates.
        device: to compute on, as in ``--device``.
        within_epochs: whether the time limit may not go beyond the epochs.
        epochs_without_better: patience that is used up.
        rollbacks: how often a figure that is not finite sent the run back.
    """

    plan: Plan
    device: str
    within_epochs: bool
    epochs_without_better: int
    rollbacks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """How the training went so far.

    Attributes:
        id: tells this run from others under the same name.
        step: optimizer steps done.
        planned_steps: steps of the whole run, as it is planned now.
        epochs: epochs begun.
        images: training images seen.
        seconds: time spent training, without evaluation and saving.
        seed: of everything random.
        device: what it ran on, in words.
        precision: ``fp32`` or ``bf16``.
        threads: of torch on the CPU.
        stopped: why it ended: ``done``, ``early``, ``interrupted``; ``running`` until then.
        max_time: the time limit in seconds, 0 for none.
        accumulate: parts that each batch was computed in.
        compiled: whether torch.compile made the network's kernels.
        segments: the parts in which it went on; none where they are not known.
    """

    id: str
    step: int
    planned_steps: int
    epochs: int
    images: int
    seconds: float
    seed: int
    device: str
    precision: str
    threads: int
    stopped: str
    max_time: float
    accumulate: int
    compiled: bool
    segments: tuple[SegmentRecord, ...]

    def __post_init__(self) -> None:
        counts = (self.step, self.epochs, self.images, self.seconds, self.seed, self.threads, self.max_time)
        if min(counts) < 0 or self.accumulate < 1 or self.planned_steps < self.step:
            raise ValueError("the counts of the run do not fit together")
        if self.stopped not in ("running", "interrupted", *FINISHED):
            raise ValueError("run.stopped names no end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that is known about one commit of a model; everything that sampling needs."""

    schema: int = SCHEMA
    created: str
    """UTC, ISO 8601."""
    preset: str
    config: Config
    classes: tuple[str, ...]
    dataset: DatasetRecord
    run: RunRecord
    metric: Metric | None
    """Of this commit; None where it was not judged."""
    best: Metric | None
    """Of the best commit so far; this one's where they are the same. None before the first was judged."""
    resume: ResumeRecord | None
    """What the run needs to go on from here; None where it cannot."""
    parameters: int
    """Numbers that make the network; the running statistics of a BatchNorm are among them."""
    versions: dict[str, str]
    files: dict[str, FileRecord]

    def __post_init__(self) -> None:
        if len(self.classes) != self.config.model.num_classes:
            raise ValueError("classes are as many as config.model.num_classes")
        if problem := class_names_problem(self.classes):
            raise ValueError(problem)
        if datetime.fromisoformat(self.created).tzinfo is None:
            raise ValueError("created is a time with its zone")
        expected = {"weights.safetensors", "history.csv", *(["state.safetensors"] if self.resume else [])}
        if set(self.files) != expected:
            raise ValueError(f"files are {' and '.join(sorted(expected, reverse=True))}")
        if self.resume and (not self.run.segments or self.resume.plan.steps != self.run.planned_steps):
            raise ValueError("resume does not fit the run")
        if self.metric and not self.best:
            raise ValueError("what was judged has a best")

    def to_json(self) -> str:
        """Readable JSON, one field a line, with a checksum over all of it."""
        return seal(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse strictly.

        Raises:
            ValueError: naming what does not fit; a newer schema asks for an upgrade.
        """
        values = json.loads(text, parse_constant=_refuse)
        if not isinstance(values, Mapping):
            raise ValueError("it is not a JSON object")
        schema = values.get("schema")
        if type(schema) is not int or schema < 1:
            raise ValueError("it names no known schema")
        if schema > SCHEMA:
            raise ValueError(f"it has schema {schema} and this ddpmctl knows {SCHEMA}: upgrade ddpmctl")
        if schema < SCHEMA:
            raise ValueError(
                f"it has schema {schema} and was written by an earlier version of ddpmctl: train the model again"
            )
        built: Any = build(cls, {name: value for name, value in values.items() if name != CHECKSUM}, "")
        if not checksum_of(text):
            raise ValueError("its checksum is not the one it names")
        return built  # type: ignore[no-any-return]


def seal(values: Mapping[str, Any]) -> str:
    """The text of a manifest, whose last field is the sha256 of the text with zeros in that place."""
    text = json.dumps({**values, CHECKSUM: _BLANK}, indent=2, ensure_ascii=False) + "\n"
    at = text.rindex(_BLANK)
    return text[:at] + hashlib.sha256(text.encode()).hexdigest() + text[at + len(_BLANK) :]


def checksum_of(text: str) -> str:
    """The checksum that a manifest names and keeps; empty where it does not: it is older, or something was changed."""
    match = _SEAL.search(text)
    blank = text[: match.start(1)] + _BLANK + text[match.end(1) :] if match else ""
    return match[1] if match and hashlib.sha256(blank.encode()).hexdigest() == match[1] else ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
