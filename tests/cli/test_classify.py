"""``ddpmctl classify``, ``evaluate --classify`` and ``evaluate --likelihood``: tables, JSON, pictures and refusals."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ddpmctl.config import DistillationConfig, load_preset
from ddpmctl.data import load_dataset
from ddpmctl.data.sources import DIGITS
from ddpmctl.data.strokes import draw
from ddpmctl.registry import Registry
from tests.builders import register_random, tiny_config
from tests.conftest import Cli

from .support import complaint, reported


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A one, dark on light; test digits as they are; what is no picture of a digit."""
    drawing = Image.new("L", (200, 300), 250)
    ImageDraw.Draw(drawing).line([(110, 40), (95, 260)], fill=10, width=18)
    drawing.save(tmp_path / "drawn.png")
    for k, digit in enumerate(draw(3, seed=1)[0]):
        Image.fromarray(digit).save(tmp_path / f"{k}.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def test_pictures_are_classified_in_the_order_given(tiny_here: Cli, pictures: Path) -> None:
    result = reported(tiny_here("classify", "1.png", "drawn.png", "0.png", "--json"), "classify")
    assert (result["model"], result["files"]) == ("tiny", [])
    assert [each["file"] for each in result["images"]] == ["1.png", "drawn.png", "0.png"]
    for each in result["images"]:
        assert list(each["errors"]) == list(DIGITS)
        assert each["label"] == DIGITS[each["predicted"]] == min(each["errors"], key=each["errors"].get)
        assert each["nfe"] >= 30
    kept, drawn, _ = result["images"]
    assert (kept["kept"], kept["inverted"]) == (True, False)
    assert (drawn["kept"], drawn["inverted"]) == (False, True)
    assert drawn["label"] == "one"
    # Each alone has the same answer.
    alone = reported(tiny_here("classify", "drawn.png", "--json"), "classify")["images"]
    assert alone[0]["label"] == "one"
    assert alone[0]["errors"] == pytest.approx(drawn["errors"], rel=0.02)


def test_the_answers_are_a_table_or_bare(tiny_here: Cli, pictures: Path) -> None:
    shown = tiny_here("classify", "drawn.png", "1.png")
    assert shown.returncode == 0, shown.stderr
    head, first, second = shown.stdout.splitlines()
    assert head.split()[:4] == ["picture", "class", "error", "next"]
    assert first.split()[:2] == ["drawn.png", "one"] and "inverted" in first
    assert second.split()[0] == "1.png" and second.rstrip().endswith("as it is")
    assert tiny_here("classify", "drawn.png", "-q").stdout == "one\n"


def test_the_errors_are_drawn_by_class_and_timestep(tiny_here: Cli, pictures: Path) -> None:
    result = reported(tiny_here("classify", "drawn.png", "1.png", "-o", "errors.png", "--json"), "classify")
    assert result["files"] == ["errors.png"]
    without = reported(tiny_here("classify", "drawn.png", "1.png", "--json"), "classify")
    assert result["images"] == without["images"]
    with Image.open(pictures / "errors.png") as picture:
        assert picture.height > 400
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 100


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("blank.png", 1, "there is no ink in blank.png"),
        ("text.png", 1, "text.png is not an image in a supported format"),
        ("1.png nothing.png", 1, "file not found: nothing.png"),
        ("1.png -o errors.gif", 2, "'errors.gif' has an unsupported file extension"),
        ("1.png -o nowhere/errors.png", 1, "the folder nowhere does not exist"),
        ("1.png --fit round", 2, "unknown fit 'round'"),
        ("1.png --seed -1", 2, "the seed -1 is out of range"),
        ("1.png -m tni", 1, "unknown model 'tni'"),
    ],
)
def test_what_cannot_be_classified_is_refused(tiny_here: Cli, pictures: Path, typed: str, code: int, said: str) -> None:
    before = sorted(path.name for path in pictures.iterdir())
    assert complaint(tiny_here("classify", *typed.split()), code)[0].startswith(said)
    assert sorted(path.name for path in pictures.iterdir()) == before


