"""The page of a report: one self-contained HTML file."""

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
"""Number of frames in print."""

MAX_LOSSES = 150
"""Maximum points of the loss curve; each is a mean over several steps."""

SCHEDULE_POINTS = 100

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FrameSequence:
    """Frames for a slider, uint8[H,W] or uint8[H,W,3] of one size, and a caption for each."""

    frames: Sequence[Pixels]
    captions: Sequence[str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame."""
        high, wide = self.frames[0].shape[:2]
        return wide, high

    def reel(self) -> str:
        """All frames stacked vertically, as a data URL."""
        return data_url(np.concatenate(list(self.frames), axis=0))

    def printed(self) -> str:
        """A few frames side by side, as a data URL."""
        picked = sorted({round(k * (len(self.frames) - 1) / (PRINTED - 1)) for k in range(PRINTED)})
        return data_url(np.concatenate([self.frames[k] for k in picked], axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """The content of the page for one model.

    Attributes:
        settings: names and values as text.
        history: one row per epoch, as in ``history.csv``.
        losses: losses of the steps of the last epoch, starting with ``first_step``; empty if unknown.
        signal: alpha of the schedule, one value per timestep, and ``noise`` its sigma.
        sheet: titled samples.
        chain: x_t next to the predicted x_0, from noise to an image.
        training: previews of the run; None if there are none.
        metrics: metrics of its evaluation, as names and texts; empty if not evaluated.
        evaluation: the conditions of the evaluation.
    """

    name: str
    settings: Sequence[tuple[str, str]]
    history: Sequence[dict[str, str]]
    losses: Sequence[float]
    first_step: int
    signal: Sequence[float]
    noise: Sequence[float]
    sheet: Pixels
    chain: FrameSequence
    training: FrameSequence | None = None
    metrics: dict[str, str] = field(default_factory=dict)
    evaluation: str = ""


def data_url(image: Pixels) -> str:
    """A PNG of an image as a data URL."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def render_page(models: Sequence[ModelReport], label: str, created: str) -> str:
    """The page of these models, as HTML.

    Args:
        models: in the order of the columns; their names differ.
        label: the class of the trajectories.
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
    return chart("Training loss in the last epoch", "step", lines, log=True)


def _schedule(models: Sequence[ModelReport]) -> Chart | None:
    lines = []
    same: dict[tuple[float, ...], list[int]] = {}
    for number, model in enumerate(models):
        same.setdefault(tuple(model.signal), []).append(number)
    for numbers in same.values():  # models with the same schedule share its curves
        names, model = " and ".join(models[number].name for number in numbers), models[numbers[0]]
        for name, values in (("alpha_t", model.signal), ("sigma_t", model.noise)):
            last = SCHEDULE_POINTS - 1
            kept = sorted({round(k * (len(values) - 1) / last) for k in range(SCHEDULE_POINTS)})
            points, tooltips = [(float(t), values[t]) for t in kept], [f"t = {t}: {name} {values[t]:.4f}" for t in kept]
            lines.append(Line(f"{names}, {name}", points, tooltips, numbers[0], dashed=name == "sigma_t"))
    return chart("Noise schedule: x_t = alpha_t x_0 + sigma_t epsilon", "timestep t", lines)
