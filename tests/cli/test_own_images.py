"""Training on image folders, as a new user would."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpmctl.registry import DatasetRecord, Registry
from tests.builders import register_random, tiny_config
from tests.conftest import Cli

from .support import complaint, reported, tiny_checkpoint


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of small pictures in colour, of different sizes."""
    generator = np.random.default_rng(0)
    for name, colour in (("black cats", (20, 20, 30)), ("dogs", (180, 120, 40))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for k in range(12):
            shape = (int(generator.integers(20, 50)), int(generator.integers(20, 50)), 3)
            noisy = np.clip(np.array(colour) + generator.normal(0, 20, shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "pets" / name / f"{k:02}.jpg")
    return tmp_path / "pets"


OWN = ("--preset", "quick", "--device", "cpu", "--max-steps", 2)


def test_pictures_of_one_s_own_are_trained_on_and_made(here: Cli, tmp_path: Path, pets: Path) -> None:
    (pets / "dogs" / "readme.txt").write_text("no picture")
    done = here("train", *OWN, "--dataset", "folder:pets", "--flip", "--fit", "pad", "--name", "pets")
    assert done.returncode == 0, done.stderr
    assert "warning: 1 file or folder is not used: dogs/readme.txt: not an image in a supported format" in done.stderr
    manifest = tiny_checkpoint(tmp_path, "pets").manifest
    assert manifest.classes == ("black cats", "dogs")
    assert (manifest.config.model.channels, manifest.config.model.num_classes) == (3, 2)
    assert (manifest.dataset.name, manifest.dataset.fit) == (f"folder:{pets}", "pad")
    assert manifest.config.training.flip
    for label in ("Black-Cats", "black_cats", "0"):
        made = here("generate", label, "-m", "pets", "--seed", 1, "-o", "cat.png")
        assert made.returncode == 0, made.stderr
        with Image.open(tmp_path / "cat.png") as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))
    assert here("grid", "-m", "pets", "--rows", 2, "-o", "sheet.png").returncode == 0
    assert here("animate", "dogs", "-m", "pets", "--frames", 3, "-o", "dog.gif").returncode == 0
    # A set smaller than the batch trained; it goes on from where it was, with the same pictures.
    assert here("train", "--resume", "pets", "--epochs", 1).returncode == 0
    assert complaint(here("train", "--resume", "pets", "--fit", "crop"), 2)[0].endswith(
        "cannot change fit of 'pets' from pad to crop on resume"
    )


def test_where_pictures_are_kept_is_not_given_away(here: Cli, tmp_path: Path, pets: Path) -> None:
    assert here("train", *OWN, "--dataset", f"folder:{pets}", "--channels", 1, "--name", "pets").returncode == 0
    assert tiny_checkpoint(tmp_path, "pets").manifest.config.model.channels == 1
    assert here("export", "pets", "pets.zip").returncode == 0
    assert here("export", "pets", "pets.safetensors").returncode == 0
    for file in ("pets.zip", "pets.safetensors"):
        assert str(pets).encode() not in (tmp_path / file).read_bytes()
    assert here("models", "import", "pets.zip", "--name", "again").returncode == 0
    assert tiny_checkpoint(tmp_path, "again").manifest.dataset.name == "folder:pets"


def test_larger_images_take_a_level_more(here: Cli, tmp_path: Path) -> None:
    typed = ("train", *OWN, "--dataset", "strokes:60")
    assert here(*typed, "--image-size", 64, "--name", "large").returncode == 0
    model = tiny_checkpoint(tmp_path, "large").manifest.config.model
    assert (model.image_size, model.widths) == (64, (32, 64, 64, 64))
    assert here("generate", 3, "-m", "large", "-o", "three.png").returncode == 0
    with Image.open(tmp_path / "three.png") as image:
        assert image.size == (64, 64)
    error, hint = complaint(here("train", "--preset", "classic", "--image-size", 64), 2)
    assert error.startswith("invalid settings: the classic network")
    assert hint == "--preset standard or quick"


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (("--dataset", "folder:none"), "the folder .*none cannot be read: No such file or directory"),
        (("--dataset", "folder"), "the dataset folder requires a path, as in folder:PATH"),
        (("--fit", "crop"), "fit applies only to image folders, not to mnist"),
        (("--channels", 3), "channels applies only to image folders, not to mnist"),
        (("--dataset", "folder:.", "--fit", "stretch"), "unknown fit 'stretch'"),
        (("--dataset", "folder:.", "--channels", 2), "invalid number of channels '2'"),
        (("--image-size", 48), "invalid image size '48'"),
    ],
)
def test_what_cannot_be_done_with_pictures_is_said(here: Cli, typed: tuple[object, ...], error: str) -> None:
    done = here("train", "--preset", "quick", *typed)
    assert done.returncode in (1, 2)
    assert re.search(f"^error: {error}", done.stderr, re.MULTILINE), done.stderr


