"""The page beside the weights: everything there is to know about a commit, as strict JSON."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from ddpmctl.config import Config, build

SCHEMA = 1
MAX_BYTES = 1_000_000
"""No honest manifest comes near; a larger file is not read."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What a file of the commit must be."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 is 64 hexadecimal digits")
        if self.size < 0:
            raise ValueError("size is at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """The images that a model was trained on.

    Attributes:
        name: as given to ``--dataset``.
        digest: sha256 of pixels and labels, hexadecimal.
        count: training images, held-out ones included.
    """

    name: str
    digest: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure and what it is measured on.

    Attributes:
        name: ``heldout_mse`` or ``train_mse``, a mean over pixels and timesteps.
        target: what the network predicts; figures of different targets do not compare.
        value: the figure.
        epoch: counted from 1.
        step: optimizer steps by then.
    """

    name: str
    target: str
    value: float
    epoch: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """How the training went so far.

    Attributes:
        step: optimizer steps done.
        planned_steps: steps that the run was laid out for.
        epochs: epochs begun.
        images: training images seen.
        seconds: time spent training, without evaluation and saving.
        seed: of everything random.
        device: what it ran on, in words.
        precision: ``fp32`` or ``bf16``.
        threads: of torch on the CPU.
        stopped: why it ended: ``done``, ``early``, ``interrupted``, ``time``; ``running`` until then.
        max_time: seconds that the run was fitted into, 0 for no clock.
        accumulate: parts that each batch was computed in.
        compiled: whether torch.compile made the network's kernels.
    """

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
    metric: Metric
    """Of this commit."""
    best: Metric
    """Of the best commit so far; this one's where they are the same."""
    parameters: int
    versions: dict[str, str]
    files: dict[str, FileRecord]

    def __post_init__(self) -> None:
        if len(self.classes) != self.config.model.num_classes:
            raise ValueError("classes are as many as config.model.num_classes")
        if len({name.casefold() for name in self.classes}) != len(self.classes):
            raise ValueError("classes have distinct names")
        if datetime.fromisoformat(self.created).tzinfo is None:
            raise ValueError("created is a time with its zone")
        if set(self.files) != {"weights.safetensors", "history.csv"}:
            raise ValueError("files are weights.safetensors and history.csv")

    def to_json(self) -> str:
        """Readable JSON, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse strictly.

        Raises:
            ValueError: naming what does not fit; a newer schema asks for an upgrade.
        """
        values = json.loads(text)
        if not isinstance(values, Mapping):
            raise ValueError("it is not a JSON object")
        schema = values.get("schema")
        if type(schema) is int and schema > SCHEMA:
            raise ValueError(f"it has schema {schema} and this ddpmctl knows {SCHEMA}: upgrade ddpmctl")
        if schema != SCHEMA:
            raise ValueError("it names no known schema")
        built: Any = build(cls, values, "")
        return built  # type: ignore[no-any-return]
