"""The page of a report: one HTML file that needs nothing beside it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpmctl.report.charts import HEIGHT, WIDTH, Chart, Line, chart
from ddpmctl.templates import load_template

PRINTED = 8
"""Frames of a film that are printed."""

MAX_LOSSES = 150
"""Points of the curve of losses; each is a mean over some steps."""

SCHEDULE_POINTS = 100

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Film:
    """Frames that a slider runs through, uint8[H,W] or uint8[H,W,3] of one size, and a caption for each."""

    frames: Sequence[Pixels]
    captions: Sequence[str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame."""
        high, wide = self.frames[0].shape[:2]
        return wide, high

    def reel(self) -> str:
        """All frames below each other, as a data URL."""
        return data_url(np.concatenate(list(self.frames), axis=0))

    def printed(self) -> str:
        """A few frames beside each other, as a data URL."""
        picked = sorted({round(k * (len(self.frames) - 1) / (PRINTED - 1)) for k in range(PRINTED)})
        return data_url(np.concatenate([self.frames[k] for k in picked], axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What the page shows of one model.

    Attributes:
        settings: names and texts.
        history: one row per epoch, as in ``history.csv``.
        losses: of the steps of the last epoch, the first of them ``first_step``; empty where they are not known.
        signal: alpha of the schedule, one value per timestep, and ``noise`` its sigma.
        sheet: titled samples.
        chain: x_t beside the predicted x_0, from noise to an image.
        training: previews of the training; None where none were kept.
        metrics: of its evaluation, as names and texts; empty where it was not evaluated.
        evaluation: how it was evaluated.
    """

    name: str
    settings: Sequence[tuple[str, str]]
    history: Sequence[dict[str, str]]
    losses: Sequence[float]
    first_step: int
    signal: Sequence[float]
    noise: Sequence[float]
    sheet: Pixels
    chain: Film
    training: Film | None = None
    metrics: dict[str, str] = field(default_factory=dict)
    evaluation: str = ""


def data_url(image: Pixels) -> str:
    """An image as the URL of a PNG that is part of the URL."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def render_page(models: Sequence[ModelReport], label: str, created: str) -> str:
    """The page of these models, as HTML.

    Args:
        models: in the order of the columns; their names differ.
        label: the class that the chains show.
        created: when, by which version, and with which command.
    """
    return load_template("ddpmctl.report", "page.html.j2").render(
        models=models,
        label=label,
        created=created,
        charts=[drawn for drawn in (_history(models), _losses(models), _schedule(models)) if drawn],
        width=WIDTH,
        height=HEIGHT,
        settings=_rows([dict(model.settings) for model in models]),
        metrics=_rows([model.metrics for model in models]),
        data_url=data_url,
    )


def _rows(columns: Sequence[dict[str, str]]) -> list[tuple[str, list[str], bool]]:
    """One row per name: the text of each model, and whether the texts differ."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, [column.get(name, "") for column in columns]) for name in names]
    return [(name, cells, len(set(cells)) > 1) for name, cells in rows]


def _history(models: Sequence[ModelReport]) -> Chart | None:
    kinds = {"train_mse": "train MSE", "validation_mse": "validation MSE"}
    lines = []
    for number, model in enumerate(models):
        for column, kind in kinds.items():
            rows = [row for row in model.history if row.get(column)]
            points = [(float(row["epoch"]), float(row[column])) for row in rows]
            tooltips = [f"epoch {row['epoch']}, step {int(row['step']):,}: {float(row[column]):.5f}" for row in rows]
            lines.append(Line(f"{model.name}, {kind}", points, tooltips, number, dashed=column == "train_mse"))
    return chart("Mean squared error after each epoch", "epoch", lines, log=True)


def _losses(models: Sequence[ModelReport]) -> Chart | None:
    lines = []
    for number, model in enumerate(models):
        parts = np.array_split(np.arange(len(model.losses)), max(1, min(MAX_LOSSES, len(model.losses))))
        means = [(int(part[-1]), float(np.mean([model.losses[k] for k in part]))) for part in parts if len(part)]
        points = [(float(model.first_step + k), loss) for k, loss in means]
        lines.append(Line(model.name, points, [f"step {int(step):,}: {loss:.4f}" for step, loss in points], number))
    return chart("Loss of the steps of the last epoch", "step", lines, log=True)


def _schedule(models: Sequence[ModelReport]) -> Chart | None:
    lines = []
    same: dict[tuple[float, ...], list[int]] = {}
    for number, model in enumerate(models):
        same.setdefault(tuple(model.signal), []).append(number)
    for numbers in same.values():  # models of one schedule share its curves
        names, model = " and ".join(models[number].name for number in numbers), models[numbers[0]]
        for name, values in (("signal", model.signal), ("noise", model.noise)):
            last = SCHEDULE_POINTS - 1
            kept = sorted({round(k * (len(values) - 1) / last) for k in range(SCHEDULE_POINTS)})
            points, tooltips = [(float(t), values[t]) for t in kept], [f"t = {t}: {name} {values[t]:.4f}" for t in kept]
            lines.append(Line(f"{names}, {name}", points, tooltips, numbers[0], dashed=name == "noise"))
    return chart("Noise schedule: x_t = signal x_0 + noise epsilon", "timestep t", lines)
