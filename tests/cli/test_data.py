"""``ddpmctl data``: the available datasets."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpmctl.data import DATASETS, Request, downloads
from ddpmctl.data.dataset import Dataset
from ddpmctl.data.sources import SOURCES
from tests.conftest import Cli
from tests.data.support import COUNT, small_files, write_mnist

from .support import complaint, pixels, reported, tree

NAMES = [
    "mnist", "fashion-mnist", "kmnist", "qmnist", "emnist-letters", "emnist-balanced", "cifar10", "svhn", "strokes",
    "folder", "arrays",
]  # fmt: skip


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small files, packed, that are taken for Fashion-MNIST's."""
    import hashlib

    made = small_files()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
    monkeypatch.setitem(SOURCES, "fashion-mnist", replace(SOURCES["fashion-mnist"], files=digests))
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, data in made.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    return folder


def test_the_list_tells_what_there_is_and_how_to_get_it(here: Cli, fashion: Path) -> None:
    told = reported(here("data", "--json"), "data")["datasets"]
    assert [row["name"] for row in told] == NAMES
    states = {row["name"]: row["state"] for row in told}
    assert states["mnist"] == "not downloaded (12 MB): ddpmctl data fetch mnist"
    assert states["strokes"] == "always available"
    told = reported(here("data", "ls", "--data-dir", fashion, "--json"), "data")["datasets"]
    assert {row["name"]: row["state"] for row in told}["fashion-mnist"] == "complete"
    assert here("data", "-q").stdout.split() == NAMES


