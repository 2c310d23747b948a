"""Training on arrays, and on published datasets in colour and with letters."""

from pathlib import Path

import numpy as np
import pytest

from ddpmctl.data import strokes
from ddpmctl.data.sources import SOURCES
from ddpmctl.model_images import load_training_data
from tests.conftest import Cli
from tests.data.test_sources import write_known

from .support import complaint, pixels, reported, tiny_checkpoint, tree

FEW = ("--max-steps", 3, "--batch-size", 8, "--device", "cpu")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data dir with small files of CIFAR-10 and of EMNIST's balanced split."""
    for name in ("cifar10", "emnist-balanced"):
        write_known(monkeypatch, name, tmp_path / "given")
    return tmp_path / "given"


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_a_model_learns_from_colour_images(here: Cli, tmp_path: Path, given: Path, preset: str) -> None:
    before = tree(given)
    done = here("train", "--preset", preset, "--dataset", "cifar10", "--data-dir", given, "--name", "new", *FEW)
    assert done.returncode == 0, done.stderr
    manifest = tiny_checkpoint(tmp_path, "new").manifest
    assert (manifest.dataset.name, manifest.classes) == ("cifar10", SOURCES["cifar10"].classes)
    assert (manifest.config.model.channels, manifest.config.model.sample_size) == (3, 32)
    assert here("generate", "frog", "-m", "new", "--steps", 1, "-o", "frog.png").returncode == 0
    assert pixels(tmp_path / "frog.png").shape == (32, 32, 3)
    assert tree(given) == before


def test_letters_are_classes_of_their_own(here: Cli, tmp_path: Path, given: Path) -> None:
    done = here(
        "train", "--preset", "quick", "--dataset", "emnist-balanced", "--data-dir", given, "--name", "new", *FEW
    )
    assert done.returncode == 0, done.stderr
    model = tiny_checkpoint(tmp_path, "new").manifest
    assert len(model.classes) == 47
    assert here("generate", "A", "small-a", "7", "-m", "new", "--steps", 1, "-o", "x.npz").returncode == 0
    assert np.load(tmp_path / "x.npz")["labels"].tolist() == [10, 36, 7]


def test_classic_is_refused_for_colour(here: Cli, given: Path) -> None:
    error, hint = complaint(
        here("train", "--preset", "classic", "--dataset", "emnist-balanced", "--data-dir", given, *FEW), 2
    )
    assert error.startswith("the network does not support the dataset emnist-balanced: ")
    assert hint == "--preset standard"


def test_the_list_says_what_is_in_the_folder(here: Cli, given: Path) -> None:
    told = reported(here("data", "ls", "--data-dir", given, "--json"), "data")["datasets"]
    states = {row["name"]: row["state"] for row in told}
    assert states["cifar10"] == states["emnist-balanced"] == "complete"
    assert states["svhn"] == "not in this folder"
    assert reported(here("data", "--json"), "data")["datasets"][4] == {
        "name": "emnist-letters",
        "place": str(Path(told[0]["place"]).parent / "cache" / "ddpmctl" / "datasets"),
        "state": "not downloaded (562 MB): ddpmctl data fetch emnist-letters",
    }


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """400 synthetic digits, saved as anybody would save them."""
    images, labels = strokes.draw(400, seed=0)
    np.savez_compressed(tmp_path / "digits.npz", images=images, labels=labels)
    return tmp_path / "digits.npz"


def test_a_model_learns_from_arrays_and_finds_them_again(
    here: Cli, tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = here("train", "--preset", "quick", "--dataset", "arrays:digits.npz", *FEW)
    assert done.stdout == "arrays-quick-1\n", done.stderr
    manifest = tiny_checkpoint(tmp_path, "arrays-quick-1").manifest
    assert manifest.dataset.name == f"arrays:{archive}"
    assert manifest.classes == tuple("0123456789")
    # As evaluate, report and resume do, from anywhere.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_training_data(manifest, None).digest() == manifest.dataset.digest
    assert len(load_training_data(manifest, None, train=False)) == 40
    resumed = here("train", "--resume", "arrays-quick-1", "--epochs", 1, "--device", "cpu")
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["arrays:digits.npz", "cifar10"])
def test_evaluate_finds_the_dataset_again(
    here: Cli, archive: Path, given: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    monkeypatch.setenv("DDPMCTL_DATA_DIR", str(given))
    assert here("train", "--preset", "quick", "--dataset", dataset, "--name", "new", *FEW).returncode == 0
    assert reported(here("evaluate", "-n", 100, "--json"), "evaluate")["model"] == "new"


def test_arrays_that_changed_are_noticed_when_a_run_is_resumed(here: Cli, archive: Path) -> None:
    assert here("train", "--preset", "quick", "--dataset", f"arrays:{archive}", *FEW).returncode == 0
    with np.load(archive) as values:
        np.savez_compressed(archive, images=255 - values["images"], labels=values["labels"])
    error, _ = complaint(here("train", "--resume", "arrays-quick-1", "--epochs", 1), 1)
    assert error == f"the images of arrays:{archive} have changed since 'arrays-quick-1' was trained"


def test_a_model_learns_from_what_another_made(tiny: Cli, tmp_path: Path) -> None:
    assert tiny("generate", "3", "8", "-n", 12, "-o", "made.npz", "--steps", 1, "--seed", 0).returncode == 0
    shown = tiny("data", "show", "arrays:made.npz", "-o", "sheet.png")
    assert shown.returncode == 0, shown.stderr
    assert "22 images of 2 classes" in shown.stderr
    checked = reported(tiny("data", "verify", "arrays:made.npz", "--json"), "data verify")
    assert (checked["images"], checked["test_images"], checked["problems"]) == (22, 2, [])
    made = tiny("generate", "--all", "-n", 200, "-o", "shards", "--shard-size", 80, "--steps", 1, "--seed", 0)
    assert made.returncode == 0, made.stderr
    done = tiny("train", "--preset", "quick", "--dataset", "arrays:shards", "--name", "pupil", "--force", *FEW)
    assert done.returncode == 0, done.stderr
    assert tiny("models", "rm", "pupil", "--yes").returncode == 0
    # Verifying the folder itself checks the shards.
    assert "200 images in 3 shards, complete" in tiny("data", "verify", "shards").stdout


@pytest.mark.parametrize(
    ("typed", "error", "hint"),
    [
        (("train", "--dataset", "arrays"), "the dataset arrays requires a path, as in arrays:FILE.npz",
         "--dataset arrays:FILE.npz"),
        (("data", "show", "made.npz"), "unknown dataset 'made.npz'", "for an archive: arrays:made.npz"),
        (("train", "--dataset", "arrays:x.npz", "--fit", "pad"), "fit applies only to image folders, not to arrays",
         "omit --fit"),
        (("data", "fetch", "arrays:x.npz"), "arrays:x.npz cannot be downloaded", f"one of: {', '.join(SOURCES)}"),
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_said(here: Cli, typed: tuple[str, ...], error: str, hint: str) -> None:
    assert complaint(here(*typed), 2) == (error, hint)
