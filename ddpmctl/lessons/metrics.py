"""Metrics of a set of images: some of pixels alone, and more if a classifier is available."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import DataError, Setting
from ddpmctl.evaluation.cache import cached_classifier
from ddpmctl.evaluation.classifier import OnStep
from ddpmctl.evaluation.evaluator import Evaluator, Images
from ddpmctl.evaluation.metrics import is_available
from ddpmctl.sampling.loop import channels_last_pixels

COLUMNS = ("label accuracy", "Frechet distance", "sharpness", "mean intensity", "distance to class mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetrics:
    """Metrics of one set of images.

    Attributes:
        accuracy: share of images that are classified as their label; None without a classifier.
        frechet: Frechet distance to the training set in its features; None without one.
        sharpness: mean absolute difference between neighbouring pixels, in grey levels.
        intensity: mean pixel, 0..255.
        to_mean: root mean square difference to the mean image of the class, in grey levels.
    """

    accuracy: float | None
    frechet: float | None
    sharpness: float
    intensity: float
    to_mean: float

    def cells(self) -> tuple[str, ...]:
        """The metrics in the order of `COLUMNS`."""
        return (
            "not measured" if self.accuracy is None else f"{self.accuracy:.1%}",
            "not measured" if self.frechet is None else f"{self.frechet:.3g}",
            f"{self.sharpness:.1f}", f"{self.intensity:.1f}", f"{self.to_mean:.1f}",
        )  # fmt: skip


class ImageEvaluator:
    """Measures generated images, and real ones for comparison.

    Args:
        test: real images that no network was trained on.
        on_step: called while a classifier is trained.
    """

    def __init__(self, train: Dataset, test: Dataset, device: torch.device, on_step: OnStep) -> None:
        self.train = train
        self.test = test
        self.real_images(len(test.classes))  # a class without images is reported before training
        self.evaluator = None
        self.classifier = "none, torchmetrics is not installed"
        if is_available():
            cached = cached_classifier(train, test, device, on_step)
            self.evaluator = Evaluator(cached.classifier, train, test)
            self.classifier = f"accuracy {cached.accuracy:.1%} on real test images"

    def measure(self, images: Images, labels: list[int]) -> ImageMetrics:
        """Measure uint8[N,S,S] or uint8[N,S,S,3], generated for these labels."""
        return self._metrics(images, labels, self.evaluator.frechet(images).value if self.evaluator else None)

    def measure_real(self, count: int) -> ImageMetrics:
        """The same of real test images; their Frechet distance is the real-data floor, a mean over draws."""
        images, labels = self.real_images(count)
        return self._metrics(images, labels, self.evaluator.frechet(images).floor if self.evaluator else None)

    def real_images(self, count: int) -> tuple[Images, list[int]]:
        """Test images, cycling through all classes, and their labels."""
        classes = self.test.classes
        by_class = [(self.test.labels == label).nonzero()[:, 0].tolist() for label in range(len(classes))]
        if not all(by_class):
            missing = classes[[bool(ids) for ids in by_class].index(False)]
            raise DataError(
                f"{self.test.name} has no test image of class {missing}",
                "provide at least ten images per class, or use ",
                Setting("dataset", "mnist"),
            )
        labels = [k % len(classes) for k in range(count)]
        ids = [by_class[k % len(classes)][k // len(classes) % len(by_class[k % len(classes)])] for k in range(count)]
        return channels_last_pixels(self.test.images[ids]), labels

    @cached_property
    def class_means(self) -> NDArray[np.float32]:
        """The mean training image of each class, float32[classes,...] in grey levels."""
        pixels, labels = channels_last_pixels(self.train.images.cpu()), self.train.labels.cpu().numpy()
        return np.stack([pixels[labels == k].mean(axis=0, dtype=np.float32) for k in range(len(self.train.classes))])

    def _metrics(self, images: Images, labels: list[int], frechet: float | None) -> ImageMetrics:
        difference = images.astype(np.float32) - self.class_means[labels]
        return ImageMetrics(
            accuracy=self.evaluator.accuracy(images, labels) if self.evaluator else None,
            frechet=frechet,
            sharpness=sharpness(images),
            intensity=float(images.mean()),
            to_mean=float(np.sqrt(np.square(difference).mean())),
        )


def sharpness(images: Images) -> float:
    """Mean absolute difference between neighbouring pixels of uint8[N,S,S] or uint8[N,S,S,3], in grey levels."""
    levels = images.astype(np.int16)
    return float(np.mean([np.abs(np.diff(levels, axis=axis)).mean() for axis in (1, 2)]))