@pytest.fixture
def student(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with a distilled model, ``student``."""
    shutil.copytree(tiny_home / "models", tmp_path / "home" / "models")
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "home"))
    distilled = DistillationConfig(
        teacher="tiny", digest="0" * 64, steps=4, substeps=3, parameterization="v", clip_x0=True, guidance=1.5,
        guidance_interval=(0.0, 1.0),
    )  # fmt: skip
    config = tiny_config(sampling={"sampler": "ddim", "steps": 4, "guidance": 1.0})
    register_random(Registry(tmp_path / "home"), "student", replace(config, distillation=distilled))


@pytest.mark.usefixtures("student")
@pytest.mark.parametrize("typed", ["classify 1.png -m student", "evaluate student --classify",
                                   "evaluate student --likelihood"])  # fmt: skip
def test_a_distilled_model_is_refused_and_its_teacher_named(here: Cli, pictures: Path, typed: str) -> None:
    error, hint = complaint(here(*typed.split()), 2)
    assert error.startswith("'student' has no ") and "distilled" in error
    assert "'tiny'" in hint


def test_a_model_of_one_class_has_nothing_to_classify(
    here: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPMCTL_HOME", str(pictures))
    only = tiny_config(model={"num_classes": 1})
    register_random(Registry(pictures), "only", only, classes=("one",))
    error, hint = complaint(here("classify", "1.png"), 2)
    assert error == "'only' has only one class, so there is nothing to classify"
    assert hint == "use a model of several classes: ddpmctl models"


def test_a_classic_model_classifies(here: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPMCTL_HOME", str(pictures))
    register_random(Registry(pictures), "classic", load_preset("classic").config, scale=0.02)
    (found,) = reported(here("classify", "1.png", "--json"), "classify")["images"]
    assert len(found["errors"]) == 10


def test_the_test_images_are_classified(tiny_here: Cli, tmp_path: Path) -> None:
    typed = ("evaluate", "--classify", "-n", 100, "--seed", 3)
    result = reported(tiny_here(*typed, "-o", "wrong.png", "--json"), "evaluate")
    assert (result["dataset"], result["count"], result["files"]) == ("strokes", 100, ["wrong.png"])
    wrong, confusion = result["wrong"], np.array(result["confusion"])
    assert confusion.sum() == 100
    assert result["accuracy"] == pytest.approx(np.trace(confusion) / 100) == pytest.approx(1 - len(wrong) / 100)
    assert result["accuracy"] > 0.2  # two epochs of 300 digits
    labels = load_dataset("strokes", 32, train=False).labels
    for each in wrong:
        assert each["index"] % 100 == 0
        assert each["label"] == int(labels[each["index"]]) != each["predicted"]
    with Image.open(tmp_path / "wrong.png") as sheet:
        made = json.loads(sheet.info["ddpmctl"])
    assert made["labels"] == [each["label"] for each in wrong]
    before = (tmp_path / "wrong.png").read_bytes()
    assert tiny_here(*shlex.split(made["command"])[1:]).returncode == 0
    assert (tmp_path / "classify.png").read_bytes() == before
    shown = tiny_here(*typed).stdout
    assert f"accuracy  {result['accuracy']:.2%}" in shown
    assert "one row per label" in shown


def test_the_likelihood_of_the_test_images_says_of_which_pixels_it_is(tiny_here: Cli, tmp_path: Path) -> None:
    typed = ("evaluate", "--likelihood", "-n", 100)
    result = reported(tiny_here(*typed, "-o", "ends.png", "--json"), "evaluate")
    parts = sum(result[name] for name in ("prior", "diffusion", "decoder"))
    assert result["bits_per_dim"] == pytest.approx(parts)
    assert 0 < result["standard_error"] < result["bits_per_dim"]
    assert (result["pixels"], result["native_size"], result["nfe"]) == ([1, 32, 32], 28, 17)
    least, most = result["least_surprising"], result["most_surprising"]
    assert least[0]["bits_per_dim"] < result["bits_per_dim"] < most[0]["bits_per_dim"]
    with Image.open(tmp_path / "ends.png") as sheet:
        assert json.loads(sheet.info["ddpmctl"])["labels"][:20] == [each["label"] for each in least]
    shown = tiny_here(*typed).stdout
    assert "32x32 pixels, to which strokes is resized from 28x28" in shown
    assert f"{result['bits_per_dim']:.4f} +- " in shown


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--classify --likelihood", "--classify and --likelihood are separate evaluations"),
        ("--classify --steps 3", "--classify and --likelihood sample no images"),
        ("--likelihood --cas", "--classify and --likelihood sample no images"),
        ("--classify --sweep steps=1,2", "--classify and --likelihood sample no images"),
        ("-o sheet.png", "-o writes a sheet of test images"),
        ("--classify -o sheet.gif", "'sheet.gif' has an unsupported file extension"),
        ("--classify -n 0", "--count should be greater than or equal to 100, not '0'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tiny_here: Cli, typed: str, said: str) -> None:
    assert complaint(tiny_here("evaluate", *typed.split()), 2)[0].startswith(said)
