"""The images that a model was trained on, grids of the images of a dataset, and pictures prepared like them."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl.data import OWN, load_dataset
from ddpmctl.errors import DataError
from ddpmctl.registry import Manifest

if TYPE_CHECKING:
    from PIL import Image

    from ddpmctl.data.dataset import Dataset
    from ddpmctl.imaging.drawing import Drawing
    from ddpmctl.imaging.upscale import Images

log = logging.getLogger("ddpmctl")

DIGITS = ("mnist", "strokes", "emnist", "qmnist")
"""Datasets whose images are scaled and centred as MNIST's."""

LIGHT_ON_DARK = (*DIGITS, "fashion-mnist", "kmnist")
"""Datasets of light objects on black."""

SHEET_ROWS = 5
"""Images of each class in a grid."""

SHEET_COLUMNS = 10
"""Classes side by side in a grid."""


def load_training_data(
    manifest: Manifest,
    data_dir: Path | None,
    *,
    train: bool = True,
    notice: Callable[[str], None] = lambda sentence: None,
) -> "Dataset":
    """The training images of a model, at the resolution of its network, or the test images of the same dataset.

    Raises DataError if the dataset no longer has the classes of the model.
    """
    model = manifest.config.model
    own = manifest.dataset.name.startswith(f"{OWN}:")
    data = load_dataset(
        manifest.dataset.name, model.sample_size, data_dir, train=train, fit=manifest.dataset.fit,
        channels=model.channels if own else None, notice=notice,
    )  # fmt: skip
    if data.classes != manifest.classes and (manifest.dataset.digest or len(data.classes) != len(manifest.classes)):
        # Labels are indices: with other classes they would mean something else.
        raise DataError(
            f"{data.name} no longer has the classes that the model was trained on: "
            f"{_difference(data.classes, manifest.classes)}",
            "restore its folders, or train a new model: ddpmctl train",
        )
    return data


def default_fit(manifest: Manifest) -> str:
    """How a picture is prepared for a model: ``digit`` for digits of MNIST's kind, otherwise ``crop``."""
    return "digit" if manifest.dataset.name.partition(":")[0] in DIGITS else manifest.dataset.fit or "crop"


def prepare_for_model(
    manifest: Manifest,
    picture: "Image.Image | Path",
    fit: str | None = None,
    *,
    invert: bool | None = None,
    keep: bool = True,
) -> "Drawing":
    """Prepare a person's picture as the images that a model was trained on; see `imaging.drawing.prepare_drawing`.

    Args:
        fit: ``digit``, ``crop`` or ``pad``; None for `default_fit`.
        invert: exchange light and dark; None recognizes a picture that is dark on light, if the images are known to be
            light on dark.
        keep: take a light on dark picture of 28x28 pixels or of the model's own size as it is.

    Returns:
        The drawing, with pixels at the resolution of the network: uint8[S,S], or uint8[S,S,3] for colour.
    """
    import torch

    from ddpmctl.data.dataset import resized
    from ddpmctl.imaging.drawing import FIELD, prepare_drawing

    model, fit = manifest.config.model, fit or default_fit(manifest)
    light_on_dark = manifest.dataset.name.partition(":")[0] in LIGHT_ON_DARK
    if invert is None and not light_on_dark and fit != "digit":
        invert = False
    native = FIELD if light_on_dark or fit == "digit" else model.sample_size
    sizes = (native, model.image_size, model.sample_size) if keep else ()
    drawing = prepare_drawing(picture, native, model.channels, fit, invert=invert, keep=sizes)
    pixels = torch.from_numpy(drawing.pixels.reshape(*drawing.pixels.shape[:2], -1).copy())
    small = resized(pixels.permute(2, 0, 1)[None], model.sample_size)[0].permute(1, 2, 0)
    return replace(drawing, pixels=small.numpy().reshape(*small.shape[:2], *drawing.pixels.shape[2:]))


def sheet_rows(data: "Dataset") -> "tuple[list[list[Images]], list[list[str]]]":
    """Rows of images of each class for `imaging.grid.labelled_grid`, and the titles of each row.

    Classes without images are omitted with a logged warning; a class of few images repeats them.
    """
    by_class = [(data.labels == label).nonzero()[:SHEET_ROWS, 0].tolist() for label in range(len(data.classes))]
    if empty := [name for name, ids in zip(data.classes, by_class, strict=True) if not ids]:
        log.warning("%s has no images of: %s", data.name, ", ".join(empty))
    present = [label for label, ids in enumerate(by_class) if ids]
    pixels = data.images.permute(0, 2, 3, 1).numpy()
    rows, titles = [], []
    for start in range(0, len(present), SHEET_COLUMNS):
        shown = present[start : start + SHEET_COLUMNS]
        for row in range(SHEET_ROWS):
            images = pixels[[by_class[label][row % len(by_class[label])] for label in shown]]
            rows.append(list(images[..., 0] if images.shape[-1] == 1 else images))
            titles.append([data.classes[label] for label in shown] if row == 0 else [])
    return rows, titles


def _difference(now: tuple[str, ...], before: tuple[str, ...]) -> str:
    added, removed = ([name for name in one if name not in other] for one, other in ((now, before), (before, now)))
    parts = [f"{word} {', '.join(names[:5])}" for word, names in (("new:", added), ("missing:", removed)) if names]
    return "; ".join(parts) or "their order is different"
