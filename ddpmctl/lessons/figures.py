"""What is measured of a set of images: always what needs nothing but arithmetic, and more where a classifier is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import DataError
from ddpmctl.lessons.findings import Table
from ddpmctl.sampling.loop import channels_last_pixels

Images = NDArray[np.uint8]

COLUMNS = ("labels right", "Frechet", "sharpness", "intensity", "to class mean")
"""Label accuracy, Frechet distance, mean difference of neighbours, mean pixel, distance to the mean of the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one set of images.

    Attributes:
        accuracy: share of them that a classifier reads as their label; None without a classifier.
        frechet: Frechet distance to the training set in its features; None without one.
        sharpness: mean difference between neighbouring pixels, in grey levels.
        intensity: mean pixel, 0..255.
        to_mean: root mean square difference to the mean image of the class, in grey levels.
    """

    accuracy: float | None
    frechet: float | None
    sharpness: float
    intensity: float
    to_mean: float

    def cells(self) -> tuple[str, ...]:
        """In the order of `COLUMNS`."""
        return (
            "not measured" if self.accuracy is None else f"{self.accuracy:.1%}",
            "not measured" if self.frechet is None else f"{self.frechet:.3g}",
            f"{self.sharpness:.1f}", f"{self.intensity:.1f}", f"{self.to_mean:.1f}",
        )  # fmt: skip


def comparison(count: int, measured: dict[str, Figures], note: str) -> Table:
    """Sets of images beside one another, the real ones last."""
    return Table(
        title=f"{count} images each",
        columns=("", *COLUMNS),
        rows=tuple((name, *figures.cells()) for name, figures in measured.items()),
        note=f"{note} The Frechet distance of the real images is the floor: what as many real test images have.",
    )


class Judge:
    """Measures sets of made images, and a set of real ones for comparison.

    Args:
        train: real training images.
        test: real images that no network has seen.
        device: where the classifier computes.
        on_step: called with the step and the number of steps while a classifier is trained.

    Raises:
        DataError: when a class has no test image.
    """

    def __init__(
        self, train: Dataset, test: Dataset, device: torch.device, on_step: Callable[[int, int], None]
    ) -> None:
        self.train = train
        self.test = test
        self.real_images(len(test.classes))  # a class without any is reported before anything is trained
        self.evaluator = None
        self.name = "nobody: torchmetrics is not installed"
        if find_spec("torchmetrics"):
            from ddpmctl.evaluation.cache import cached_classifier
            from ddpmctl.evaluation.evaluator import Evaluator

            trained = cached_classifier(train, test, device, on_step)
            self.evaluator = Evaluator(trained.classifier, train, test)
            self.name = f"a classifier that reads {trained.accuracy:.1%} of real test images right"

    def figures(self, images: Images, labels: list[int]) -> Figures:
        """Measure uint8[N,S,S] or uint8[N,S,S,3], made for these labels."""
        return self._figures(images, labels, self.evaluator.frechet(images).value if self.evaluator else None)

    def real(self, count: int) -> Figures:
        """The same of real test images; their Frechet distance is the floor at this count, a mean over draws."""
        images, labels = self.real_images(count)
        return self._figures(images, labels, self.evaluator.frechet(images).floor if self.evaluator else None)

    def real_images(self, count: int) -> tuple[Images, list[int]]:
        """Test images of the classes in turn, and their labels.

        Raises:
            DataError: when a class has no test image.
        """
        classes = self.test.classes
        by_class = [(self.test.labels == label).nonzero()[:, 0].tolist() for label in range(len(classes))]
        if not all(by_class):
            missing = classes[[bool(ids) for ids in by_class].index(False)]
            raise DataError(
                f"no test image of {self.test.name} shows {missing}",
                "ten or more images of each class, or --dataset mnist",
            )
        labels = [k % len(classes) for k in range(count)]
        ids = [by_class[k % len(classes)][k // len(classes) % len(by_class[k % len(classes)])] for k in range(count)]
        return channels_last_pixels(self.test.images[ids]), labels

    @cached_property
    def class_means(self) -> NDArray[np.float32]:
        """The mean training image of each class, float32[classes,...] in grey levels."""
        pixels, labels = channels_last_pixels(self.train.images.cpu()), self.train.labels.cpu().numpy()
        return np.stack([pixels[labels == k].mean(axis=0, dtype=np.float32) for k in range(len(self.train.classes))])

    def _figures(self, images: Images, labels: list[int], frechet: float | None) -> Figures:
        off = images.astype(np.float32) - self.class_means[labels]
        return Figures(
            accuracy=self.evaluator.accuracy(images, labels) if self.evaluator else None,
            frechet=frechet,
            sharpness=sharpness(images),
            intensity=float(images.mean()),
            to_mean=float(np.sqrt(np.square(off).mean())),
        )


def sharpness(images: Images) -> float:
    """Mean absolute difference between neighbouring pixels of uint8[N,S,S] or uint8[N,S,S,3], in grey levels."""
    levels = images.astype(np.int16)
    steps = [np.abs(np.diff(levels, axis=axis)).mean() for axis in (1, 2)]
    return float(np.mean(steps))
