"""The built-in digits."""

import numpy as np
import pytest

from ddpmctl.data import strokes

COUNT = 200


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    return strokes.draw(COUNT, seed=3)


def test_images_are_bytes_of_mnist_size_with_int64_labels(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    assert images.shape == (COUNT, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (COUNT,)
    assert labels.dtype == np.int64


def test_no_digits_are_an_empty_set() -> None:
    images, labels = strokes.draw(0, seed=3)
    assert images.shape == (0, 28, 28)
    assert labels.shape == (0,)


def test_every_digit_is_drawn_equally_often(digits: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.bincount(digits[1]).tolist() == [COUNT // 10] * 10


def test_a_seed_always_draws_the_same_digits(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = strokes.draw(COUNT, seed=3)
    assert np.array_equal(images, digits[0])
    assert np.array_equal(labels, digits[1])


def test_a_larger_count_only_appends(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = strokes.draw(37, seed=3)
    assert np.array_equal(images, digits[0][:37])
    assert np.array_equal(labels, digits[1][:37])


def test_another_seed_draws_other_digits(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, _ = strokes.draw(COUNT, seed=4)
    assert (images != digits[0]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("digit", range(10))
def test_no_two_images_of_a_digit_are_alike(digits: tuple[np.ndarray, np.ndarray], digit: int) -> None:
    images, labels = digits
    same = images[labels == digit].astype(np.float64)
    distances = np.abs(same[:, None] - same[None]).mean(axis=(2, 3))
    assert distances[~np.eye(len(same), dtype=bool)].min() > 2


def test_ink_is_white_on_black(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, _ = digits
    assert (images.max(axis=(1, 2)) >= 200).all()
    assert ((images == 0).mean(axis=(1, 2)) > 0.5).all()
    assert (images[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()


def test_there_is_as_much_ink_as_in_mnist(digits: tuple[np.ndarray, np.ndarray]) -> None:
    assert 28 < digits[0].mean() < 40


def test_ink_is_centred(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images = digits[0].astype(np.float64)
    total = images.sum(axis=(1, 2))
    for axis in (1, 2):
        centre = (images.sum(axis=axis) * np.arange(28)).sum(axis=1) / total
        assert np.abs(centre - 13.5).max() < 0.5


def test_a_digit_fills_a_box_of_about_20_pixels(digits: tuple[np.ndarray, np.ndarray]) -> None:
    ink = digits[0] > 64
    sides = np.stack([ink.any(axis=axis).sum(axis=1) for axis in (1, 2)])
    longer = sides.max(axis=0)
    assert longer.min() >= 17
    assert longer.max() <= 23