def own_model(home: Path, folder: Path, classes: tuple[str, ...]) -> None:
    """A model with random weights of the pictures in a folder, under the name ``own``."""
    register_random(
        Registry(home), "own", tiny_config(model={"num_classes": len(classes), "channels": 3}), classes=classes,
        dataset=DatasetRecord(name=f"folder:{folder}", digest="0" * 64, count=1, fit="crop"),
    )  # fmt: skip


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that is trained for no time, since nothing depends on what it learns."""
    monkeypatch.setattr("ddpmctl.evaluation.classifier.MIN_STEPS", 2)


EVALUATED = ("evaluate", "own", "-n", 100, "--steps", 1, "--device", "cpu")


def test_a_class_of_one_picture_is_trained_on_inspected_and_evaluated(
    here: Cli, tmp_path: Path, pets: Path, brief: None
) -> None:
    (pets / "newts").mkdir()
    (pets / "dogs" / "00.jpg").rename(pets / "newts" / "0.jpg")
    assert here("train", *OWN, "--dataset", "folder:pets", "--name", "own").returncode == 0
    seen = here("inspect", "own", "--at", 500, "--label", "newts", "--json")
    assert [level["t"] for level in reported(seen, "inspect")["levels"]] == [500]
    assert f"folder:{pets} has no test image of newts: using a training image" in seen.stderr
    done = here(*EVALUATED, "--json")
    (result,) = reported(done, "evaluate")["results"]
    assert result["accuracy_by_class"][2] is None
    assert None not in result["accuracy_by_class"][:2]
    assert result["unmeasured_classes"] == {"newts": "no test image"}
    assert result["diversity"] is None, "two test images have no fifth neighbour"
    shown = here(*EVALUATED).stdout
    assert "newts" in shown.split("not measured", 1)[1].splitlines()[0]
    assert "no test image of this class" in shown
    assert "newts 100" not in shown
    # A page about the model shows what was measured.
    assert here("report", "own", "-o", "page.html", "--device", "cpu").returncode == 0
    page = (tmp_path / "page.html").read_text()
    assert "label accuracy" in page
    assert "near-duplicates" in page


def test_a_set_without_test_pictures_cannot_be_evaluated_and_says_why(here: Cli, tmp_path: Path, pets: Path) -> None:
    for name in ("black cats", "dogs"):
        for k in range(3, 12):
            (pets / name / f"{k:02}.jpg").unlink()
    own_model(tmp_path, pets, ("black cats", "dogs"))
    error, hint = complaint(here(*EVALUATED), 1)
    assert error == f"{pets} contains no test images"
    assert hint == "provide at least 10 images of a class, or PATH/train and PATH/test with the same class folders"
    seen = here("inspect", "own", "--at", 500, "--label", "dogs")
    assert seen.returncode == 0
    assert "contains no test images: using a training image" in seen.stderr


def test_several_ways_are_compared_where_there_is_no_floor(here: Cli, tmp_path: Path, pets: Path, brief: None) -> None:
    for k in range(3, 12):
        (pets / "dogs" / f"{k:02}.jpg").unlink()
    own_model(tmp_path, pets, ("black cats", "dogs"))
    done = here(*EVALUATED, "--sweep", "steps=1,2", "--plot", "quality.png")
    assert done.returncode == 0, done.stderr
    assert "floor: too few test images" in done.stdout
    assert (tmp_path / "quality.png").is_file()


def test_a_folder_whose_classes_changed_is_not_taken_for_the_old_one(here: Cli, tmp_path: Path, pets: Path) -> None:
    own_model(tmp_path, pets, ("black cats", "dogs"))
    (pets / "ants").mkdir()
    (pets / "dogs" / "00.jpg").rename(pets / "ants" / "0.jpg")
    error, _ = complaint(here(*EVALUATED), 1)
    assert error.endswith("no longer has the classes that the model was trained on: new: ants")
    seen = here("inspect", "own", "--at", 500, "--label", "dogs")
    assert seen.returncode == 0
    assert "new: ants: using a generated image" in seen.stderr


def test_more_classes_than_generated_images_leave_no_nan(here: Cli, tmp_path: Path, brief: None) -> None:
    classes = tuple(f"class {k}" for k in range(101))
    for name in classes:
        for part in ("train", "test"):
            (tmp_path / "many" / part / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), (2 * int(name.split()[1]), 0, 0)).save(
                tmp_path / "many" / part / name / f"{part}.png"
            )
    own_model(tmp_path, tmp_path / "many", classes)
    (result,) = reported(here(*EVALUATED, "--json"), "evaluate")["results"]
    assert result["unmeasured_classes"] == {"class 100": "no generated image"}
    assert result["accuracy_by_class"][100] is None
