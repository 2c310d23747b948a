"""Files of a published dataset, with the real MNIST: from --data-dir or the cache."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddpmctl.data import downloads, load_dataset
from ddpmctl.data.sources import SOURCES

from .support import TRAIN_IMAGES, check_is_small_mnist, refusal, snapshot, write_mnist


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_a_given_data_dir_is_read(given: Path, size: int, train: bool) -> None:
    check_is_small_mnist(load_dataset("mnist", size, given, train=train), size, train=train)


@pytest.mark.usefixtures("no_sockets")
def test_nothing_is_written_into_a_given_data_dir(given: Path) -> None:
    folders = [path for path in [given, *given.rglob("*")] if path.is_dir()]
    before = snapshot(given)
    for folder in folders:
        folder.chmod(0o555)
    try:
        check_is_small_mnist(load_dataset("mnist", 32, given))
        assert snapshot(given) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("name", SOURCES["mnist"].files)
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (Path.unlink, "the folder {root} is incomplete: MNIST/raw/{name} is missing"),
        (shorten, "{path} does not match the checksum of the MNIST file of that name: wrong or truncated"),
        (alter, "{path} does not match the checksum of the MNIST file of that name: wrong or truncated"),
        (make_folder, "{path} cannot be read: Is a directory"),
    ],
    ids=["missing", "short", "wrong", "folder"],
)
@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_given_data_dir_never_falls_through_to_the_cache_or_a_download(
    given: Path,
    cache: Path,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    damage: Callable[[Path], None],
    complaint: str,
    offline: str,
) -> None:
    monkeypatch.setenv("DDPMCTL_OFFLINE", offline)
    write_mnist(cache, files)
    path = given / "MNIST" / "raw" / name
    damage(path)
    before = snapshot(given)
    assert refusal(data_dir=given).message == complaint.format(root=given, path=path, name=name)
    assert snapshot(given) == before


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_given_data_dir_without_mnist_is_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    if kind == "file":
        root.write_text("")
    if kind == "empty":
        root.mkdir()
    expected = {
        "missing": f"the folder {root} does not exist",
        "file": f"the folder {root} does not exist",
        "empty": f"the folder {root} is incomplete: MNIST/raw/{TRAIN_IMAGES} is missing",
    }
    assert refusal(data_dir=root).message == expected[kind]


def test_what_an_old_torchvision_left_is_not_taken_unchecked(given: Path) -> None:
    # torchvision prefers its own old format to the raw files, whose digests we know.
    processed = given / "MNIST" / "processed"
    processed.mkdir()
    other = (torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    for name in ("training.pt", "test.pt"):
        torch.save(other, processed / name)
    check_is_small_mnist(load_dataset("mnist", 32, given))


@pytest.mark.usefixtures("no_sockets")
def test_a_cached_mnist_needs_no_network(cache: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDPMCTL_OFFLINE")
    write_mnist(cache, files)
    check_is_small_mnist(load_dataset("mnist", 32))


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(downloads, "user_cache_path", lambda name, appauthor: tmp_path / name)
    assert downloads.cached_root() == tmp_path / "ddpmctl" / "datasets"


@pytest.mark.usefixtures("no_sockets", "files")
@pytest.mark.parametrize("damaged", [False, True])
def test_offline_no_socket_is_opened(cache: Path, damaged: bool) -> None:
    if damaged:
        write_mnist(cache, {TRAIN_IMAGES: b"damaged"})
    before = snapshot(cache) if damaged else {}
    assert os.environ["DDPMCTL_OFFLINE"] == "1"
    assert refusal().message == "MNIST is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download"
    assert (snapshot(cache) if cache.exists() else {}) == before


def test_the_real_mnist_is_read(mnist_dir: Path) -> None:
    before = snapshot(mnist_dir)
    data = load_dataset("mnist", 32, mnist_dir)
    assert data.images.shape == (60_000, 1, 32, 32)
    assert data.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert torch.bincount(data.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = load_dataset("mnist", 32, mnist_dir, train=False)
    assert test.images.shape == (10_000, 1, 32, 32)
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert snapshot(mnist_dir) == before
