"""The result of a lesson as plain values, which the terminal, the page and ``--json`` show."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ddpmctl.errors import DataError
from ddpmctl.parsing import parse

LESSONS = ("one-shot", "range", "batchnorm")
"""All lessons, in their order."""

PAGE = "lessons.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Figures as texts; the first column has the names of the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A file in the folder of the page."""

    file: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A publication; ``authors`` with the year, ``arxiv`` its number."""

    authors: str
    title: str
    arxiv: str


HO_2020 = Paper(authors="Ho, Jain, Abbeel 2020", title="Denoising Diffusion Probabilistic Models", arxiv="2006.11239")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that was trained for a lesson.

    Attributes:
        name: of its model in the folder.
        role: what it is in the lesson.
        command: trains it again.
        validation_mse: in the units of what it predicts; None where no value was finite.
        losses: over the training, medians of as many equal parts, and so with ``gradients``: norms before clipping.
        problem: what went wrong, or empty.
    """

    name: str
    role: str
    command: str
    steps: int
    seconds: float
    validation_mse: float | None
    losses: tuple[float, ...]
    gradients: tuple[float, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditions of the measurements.

    Attributes:
        budget: seconds of training per network.
        count: images per set.
        classifier: what classified the images.
        date: ISO 8601.
    """

    dataset: str
    budget: float
    seed: int
    device: str
    precision: str
    count: int
    classifier: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one lesson.

    Attributes:
        lesson: one of `LESSONS`.
        trap: a design choice, and ``fix`` the one to make instead.
        claim: what the author of the original scripts saw in the trap.
        reproduced: whether the claim was reproduced.
        verdict: the same in a sentence, with figures.
        formula: why, in one line.
        why: why, in paragraphs.
    """

    lesson: str
    title: str
    trap: str
    fix: str
    claim: str
    reproduced: bool
    verdict: str
    formula: str
    why: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    networks: tuple[Network, ...]
    papers: tuple[Paper, ...]
    conditions: Conditions

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a saved result."""
        try:
            return parse(cls, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            lesson = path.stem if path.stem in LESSONS else ""
            raise DataError(f"{path} holds no lesson: {error}", f"ddpmctl lessons {lesson}".strip()) from error
