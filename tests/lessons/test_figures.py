"""What is measured of a set of images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import DataError
from ddpmctl.lessons import metrics
from ddpmctl.lessons.figures import FRAMES, curves, side_by_side, smoothed, tiled
from ddpmctl.lessons.metrics import ImageEvaluator, sharpness
from tests.cli.support import frames

CPU = torch.device("cpu")


@pytest.fixture
def data() -> Dataset:
    return load_dataset("strokes:200", 32)


@pytest.fixture
def evaluator(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> ImageEvaluator:
    """One without a classifier."""
    monkeypatch.setattr(metrics, "is_available", lambda: False)
    return ImageEvaluator(data, data, CPU, lambda done, total: None)


def test_sharpness_is_the_mean_step_between_neighbours() -> None:
    assert sharpness(np.full((3, 8, 8), 200, np.uint8)) == 0
    board = np.indices((8, 8)).sum(axis=0) % 2 * np.uint8(100)
    assert sharpness(board[None].astype(np.uint8)) == 100
    stripes = np.tile(np.array([0, 60], np.uint8), (1, 8, 4))
    assert sharpness(stripes) == 30  # across 60, along 0


def test_without_a_classifier_nothing_is_said_of_labels(evaluator: ImageEvaluator) -> None:
    images, labels = evaluator.real_images(20)
    measured = evaluator.measure(images, labels)
    assert (measured.accuracy, measured.frechet) == (None, None)
    assert measured.cells()[:2] == ("not measured", "not measured")
    assert "torchmetrics is not installed" in evaluator.classifier
    assert measured.intensity == pytest.approx(images.mean())
    assert evaluator.measure_real(20) == measured


def test_an_image_that_is_the_mean_of_its_class_is_told_by_its_distance(evaluator: ImageEvaluator) -> None:
    labels = [3, 5, 3]
    means = np.round(evaluator.class_means[labels]).astype(np.uint8)
    assert evaluator.measure(means, labels).to_mean < 0.5
    assert evaluator.measure(means, [5, 3, 5]).to_mean > 10


def test_real_images_show_each_class_in_turn(evaluator: ImageEvaluator) -> None:
    images, labels = evaluator.real_images(25)
    assert labels == [k % 10 for k in range(25)]
    assert len({image.tobytes() for image in images}) == 25
    # A set that runs out of images of a class begins again.
    many, _ = evaluator.real_images(1000)
    assert len(many) == 1000


def test_a_class_without_test_images_is_named(evaluator: ImageEvaluator) -> None:
    test = evaluator.test
    few = replace(test, images=test.images[test.labels != 4], labels=test.labels[test.labels != 4])
    evaluator.test = few
    with pytest.raises(DataError, match="strokes has no test image of class four"):
        evaluator.real_images(10)
    # Before a classifier is trained, and before the minutes that a lesson takes.
    with pytest.raises(DataError, match="strokes has no test image of class four"):
        ImageEvaluator(evaluator.train, few, CPU, lambda done, total: pytest.fail("a classifier is trained"))


def test_chains_of_different_lengths_play_side_by_side(tmp_path: Path) -> None:
    left = [tiled(np.full((10, 32, 32), 255, np.uint8))]
    right = [tiled(np.full((10, 32, 32), level, np.uint8)) for level in range(0, 240, 10)]
    assert len(right) == FRAMES
    (tmp_path / "a.gif").write_bytes(side_by_side(left, right, ("trap", "fix")))
    shown, _ = frames(tmp_path / "a.gif")
    assert 10 < len(shown) <= FRAMES
    middle = shown[0].shape[1] // 2
    assert all((frame[60:-10, 20 : middle - 20] == 255).all() for frame in shown)
    assert shown[0][60:-10, middle + 20 : -20].max() < shown[-1][60:-10, middle + 20 : -20].min()


def test_a_curve_of_figures_that_are_not_numbers_is_still_drawn() -> None:
    values = np.array([1, 10, np.nan, 100, np.inf], np.float32)
    assert curves({"loss": {"trap": values, "fix": np.ones(5, np.float32)}, "norm": {"trap": values}})[:4] == b"\x89PNG"
    assert smoothed(np.arange(100, dtype=np.float32))[50] == 50
