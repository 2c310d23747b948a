"""Generated images compared with the real ones, in pixels and in the features of a classifier."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpmctl.data.dataset import Dataset
from ddpmctl.evaluation.classifier import Classifier, OnStep, Predictions, fit, predict
from ddpmctl.evaluation.metrics import MIN_NEIGHBOURS, MIN_SAMPLES, Diversity, diversity, frechet, kernel, nearest

Images = NDArray[np.uint8]

FLOOR_DRAWS = 5
DIVERSITY_SAMPLES = 5_000
"""Images per side whose neighbours are searched at most: the number of distances grows with the square."""

DUPLICATE_QUANTILE = 0.01
"""A near-duplicate is nearer to a training image than all but this share of real test images are."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance to the training set, and the same distance of real images: the real-data floor.

    Attributes:
        value: None for fewer than two training images, or if not finite.
        floor: of the same number of real test images, averaged over draws; None likewise.
        floor_std: standard deviation over the draws; None for one draw.
    """

    value: float | None
    floor: float | None
    floor_std: float | None
    draws: int

    @property
    def ratio(self) -> float | None:
        """Ratio to the floor; None if the floor is unknown or not significantly above 0."""
        if self.value is None or self.floor is None or self.floor <= (self.floor_std or 0.0):
            return None
        return self.value / self.floor


@dataclass(frozen=True, slots=True)
class Memorization:
    """Root mean square pixel differences to the nearest training image.

    Attributes:
        generated: median over the generated images, in grey levels.
        real: median over real test images.
        near_duplicates: share of generated images nearer than all but 1 % of the real test images.
    """

    generated: float
    real: float
    near_duplicates: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one set of generated images.

    Attributes:
        accuracy: label accuracy: the share classified as their label.
        accuracy_by_class: None for a class in ``unmeasured_classes``.
        unmeasured_classes: why a class has no accuracy, by its name.
        real_accuracy: of the classifier on real test images.
        diversity: None for too few images; likewise ``real_diversity`` of real test images.
        intensity: mean pixel, 0..255, and ``real_intensity`` of the training set.
    """

    count: int
    accuracy: float
    accuracy_by_class: tuple[float | None, ...]
    unmeasured_classes: dict[str, str]
    real_accuracy: float
    frechet: Distance
    kernel: Distance
    diversity: Diversity | None
    real_diversity: Diversity | None
    intensity: float
    real_intensity: float
    memorization: Memorization


