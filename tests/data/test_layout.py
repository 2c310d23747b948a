"""Which files are which class: links, hidden and unreadable folders, and sets that are already split."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.data.report import LoadReport
from ddpmctl.errors import DataError


def draw(folder: Path, count: int = 1, first: int = 0) -> Path:
    """Pictures of noise, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02}.png")
    return folder


def load(path: Path, **settings: Any) -> tuple[Dataset, LoadReport]:
    report = LoadReport()
    return load_dataset(f"folder:{path}", 32, report=report, **settings), report


def is_noise(data: Dataset, index: int, seed: int) -> bool:
    """Whether an image is the one that `draw` made of a seed."""
    expected = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    return bool((data.images[index, 0].numpy() == expected).all())


def test_everything_that_is_not_used_has_its_reason(tmp_path: Path) -> None:
    draw(tmp_path / "cats", 3)
    draw(tmp_path / "cats" / "kittens", first=10)
    draw(tmp_path / "cats" / ".thumbnails")
    draw(tmp_path / ".hidden")
    (tmp_path / "cats" / ".secret.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "terms.txt").write_text("not a picture")
    draw(tmp_path, first=20)
    (tmp_path / "cats" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "cats" / "circle.png").symlink_to("circle.png")
    (tmp_path / "ghosts").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "cats" / "pipe.png")
    for junk in (".DS_Store", "Thumbs.db", "cats/.DS_Store"):
        (tmp_path / junk).write_bytes(b"x")
    for junk in (".git", "__MACOSX"):
        draw(tmp_path / junk / "cats")
    data, report = load(tmp_path)
    assert (data.classes, len(data)) == (("cats",), 4)
    assert report.unused == {
        "cats/.secret.png": "hidden",
        "cats/.thumbnails/": "hidden",
        "cats/circle.png": "broken link: Too many levels of symbolic links",
        "cats/gone.png": "broken link: No such file or directory",
        "cats/pipe.png": "not a regular file",
        ".hidden/": "hidden",
        "empty/": "empty folder",
        "documents/": "contains no images",
        "documents/terms.txt": "not an image in a supported format",
        "20.png": "is outside the class folders",
        "ghosts": "broken link: No such file or directory",
    }