def test_packed_files_in_a_plain_folder_are_read_and_left_as_they_are(here: Cli, fashion: Path, tmp_path: Path) -> None:
    before = tree(fashion)
    checked = reported(here("data", "verify", "fashion-mnist", "--data-dir", fashion, "--json"), "data verify")
    assert (checked["images"], checked["problems"]) == (COUNT, [])
    done = here(
        "train", "--preset", "quick", "--max-steps", 1, "--device", "cpu", "--dataset", "fashion-mnist",
        "--data-dir", fashion, "--name", "clothes",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert here("generate", "t-shirt-top", "ANKLE_BOOT", "-m", "clothes").returncode == 0
    assert tree(fashion) == before


def test_a_packed_file_that_is_damaged_is_named(here: Cli, fashion: Path) -> None:
    path = fashion / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    error, _ = complaint(here("data", "verify", "fashion-mnist", "--data-dir", fashion), 1)
    assert error.startswith(f"{path} is damaged: ")


def test_a_sheet_shows_each_class(here: Cli, tmp_path: Path) -> None:
    done = here("data", "show", "strokes:200", "-o", "real.png")
    assert (done.returncode, done.stdout) == (0, "real.png\n")
    assert "200 images of 10 classes" in done.stderr
    assert pixels(tmp_path / "real.png").shape == (6 + 14 + 5 * (64 + 6), 6 + 10 * (64 + 6))


def drawn(path: Path, seed: int = 0, size: int = 40) -> Path:
    """A picture in colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_verify_lists_every_file_that_is_not_used(here: Cli, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for k in range(12):
        drawn(own / "a" / f"{k:02}.png", k)
    whole = here("data", "verify", "folder:own")
    assert whole.returncode == 0
    assert "11 training images and 1 test image of 1 class," in whole.stdout
    for k in range(8):
        (own / "a" / f"{k}-{'long' * 30}.txt").write_text("x")
    # Kept for evaluation, so a training does not read it.
    (own / "a" / "09.png").write_bytes((own / "a" / "09.png").read_bytes()[:500])
    (own / "empty").mkdir()
    drawn(own / "loose.png")
    drawn(own / ".secret" / "x.png")
    done = here("data", "verify", "folder:own")
    assert done.returncode == 1
    lines = done.stdout.splitlines()[1:]
    expected = {f"a/{k}-{'long' * 30}.txt: not an image in a supported format" for k in range(8)}
    expected |= {"empty/: empty folder", ".secret/: hidden", "loose.png: is outside the class folders"}
    assert expected < set(lines)
    assert sum(line.startswith("a/09.png: ") for line in lines) == 1
    assert here("data", "verify", "folder:own", "-q").stdout.splitlines() == lines[-12:]
    found = json.loads(here("data", "verify", "folder:own", "--json").stdout)["result"]
    assert sorted(found["problems"]) == sorted(lines[-12:])
    # Other commands name the first five, of what they read.
    shown = here("data", "show", "folder:own", "-o", "sheet.png")
    assert shown.returncode == 0
    said = " ".join(shown.stderr.split())
    assert "11 files and folders are not used: " in said
    assert "and 6 more (all of them: ddpmctl data verify folder:" in said


def test_a_plain_folder_is_verified_as_pictures(here: Cli, tmp_path: Path) -> None:
    drawn(tmp_path / "my own" / "a" / "x.png")
    done = here("data", "verify", "my own")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"folder:{tmp_path / 'my own'}: 1 training image and 0 test images of 1 class,")
    assert "contains no test images" in done.stdout


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (("data", "show", "{}"), "for a folder: {}"),
        (("train", "--preset", "quick", "--dataset", "{}"), "for a folder: {}"),
        (("train", "--preset", "quick", "--fit", "pad", "--dataset", "{}"), "for a folder: {}"),
        (("lessons", "range", "--dataset", "{}"), "for a folder: {}"),
    ],
)
@pytest.mark.parametrize("name", ["pets", "/nowhere/pets"])
def test_a_folder_without_its_prefix_is_recognised(
    here: Cli, tmp_path: Path, typed: tuple[str, ...], hint: str, name: str
) -> None:
    drawn(tmp_path / "pets" / "a" / "x.png")
    error = complaint(here(*(word.format(name) for word in typed)), 2)
    assert error == (f"unknown dataset '{name}'", hint.format(f"folder:{name}"))


def test_a_sheet_leaves_out_classes_without_images(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gaps(request: Request) -> Dataset:
        return Dataset("gaps", torch.zeros(3, 1, 32, 32, dtype=torch.uint8), torch.tensor([0, 2, 2]), ("a", "b", "c"))

    monkeypatch.setitem(DATASETS, "gaps", gaps)
    done = here("data", "show", "gaps", "-o", "real.png")
    assert done.returncode == 0, done.stderr
    assert "warning: gaps has no images of: b" in done.stderr
    assert pixels(tmp_path / "real.png").shape[1] == 6 + 2 * (64 + 6)


def test_class_names_of_any_data_set_are_checked(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def twins(request: Request) -> Dataset:
        return Dataset("twins", torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.tensor([0, 1]), ("a b", "a_b"))

    monkeypatch.setitem(DATASETS, "twins", twins)
    error, hint = complaint(here("data", "show", "twins"), 1)
    assert (
        error == "twins: the class names 'a b' and 'a_b' are ambiguous: they differ only in case, accents or separators"
    )
    assert hint == "rename the classes"


def test_what_is_there_is_not_fetched_again(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    files = small_files()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], files=digests))
    monkeypatch.setattr(downloads, "cached_root", lambda: tmp_path / "cache")
    error, _ = complaint(here("data", "fetch", "mnist"), 1)
    assert error == "MNIST is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download"
    (tmp_path / "cache").mkdir(exist_ok=True)
    write_mnist(tmp_path / "cache", files)
    done = here("data", "fetch", "mnist")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'cache' / 'MNIST'}\n")
    assert "MNIST is already downloaded" in done.stderr


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (("fetch", "strokes"), "strokes cannot be downloaded"),
        (("fetch", "mnits"), "unknown dataset 'mnits'"),
        (("show", "mnits"), "unknown dataset 'mnits'"),
        (("show", "strokes", "--image-size", 33), "invalid image size '33'"),
        (("show", "strokes:20", "-o", "x.gif"), "'x.gif' has an unsupported file extension"),
    ],
)
def test_what_is_typed_wrong_is_said(here: Cli, typed: tuple[object, ...], error: str) -> None:
    assert complaint(here("data", *typed), 2)[0] == error
