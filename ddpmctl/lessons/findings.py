"""What a lesson found, as plain values: the terminal, the page and ``--json`` tell the same."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ddpmctl.errors import DataError
from ddpmctl.parsing import parse

NAMES = ("one-shot", "range", "batchnorm")
"""All lessons, in the order in which they are taught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Figures in words.

    Attributes:
        title: what they are of.
        columns: names; the first is that of the rows.
        rows: as many cells each as there are columns.
        note: what one has to know to read them, maybe empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture beside the page.

    Attributes:
        file: its name in the folder.
        caption: what it shows.
    """

    file: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """Where something was first said.

    Attributes:
        authors: with the year.
        title: in full.
        arxiv: its number.
    """

    authors: str
    title: str
    arxiv: str


HO_2020 = Paper(authors="Ho, Jain, Abbeel 2020", title="Denoising Diffusion Probabilistic Models", arxiv="2006.11239")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One that was trained for a lesson.

    Attributes:
        name: of the model in the folder.
        role: what it is in the lesson.
        command: trains it again.
        steps: optimizer steps.
        seconds: that they took.
        mse: held-out, in the units of its own target; None where no figure was finite.
        losses: over the training, medians of as many equal parts.
        gradients: norms before clipping, in the same way.
        trouble: what went wrong, maybe empty.
    """

    name: str
    role: str
    command: str
    steps: int
    seconds: float
    mse: float | None
    losses: tuple[float, ...]
    gradients: tuple[float, ...]
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Under what circumstances it was found.

    Attributes:
        dataset: as in ``--dataset``.
        budget: seconds of training a network.
        seed: of everything random.
        device: in words.
        precision: of the networks' arithmetic.
        count: images a figure is taken over.
        judged_by: who reads the labels.
        date: ISO 8601.
    """

    dataset: str
    budget: float
    seed: int
    device: str
    precision: str
    count: int
    judged_by: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One lesson, as it came out.

    Attributes:
        lesson: one of `NAMES`.
        title: the lesson in a few words.
        trap: what one might do.
        fix: what to do.
        claim: what the author of the original scripts saw in the trap.
        reproduced: whether the trap did that here.
        verdict: the same in a sentence, with figures.
        formula: why, in one line.
        why: why, in plain words: paragraphs.
        tables: the figures.
        pictures: what it looks like.
        networks: what was trained.
        papers: who said it first.
        setting: the circumstances.
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
    setting: Setting

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what was kept of a lesson.

        Raises:
            DataError: when that is not what the file holds.
        """
        try:
            return parse(cls, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            lesson = path.stem if path.stem in NAMES else ""
            raise DataError(f"{path} holds no lesson: {error}", f"ddpmctl lessons {lesson}".strip()) from error
