"""Per-epoch history."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One row of ``history.csv``.

    Attributes:
        epoch: counted from 1.
        step: optimizer steps by its end.
        train_mse: mean training MSE of the model output over the epoch.
        validation_mse: of the EMA weights on the validation images at fixed noise; None without validation images.
        lr: of the epoch's last step.
        images_per_second: in training.
        seconds: spent training since the start of the run.
        best: whether it was the best so far.
    """

    epoch: int
    step: int
    train_mse: float
    validation_mse: float | None
    lr: float
    images_per_second: float
    seconds: float
    best: bool


def to_csv(rows: list[EpochRow]) -> str:
    """All rows under a header; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(EpochRow))
    for row in rows:
        writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in astuple(row))
    return text.getvalue()


def from_csv(rows: Sequence[Mapping[str, str]]) -> list[EpochRow]:
    """The rows that `to_csv` wrote, as returned by a CSV reader.

    Raises:
        LookupError, ValueError: for malformed rows.
    """
    return [EpochRow(**{name: parse(row[name]) for name, parse in _PARSERS.items()}) for row in rows]


_PARSERS: dict[str, Callable[[str], Any]] = {
    "epoch": int,
    "step": int,
    "train_mse": float,
    "validation_mse": lambda cell: float(cell) if cell else None,
    "lr": float,
    "images_per_second": float,
    "seconds": float,
    "best": lambda cell: {"True": True, "False": False}[cell],
}