def test_a_folder_that_may_not_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind root, as whom tests often run.
    draw(tmp_path / "cats")
    draw(tmp_path / "dogs")
    draw(tmp_path / "cats" / "locked")
    scandir = os.scandir

    def refuse(path: Any) -> Iterator[Any]:
        if Path(path).name in ("dogs", "locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    data, report = load(tmp_path)
    assert data.classes == ("cats",)
    refused = "cannot be read: Permission denied"
    assert report.unused == {"dogs/": refused, "cats/locked/": refused}


def test_links_are_followed_once_and_real_folders_come_first(tmp_path: Path) -> None:
    own = tmp_path / "own"
    draw(tmp_path / "elsewhere" / "owls", 2, first=40)
    draw(own / "cats", 2)
    draw(own / "dogs", 1, first=30)
    (own / "birds").symlink_to(tmp_path / "elsewhere" / "owls")
    (own / "all cats").symlink_to(own / "cats")
    (own / "cats" / "to dogs").symlink_to(own / "dogs")
    (own / "cats" / "up").symlink_to(own)
    (own / "dogs" / "round").symlink_to(own / "dogs")
    data, report = load(own)
    assert data.classes == ("birds", "cats", "dogs")
    assert data.labels.tolist() == [0, 0, 1, 1, 2]
    assert report.unused == {
        "all cats/": "the same folder as cats/",
        "cats/to dogs/": "the same folder as dogs/",
        "cats/up/": "the same folder as ./",
        "dogs/round/": "the same folder as dogs/",
    }


def test_a_class_without_a_picture_that_can_be_read_is_left_out_of_both_parts(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        draw(tmp_path / name, 10)
    for k in range(9):  # the last one, which is kept for evaluation, is whole
        data = (tmp_path / "b" / f"{k:02}.png").read_bytes()
        (tmp_path / "b" / f"{k:02}.png").write_bytes(data[: len(data) // 2])
    for train, count in ((True, 18), (False, 2)):
        found, report = load(tmp_path, train=train)
        assert (found.classes, len(found)) == (("a", "c"), count)
        assert found.labels.tolist() == [0] * (count // 2) + [1] * (count // 2)
        assert report.unused["b/"] == "no readable training image"


@pytest.mark.parametrize("spelt", [("train", "test"), ("Training", "VAL"), ("TRAIN", "Validation"), ("train", "valid")])
def test_a_set_that_is_divided_by_its_folders_keeps_its_division(tmp_path: Path, spelt: tuple[str, str]) -> None:
    train, test = spelt
    for name, count in (("cats", 12), ("dogs", 3)):
        draw(tmp_path / train / name, count)
    draw(tmp_path / test / "dogs", 2, first=50)
    draw(tmp_path / test / "zebras", 1, first=60)
    draw(tmp_path / "extra", 1)
    (tmp_path / "readme.txt").write_text("x")
    learned, report = load(tmp_path)
    assert learned.classes == ("cats", "dogs")
    assert learned.labels.tolist() == [0] * 12 + [1] * 3
    beside = f"is outside {train}/"
    assert report.unused == {
        "readme.txt": beside,
        "extra/": beside,
        f"{test}/zebras/": f"{train}/ has no class of this name",
    }
    assert report.remarks[0] == f"training images are taken from {train}/, test images from {test}/"
    unseen, _ = load(tmp_path, train=False)
    assert (unseen.classes, unseen.labels.tolist()) == (("cats", "dogs"), [1, 1])
    assert is_noise(unseen, 0, 50)
    assert is_noise(unseen, 1, 51)


def test_of_test_and_validation_pictures_the_test_pictures_are_used(tmp_path: Path) -> None:
    for name, first in (("train", 0), ("val", 10), ("test", 20)):
        draw(tmp_path / name / "cats", 1, first)
    data, report = load(tmp_path, train=False)
    assert is_noise(data, 0, 20)
    assert report.unused == {"val/": "the images of test/ are used for evaluation"}


def test_test_pictures_without_classes_are_reported(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "cats", 10)
    draw(tmp_path / "train" / "dogs", 10)
    draw(tmp_path / "test", 2)
    data, report = load(tmp_path)
    assert (data.classes, len(data)) == (("cats", "dogs"), 18)
    assert set(report.unused) == {"test/00.png", "test/01.png"}
    assert report.remarks[0] == "training images are taken from train/, and every tenth is kept for evaluation"


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    draw(tmp_path / "train", 2)
    draw(tmp_path / "train" / "steam", 1, first=5)
    draw(tmp_path / "plane", 1)
    draw(tmp_path / "test", 1)
    data, report = load(tmp_path)
    assert data.classes == ("plane", "test", "train")
    assert len(data) == 5
    assert not report.unused


def test_a_test_folder_that_is_the_training_folder_is_not_used(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "cats", 3)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    _, report = load(tmp_path)
    assert report.unused == {"test/": "the same folder as train/"}
    with pytest.raises(DataError, match="contains no test images"):
        load(tmp_path, train=False)


def test_a_folder_around_the_class_folders_is_recognised(tmp_path: Path) -> None:
    draw(tmp_path / "pets" / "cats")
    draw(tmp_path / "pets" / "dogs")
    _, report = load(tmp_path)
    assert report.remarks == [
        f"there is one class, pets; if its folders are the classes, name the dataset folder:{tmp_path / 'pets'}"
    ]


def test_names_that_would_break_a_line_are_escaped(tmp_path: Path) -> None:
    draw(tmp_path / "a")
    (tmp_path / "a" / "x\ny\x1b[31m\udcff.txt").write_text("x")
    _, report = load(tmp_path)
    assert report.unused_lines() == [r"a/x\ny\x1b[31m\udcff.txt: not an image in a supported format"]
