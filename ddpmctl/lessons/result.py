"""The result of a lesson as plain values, which the terminal, the page and ``--json`` show."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ddpmctl.errors import DataError
from ddpmctl.parsing import parse

LESSONS = ("one-shot", "range", "batchnorm")
"""All lessons, in their order."""

PAGE = "lessons.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Measurements as texts; the first column contains row names."""

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
        name: name of its model in the folder.
        role: its role in the lesson.
        command: the command that trains it again.
        validation_mse: in the units of what it predicts; None if no value was finite.
        losses: medians of equal parts of the run; likewise ``gradients``, norms before clipping.
        problem: an error during training, or empty.
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
        classifier: the classifier that was used.
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
        trap: the mistake, a design choice; ``fix`` is the recommended choice.
        claim: the effect that the original scripts attribute to the mistake.
        reproduced: whether the claim was reproduced.
        verdict: the same in a sentence, with measurements.
        formula: the explanation as a formula.
        why: the explanation in paragraphs.
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

    def to_dict(self) -> dict[str, object]:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a saved result."""
        try:
            return parse(cls, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            lesson = path.stem if path.stem in LESSONS else ""
            raise DataError(f"{path} is not a lesson result: {error}", f"ddpmctl lessons {lesson}".strip()) from error
