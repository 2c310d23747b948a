"""How good a model is: its images against the real ones, in the eyes of one classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpmctl.data.dataset import Dataset
from ddpmctl.evaluation.classifier import Classifier, Reading, fit, read
from ddpmctl.evaluation.metrics import LEAST_NEIGHBOURS, LEAST_SAMPLES, Spread, frechet, kernel, nearest, spread

Images = NDArray[np.uint8]

FLOOR_DRAWS = 5
SPREAD_MOST = 5_000
"""Most images a side that neighbours are sought among: their distances grow with the square."""

COPY_QUANTILE = 0.01
"""A sample nearer to a training image than all but this share of real test images are is called a near-copy."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance to the training set, and the same distance of real images.

    Attributes:
        value: of the generated images; None for fewer than two training images.
        floor: of as many real test images, a mean over draws; None for fewer than two of them.
        floor_spread: standard deviation over the draws; None for one draw.
        draws: number of draws.
    """

    value: float | None
    floor: float | None
    floor_spread: float | None
    draws: int

    @property
    def ratio(self) -> float | None:
        """Ratio to the floor; None if that is unknown, or 0 to within its spread, as of a kernel distance."""
        if self.value is None or self.floor is None or self.floor <= (self.floor_spread or 0.0):
            return None
        return self.value / self.floor


@dataclass(frozen=True, slots=True)
class Memory:
    """Whether images were learnt by heart: root mean square pixel differences to the nearest training image.

    Attributes:
        made: median over the made images, in grey levels.
        real: median over real test images.
        near_copies: share of made images nearer than all but 1 % of the real test images.
    """

    made: float
    real: float
    near_copies: float


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one evaluation.

    Attributes:
        count: generated images.
        accuracy: share of them classified as their label, overall.
        accuracy_by_class: the same for each class; None for a class in ``without_figure``.
        without_figure: why a class has no accuracy, by its name.
        real_accuracy: of the classifier on real test images.
        frechet: Frechet distance to the training set.
        kernel: kernel distance to the training set.
        spread: recall, density, coverage; None for too few images.
        real_spread: the same of real test images.
        intensity: mean pixel, 0..255.
        real_intensity: of the training set.
        memory: nearest training images.
    """

    count: int
    accuracy: float
    accuracy_by_class: tuple[float | None, ...]
    without_figure: dict[str, str]
    real_accuracy: float
    frechet: Distance
    kernel: Distance
    spread: Spread | None
    real_spread: Spread | None
    intensity: float
    real_intensity: float
    memory: Memory


class Evaluator:
    """Holds the real images as the classifier sees them, and compares made ones with them.

    Args:
        classifier: the reader.
        train: real training images.
        test: real images that neither the model nor the classifier has seen.
    """

    def __init__(self, classifier: Classifier, train: Dataset, test: Dataset) -> None:
        self.classifier = classifier
        self.train = train
        self.test = test

    @cached_property
    def train_reading(self) -> Reading:
        """The training images as read."""
        return read(self.classifier, self.train.images)

    @cached_property
    def test_reading(self) -> Reading:
        """The test images as read."""
        return read(self.classifier, self.test.images)

    def report(self, images: Images, labels: list[int]) -> Report:
        """Compare uint8[N,S,S] or uint8[N,S,S,3], made for these labels, with the real ones."""
        made = as_tensor(images)
        wanted = torch.tensor(labels, device="cpu")
        reading = read(self.classifier, made)
        right = reading.classes == wanted
        without = self._without_figure(labels)
        by_class = [
            None if name in without else float(right[wanted == label].double().mean())
            for label, name in enumerate(self.train.classes)
        ]
        half = min(len(made), len(self.test), len(self.train), SPREAD_MOST)
        enough = half >= LEAST_NEIGHBOURS
        anchor = self.train_reading.features[_draw(len(self.train), half, 0)]
        return Report(
            count=len(made),
            accuracy=float(right.double().mean()),
            accuracy_by_class=tuple(by_class),
            without_figure=without,
            real_accuracy=self.test_reading.accuracy(self.test.labels),
            frechet=self._distance(frechet, reading.features),
            kernel=self._distance(kernel, reading.features),
            spread=spread(anchor, reading.features[_draw(len(made), half, 1)]) if enough else None,
            real_spread=spread(anchor, self.test_reading.features[_draw(len(self.test), half, 2)]) if enough else None,
            intensity=float(made.double().mean()),
            real_intensity=float(self.train.images.double().mean()),
            memory=self._memory(made),
        )

    def _without_figure(self, labels: list[int]) -> dict[str, str]:
        """Why a class has no accuracy of its own, by its name."""
        tested, asked = set(self.test.labels.tolist()), set(labels)
        reasons = {}
        for label, name in enumerate(self.train.classes):
            if label not in tested:
                # Of real images of this class, nobody knows how many the classifier gets right.
                reasons[name] = "no test image"
            elif label not in asked:
                reasons[name] = "no generated image"
        return reasons

    def accuracy(self, images: Images, labels: list[int]) -> float:
        """Share of images, uint8[N,S,S] or uint8[N,S,S,3], that are read as these labels."""
        return read(self.classifier, as_tensor(images)).accuracy(torch.tensor(labels, device="cpu"))

    def frechet(self, images: Images) -> Distance:
        """Frechet distance of images, uint8[N,S,S] or uint8[N,S,S,3], to the training set."""
        return self._distance(frechet, read(self.classifier, as_tensor(images)).features)

    def _distance(self, measure: Callable[[Tensor, Tensor], float], made: Tensor) -> Distance:
        """A distance and its floor at the same count; one draw if the test set is not larger."""
        train, real, count = self.train_reading.features, self.test_reading.features, len(made)
        value = measure(train, made) if min(len(train), count) >= LEAST_SAMPLES else None
        if min(len(train), len(real)) < LEAST_SAMPLES:
            return Distance(value, None, None, 0)
        draws = FLOOR_DRAWS if count < len(real) else 1
        floors = [measure(train, real[_draw(len(real), min(count, len(real)), draw)]) for draw in range(draws)]
        spread_of = float(np.std(floors, ddof=1)) if draws > 1 else None
        return Distance(value, float(np.mean(floors)), spread_of, draws)

    def _memory(self, made: Tensor) -> Memory:
        made_nearest, _ = nearest(made, self.train.images)
        real_nearest, _ = nearest(self.test.images, self.train.images)
        near = torch.quantile(real_nearest, COPY_QUANTILE)
        return Memory(
            made=float(made_nearest.median()),
            real=float(real_nearest.median()),
            near_copies=float((made_nearest < near).double().mean()),
        )


def as_tensor(images: Images) -> Tensor:
    """uint8[N,S,S] or uint8[N,S,S,3] as uint8[N,C,S,S]."""
    tensor = torch.from_numpy(images)
    return tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)


def classification_accuracy_score(
    made: Dataset, real: Dataset, test: Dataset, device: torch.device, on_step: Callable[[int, int], None]
) -> tuple[float, float]:
    """Accuracy on real test images after learning from made ones alone, and from real ones (Ravuri & Vinyals 2019)."""
    scores = []
    for source in (made, real):
        classifier = fit(source, device, on_step)
        scores.append(read(classifier, test.images).accuracy(test.labels))
    return scores[0], scores[1]


def _draw(total: int, count: int, seed: int) -> Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed), device="cpu")[:count]
