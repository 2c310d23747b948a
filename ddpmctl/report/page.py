"""The page itself: one file that needs nothing beside it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from ddpmctl.report.charts import HEIGHT, WIDTH, Chart, Line, chart

PRINTED = 8
"""Frames of a film that paper shows."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Film:
    """Frames that a slider runs through.

    Attributes:
        frames: uint8[H,W] or uint8[H,W,3], all of one size.
        captions: of each.
    """

    frames: Sequence[Pixels]
    captions: Sequence[str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame."""
        high, wide = self.frames[0].shape[:2]
        return wide, high

    def reel(self) -> str:
        """All frames below each other, as the address of a PNG."""
        return png_address(np.concatenate(list(self.frames), axis=0))

    def printed(self) -> str:
        """A few of them beside each other, likewise."""
        picked = sorted({round(k * (len(self.frames) - 1) / (PRINTED - 1)) for k in range(PRINTED)})
        return png_address(np.concatenate([self.frames[k] for k in picked], axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the page tells of one model.

    Attributes:
        name: of the model.
        facts: names and words.
        history: a row an epoch, as in ``history.csv``.
        losses: of the steps of the last epoch; none where they are not known.
        first_step: the number of the first of these steps.
        signal: of the schedule, a value a timestep.
        noise: likewise.
        sheet: titled samples.
        chain: from noise to an image: what is there, and what the network expects behind it.
        learning: what it made of the same noise while it learnt; None where that was not kept.
        figures: of its evaluation, as names and words; none where it was not evaluated.
        evaluated: how that was done.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    history: Sequence[dict[str, str]]
    losses: Sequence[float]
    first_step: int
    signal: Sequence[float]
    noise: Sequence[float]
    sheet: Pixels
    chain: Film
    learning: Film | None = None
    figures: dict[str, str] = field(default_factory=dict)
    evaluated: str = ""


def png_address(image: Pixels) -> str:
    """An image as the address of a PNG that is the image."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def page(models: Sequence[Told], label: str, made: str) -> str:
    """The page of these models, as HTML.

    Args:
        models: in the order of the columns; their names differ.
        label: what the chains show.
        made: when, by what, and with which command.
    """
    environment = Environment(
        # Everything is escaped: names of models and classes are whatever their owner chose.
        loader=PackageLoader("ddpmctl.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        models=models,
        label=label,
        made=made,
        charts=[drawn for drawn in (_losses(models), _steps(models), _schedule(models)) if drawn],
        width=WIDTH,
        height=HEIGHT,
        facts=_rows([dict(model.facts) for model in models]),
        figures=_rows([model.figures for model in models]),
        address=png_address,
    )


def _rows(columns: Sequence[dict[str, str]]) -> list[tuple[str, list[str], bool]]:
    """A row a name: what each model says of it, and whether they say different things."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, [column.get(name, "") for column in columns]) for name in names]
    return [(name, cells, len(set(cells)) > 1) for name, cells in rows]


def _losses(models: Sequence[Told]) -> Chart | None:
    kinds: dict[str, Any] = {"train_mse": "train MSE", "validation_mse": "validation MSE"}
    lines = []
    for number, model in enumerate(models):
        for column, kind in kinds.items():
            rows = [row for row in model.history if row.get(column)]
            points = [(float(row["epoch"]), float(row[column])) for row in rows]
            told = [f"epoch {row['epoch']}, step {int(row['step']):,}: {float(row[column]):.5f}" for row in rows]
            lines.append(Line(f"{model.name}, {kind}", points, told, number, dashed=column == "train_mse"))
    return chart("Mean squared error after each epoch", "epoch", lines, log=True)


def _steps(models: Sequence[Told]) -> Chart | None:
    lines = []
    for number, model in enumerate(models):
        # A pixel shows no more than some hundred values: each is a mean over a few steps.
        parts = np.array_split(np.arange(len(model.losses)), max(1, min(150, len(model.losses))))
        means = [(int(part[-1]), float(np.mean([model.losses[k] for k in part]))) for part in parts if len(part)]
        points = [(float(model.first_step + k), loss) for k, loss in means]
        told = [f"step {int(step):,}: {loss:.4f}" for step, loss in points]
        lines.append(Line(model.name, points, told, number))
    return chart("Loss of the steps of the last epoch", "step", lines, log=True)


def _schedule(models: Sequence[Told]) -> Chart | None:
    lines = []
    alike: dict[tuple[float, ...], list[int]] = {}
    for number, model in enumerate(models):
        alike.setdefault(tuple(model.signal), []).append(number)
    for numbers in alike.values():  # models of one schedule share its curves
        names, model = " and ".join(models[number].name for number in numbers), models[numbers[0]]
        for name, values in (("signal", model.signal), ("noise", model.noise)):
            kept = sorted({round(k * (len(values) - 1) / 99) for k in range(100)})
            points = [(float(t), values[t]) for t in kept]
            told = [f"t = {t}: {name} {values[t]:.4f}" for t in kept]
            lines.append(Line(f"{names}, {name}", points, told, numbers[0], dashed=name == "noise"))
    return chart("The schedule: x_t = signal x_0 + noise epsilon", "timestep t", lines)
