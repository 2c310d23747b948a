"""Datasets by name, and the preprocessing of their images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from ddpmctl import imports
from ddpmctl.data import DATASETS, load_dataset, strokes
from ddpmctl.data.dataset import Dataset, resized, to_model_range
from ddpmctl.errors import DdpmctlError, UsageError
from tests import digit_classifier
from tests.builders import DIGITS


@pytest.mark.parametrize("count", [10, 37])
def test_as_many_strokes_are_drawn_as_are_asked_for(count: int) -> None:
    data = load_dataset(f"strokes:{count}", 32)
    images, labels = strokes.draw(count, seed=0)
    assert (data.name, data.classes) == ("strokes", DIGITS)
    assert data.images.equal(resized(torch.from_numpy(images)[:, None], 32))
    assert data.labels.tolist() == labels.tolist()


def test_the_test_strokes_are_others_than_the_training_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpmctl.data.STROKES_TEST_COUNT", 200)
    train = {image.numpy().tobytes() for image in load_dataset("strokes:1000", 28).images}
    for name in ("strokes", "strokes:50"):
        test = load_dataset(name, 28, train=False)
        assert torch.bincount(test.labels).tolist() == [20] * 10
        assert not {image.numpy().tobytes() for image in test.images} & train


@pytest.mark.parametrize("argument", ["9", "0", "-5", "1000001", "many", "1e3", "20.0"])
def test_an_impossible_number_of_strokes_is_refused(argument: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_dataset(f"strokes:{argument}", 32)
    assert caught.value.message == f"strokes:{argument}: the count must be in 10..1000000"
    assert caught.value.hint == "dataset='strokes:20000'"


def test_the_classifier_reads_at_least_four_fifths_of_the_strokes_of_each_digit() -> None:
    data = load_dataset("strokes:2000", 32)
    labels = data.labels.numpy()
    right = digit_classifier.classify(data.images[:, 0].numpy()) == labels
    assert right.mean() >= 0.8
    assert {digit: right[labels == digit].mean() for digit in range(10) if right[labels == digit].mean() < 0.8} == {}


def test_the_classifier_reads_the_real_test_digits(mnist_dir: Path) -> None:
    real = load_dataset("mnist", 32, mnist_dir, train=False)
    assert digit_classifier.accuracy(real.images[:2000, 0].numpy(), real.labels[:2000].numpy()) > 0.985


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist"),
        ImportError("undefined symbol"),
        AttributeError("partially initialized module"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_torchvision_of_another_build_is_explained(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(imports, "import_module", fail)
    with pytest.raises(DdpmctlError) as caught:
        imports.load_torchvision("datasets.mnist")
    assert caught.value.message == f"torchvision is not compatible with the installed torch: {error}"
    assert caught.value.hint == "install a matching pair: pip install --force-reinstall torch torchvision"


@pytest.mark.parametrize(
    ("typed", "hint"), [("mnst", "did you mean mnist?"), ("Strokes", "did you mean strokes?"), ("imagenet:3", None)]
)
def test_an_unknown_dataset_is_refused(typed: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        load_dataset(typed, 32)
    assert caught.value.message == f"unknown dataset '{typed.partition(':')[0]}'"
    assert caught.value.hint == (hint or f"one of: {', '.join(DATASETS)}")


def test_mnist_takes_no_argument() -> None:
    with pytest.raises(UsageError, match=r"^the dataset mnist takes no argument, got '100'$"):
        load_dataset("mnist:100", 32)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any), st.integers(1, 500))
def test_labels_are_drawn_in_the_proportions_of_the_set(sizes: list[int], count: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    data = Dataset("made", images, labels, tuple(map(str, range(len(sizes)))))
    drawn = data.proportional_labels(count)
    assert len(drawn) == count
    for label, size in enumerate(sizes):
        assert abs(drawn.count(label) - count * size / len(labels)) < 1
        # Any beginning of the list is mixed, too: sheets show it.
        assert abs(drawn[: count // 2].count(label) - drawn.count(label) / 2) <= 1


def test_equal_classes_take_turns() -> None:
    data = load_dataset("strokes:100", 32)
    assert data.proportional_labels(30) == [k % 10 for k in range(30)]


@pytest.mark.parametrize("size", [28, 32, 64, 16])
@pytest.mark.parametrize("content", ["digits", "noise"])
def test_images_are_resized_as_torchvision_resizes_pictures(size: int, content: str) -> None:
    images = torch.from_numpy(strokes.draw(20, seed=0)[0])
    if content == "noise":
        images = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = transforms.Resize((size, size))
    expected = np.stack([np.asarray(theirs(Image.fromarray(image.numpy()))) for image in images])
    ours = resized(images[:, None], size)
    assert ours.dtype == torch.uint8
    assert ours.shape == (20, 1, size, size)
    assert np.abs(ours[:, 0].numpy().astype(int) - expected).max() <= 1


def test_pixels_become_numbers_from_minus_one_to_one() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    scaled = to_model_range(pixels)
    assert scaled.dtype == torch.float32
    assert torch.allclose(scaled, torch.linspace(-1, 1, 256), atol=1e-6)
    assert scaled[[0, 255]].tolist() == [-1, 1]


def numbered(count: int) -> Dataset:
    """A set whose images and labels all differ."""
    ids = torch.arange(count)
    return Dataset("numbers", ids.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).to(torch.uint8), ids, DIGITS)


@pytest.mark.parametrize(
    ("count", "heldout", "expected"), [(200, 15, 15), (200, 5000, 20), (200, 0, 0), (19, 5000, 1), (9, 5000, 0)]
)
def test_at_most_a_tenth_is_held_out(count: int, heldout: int, expected: int) -> None:
    train, held = numbered(count).split(heldout)
    assert (len(train), len(held)) == (count - expected, expected)
    assert sorted([*train.labels.tolist(), *held.labels.tolist()]) == list(range(count))
    for part in (train, held):
        assert part.images[:, 0, 0, 0].tolist() == part.labels.tolist()


def test_the_division_is_always_the_same() -> None:
    torch.manual_seed(1)
    first = [part.labels for part in numbered(250).split(20)]
    torch.manual_seed(2)
    second = [part.labels for part in numbered(250).split(20)]
    assert all(map(torch.equal, first, second))
    # A smaller share holds out some of the same images, and never those that a larger one trains on.
    assert set(numbered(250).split(5)[1].labels.tolist()) < set(first[1].tolist())


def test_the_held_out_images_are_no_special_ones() -> None:
    held = load_dataset("strokes:2000", 28).split(5000)[1]
    assert (torch.bincount(held.labels, minlength=10) > 5).all()


def test_the_digest_tells_sets_apart() -> None:
    data = numbered(10)
    pixel, label = data.images.clone(), data.labels.clone()
    pixel[3, 0, 1, 1] += 1
    label[3] += 1
    variants = [
        data,
        Dataset("numbers", pixel, data.labels, data.classes),
        Dataset("numbers", data.images, label, data.classes),
        Dataset("numbers", data.images, data.labels, tuple(reversed(data.classes))),
        Dataset("numbers", data.images.view(10, 1, 1, 4), data.labels, data.classes),
        Dataset("numbers", data.images[:9], data.labels[:9], data.classes),
    ]
    digests = [variant.digest() for variant in variants]
    assert len(set(digests)) == len(variants)
    assert Dataset("renamed", data.images.clone(), data.labels.clone(), data.classes).digest() == digests[0]
    assert len(digests[0]) == 64


@pytest.mark.usefixtures("no_sockets")
def test_the_built_in_digits_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDPMCTL_OFFLINE")
    assert len(load_dataset("strokes:10", 32)) == 10


def test_a_class_of_one_image_is_trained_on_and_not_held_out() -> None:
    images, labels = torch.arange(400).view(400, 1, 1, 1), torch.zeros(400, dtype=torch.int64)
    plain = Dataset("x", images, labels, ("a", "b"))
    only = int(plain.split(40)[1].images[7])
    labels[only] = 1
    train, heldout = Dataset("x", images, labels, ("a", "b")).split(40)
    assert (len(train), len(heldout)) == (360, 40)
    assert train.images[train.labels == 1].flatten().tolist() == [only]
    assert sorted([*train.images.flatten().tolist(), *heldout.images.flatten().tolist()]) == list(range(400))