class Evaluator:
    """Compares generated images with real ones, whose features it computes once.

    Args:
        test: real images that neither the model nor the classifier was trained on.
    """

    def __init__(self, classifier: Classifier, train: Dataset, test: Dataset) -> None:
        self.classifier = classifier
        self.train = train
        self.test = test

    @cached_property
    def train_predictions(self) -> Predictions:
        """The predictions for the training images."""
        return predict(self.classifier, self.train.images)

    @cached_property
    def test_predictions(self) -> Predictions:
        """The predictions for the test images."""
        return predict(self.classifier, self.test.images)

    def measure(self, images: Images, labels: list[int]) -> Metrics:
        """Compare uint8[N,S,S] or uint8[N,S,S,3], generated for these labels, with the real images."""
        generated, expected = as_tensor(images), torch.tensor(labels, device="cpu")
        predictions = predict(self.classifier, generated)
        correct, unmeasured = predictions.labels == expected, self._unmeasured_classes(labels)
        by_class = [
            None if name in unmeasured else float(correct[expected == label].double().mean())
            for label, name in enumerate(self.train.classes)
        ]
        count = min(len(generated), len(self.test), len(self.train), DIVERSITY_SAMPLES)
        return Metrics(
            count=len(generated),
            accuracy=float(correct.double().mean()),
            accuracy_by_class=tuple(by_class),
            unmeasured_classes=unmeasured,
            real_accuracy=self.test_predictions.accuracy(self.test.labels),
            frechet=self._distance(frechet, predictions.features),
            kernel=self._distance(kernel, predictions.features),
            diversity=self._diversity(predictions.features, count, seed=1),
            real_diversity=self._diversity(self.test_predictions.features, count, seed=2),
            intensity=float(generated.double().mean()),
            real_intensity=float(self.train.images.double().mean()),
            memorization=self._memorization(generated),
        )

    def accuracy(self, images: Images, labels: list[int]) -> float:
        """Share of images, uint8[N,S,S] or uint8[N,S,S,3], that are classified as these labels."""
        return predict(self.classifier, as_tensor(images)).accuracy(torch.tensor(labels, device="cpu"))

    def frechet(self, images: Images) -> Distance:
        """Frechet distance of images, uint8[N,S,S] or uint8[N,S,S,3], to the training set."""
        return self._distance(frechet, predict(self.classifier, as_tensor(images)).features)

    def classification_accuracy_score(
        self, images: Images, labels: list[int], on_step: OnStep = lambda done, total: None
    ) -> tuple[float, float]:
        """Accuracy on real test images after training on these, and on equally many real images (Ravuri et al. 2019).

        Args:
            on_step: called for the first classifier, then for the second.
        """
        generated = Dataset(self.train.name, as_tensor(images), torch.tensor(labels), self.train.classes)
        shuffled, _ = self.train.split(0)
        real = Dataset(shuffled.name, shuffled.images[: len(images)], shuffled.labels[: len(images)], shuffled.classes)
        device = next(self.classifier.parameters()).device
        score, real_score = (
            predict(fit(data, device, on_step), self.test.images).accuracy(self.test.labels)
            for data in (generated, real)
        )
        return score, real_score

    def _unmeasured_classes(self, labels: list[int]) -> dict[str, str]:
        tested, generated = set(self.test.labels.tolist()), set(labels)
        reasons = {}
        for label, name in enumerate(self.train.classes):
            if label not in tested:
                # The accuracy of the classifier on real images of this class is unknown.
                reasons[name] = "no test image"
            elif label not in generated:
                reasons[name] = "no generated image"
        return reasons

    def _distance(self, measure: Callable[[Tensor, Tensor], float], generated: Tensor) -> Distance:
        """A distance and its floor at the same count; one draw if the test set is not larger."""
        train, real, count = self.train_predictions.features, self.test_predictions.features, len(generated)
        value = _finite(measure(train, generated)) if min(len(train), count) >= MIN_SAMPLES else None
        if min(len(train), len(real)) < MIN_SAMPLES:
            return Distance(value, None, None, 0)
        draws = FLOOR_DRAWS if count < len(real) else 1
        floors = [measure(train, real[_draw(len(real), min(count, len(real)), draw)]) for draw in range(draws)]
        floor_std = _finite(np.std(floors, ddof=1)) if draws > 1 else None
        return Distance(value, _finite(np.mean(floors)), floor_std, draws)

    def _diversity(self, features: Tensor, count: int, seed: int) -> Diversity | None:
        if count < MIN_NEIGHBOURS:
            return None
        train = self.train_predictions.features
        return diversity(train[_draw(len(train), count, 0)], features[_draw(len(features), count, seed)])

    def _memorization(self, generated: Tensor) -> Memorization:
        distances, _ = nearest(generated, self.train.images)
        real_distances, _ = nearest(self.test.images, self.train.images)
        near = torch.quantile(real_distances, DUPLICATE_QUANTILE)
        return Memorization(
            generated=float(distances.median()),
            real=float(real_distances.median()),
            near_duplicates=float((distances < near).double().mean()),
        )


def as_tensor(images: Images) -> Tensor:
    """uint8[N,S,S] or uint8[N,S,S,3] as uint8[N,C,S,S]."""
    tensor = torch.from_numpy(images)
    return tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)


def _draw(total: int, count: int, seed: int) -> Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed), device="cpu")[:count]


def _finite(value: SupportsFloat) -> float | None:
    return float(value) if math.isfinite(value) else None
