"""``ddpmctl data``: what there is to learn from."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from ddpmctl.data import mnist
from tests.conftest import Cli
from tests.data.support import COUNT, small_files, write_mnist

from .support import complaint, pixels, reported, tree


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small files, packed, that are taken for Fashion-MNIST's."""
    import hashlib

    made = small_files()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
    monkeypatch.setattr(mnist, "FASHION", replace(mnist.FASHION, files=digests))
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, data in made.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    return folder


def test_the_list_tells_what_there_is_and_how_to_get_it(here: Cli, fashion: Path) -> None:
    told = reported(here("data", "--json"), "data")["datasets"]
    assert [row["name"] for row in told] == ["mnist", "fashion-mnist", "strokes", "folder"]
    states = {row["name"]: row["state"] for row in told}
    assert states["mnist"] == "not here: ddpmctl data fetch mnist"
    assert states["strokes"] == "always whole"
    told = reported(here("data", "ls", "--data-dir", fashion, "--json"), "data")["datasets"]
    assert {row["name"]: row["state"] for row in told}["fashion-mnist"] == "whole"
    assert here("data", "-q").stdout.split() == ["mnist", "fashion-mnist", "strokes", "folder"]


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


def test_a_folder_with_files_that_are_no_pictures_is_not_whole(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "own" / "a").mkdir(parents=True)
    assert here("data", "show", "strokes:20", "-o", "own/a/1.png").returncode == 0
    assert here("data", "verify", "folder:own").returncode == 0
    (tmp_path / "own" / "a" / "x.txt").write_text("x")
    done = here("data", "verify", "folder:own")
    assert done.returncode == 1
    assert "skipped 1 files that are no images: a/x.txt" in " ".join(done.stdout.split())


def test_what_is_there_is_not_fetched_again(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    files = small_files()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    monkeypatch.setattr(mnist, "MNIST", replace(mnist.MNIST, files=digests))
    monkeypatch.setattr(mnist, "cached_root", lambda: tmp_path / "cache")
    error, _ = complaint(here("data", "fetch", "mnist"), 1)
    assert error == "MNIST is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download"
    (tmp_path / "cache").mkdir(exist_ok=True)
    write_mnist(tmp_path / "cache", files)
    done = here("data", "fetch", "mnist")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'cache' / 'MNIST'}\n")
    assert "MNIST is there already" in done.stderr


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (("fetch", "strokes"), "strokes is not downloaded"),
        (("fetch", "mnits"), "there is no dataset 'mnits'"),
        (("show", "mnits"), "there is no dataset 'mnits'"),
        (("show", "strokes", "--image-size", 33), "there is no image size '33'"),
        (("show", "strokes:20", "-o", "x.gif"), "'x.gif' has no suffix that is known here"),
    ],
)
def test_what_is_typed_wrong_is_said(here: Cli, typed: tuple[object, ...], error: str) -> None:
    assert complaint(here("data", *typed), 2)[0] == error
