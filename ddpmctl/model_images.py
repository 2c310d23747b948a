"""The images that belong to a model: those that it was trained on, and the test images beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmctl.data import OWN, load_dataset
from ddpmctl.errors import DataError
from ddpmctl.registry import Manifest

if TYPE_CHECKING:
    from ddpmctl.data.dataset import Dataset


def same_images(
    manifest: Manifest,
    data_dir: Path | None,
    *,
    train: bool = True,
    notice: Callable[[str], None] = lambda sentence: None,
) -> "Dataset":
    """The images that a model was trained on, at the side of its network, or the test images of the same data set.

    Raises:
        DataError: when they cannot be loaded, or show other classes than those of the model.
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
            "restore its folders, or train another model: ddpmctl train",
        )
    return data


def _difference(now: tuple[str, ...], before: tuple[str, ...]) -> str:
    added, removed = ([name for name in one if name not in other] for one, other in ((now, before), (before, now)))
    parts = [f"{word} {', '.join(names[:5])}" for word, names in (("new:", added), ("missing:", removed)) if names]
    return "; ".join(parts) or "their order is different"
