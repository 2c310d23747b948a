"""Classes named by numbers, 1 to 12: every command resolves the intended class and records it by name."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddpmctl.data.dataset import Dataset
from ddpmctl.evaluation.classifier import Predictions
from ddpmctl.evaluation.evaluator import Evaluator
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.builders import register_random, tiny_config
from tests.conftest import Cli

from .support import complaint, frames, pixels, reported

NAMES = tuple(str(number) for number in range(1, 13))
FAST = ("--sampler", "ddim", "--steps", 3, "--device", "cpu", "--precision", "fp32", "--seed", 5)


@pytest.fixture
def numbered(here: Cli, tmp_path: Path) -> Cli:
    """A model whose classes are named 1 to 12, with random weights: each class makes another image."""
    config = tiny_config(model={"num_classes": 12})
    register_random(Registry(tmp_path), "numbered", config, scale=0.3, classes=NAMES)
    return here


def image_of(home: Path, index: int, seed: int = 5) -> NDArray[np.uint8]:
    """What the network makes of a class, the label embedding taken by its row and no name involved."""
    engine = Engine.load(str(home / "models" / "numbered"), "cpu", "fp32")
    last = list(engine.steps(engine.request([index], seed, sampler="ddim", steps=3)))[-1]
    return (((last.x0[0, 0].clamp(-1, 1) + 1) * 127.5).round()).to(torch.uint8).numpy()


def test_all_classes_differ_and_the_engine_takes_integers_as_indices(numbered: Cli, tmp_path: Path) -> None:
    engine = Engine.load("numbered", "cpu", "fp32")
    by_index = engine.generate(np.arange(12), seed=5, sampler="ddim", steps=3)
    by_int = engine.generate(list(range(12)), seed=5, sampler="ddim", steps=3)
    by_name = engine.generate(list(NAMES), seed=5, sampler="ddim", steps=3)
    np.testing.assert_array_equal(by_index, by_int)
    np.testing.assert_array_equal(by_index, by_name)
    same_noise = [engine.generate([index], seed=5, sampler="ddim", steps=3)[0] for index in range(12)]
    assert len({image.tobytes() for image in same_noise}) == 12
    embedding = engine.network.embedding.label.weight
    assert embedding.shape[0] == 13


@pytest.mark.parametrize("name", ["1", "2", "9", "12"])
def test_a_typed_number_is_the_class_of_that_name(numbered: Cli, tmp_path: Path, name: str) -> None:
    assert numbered("generate", name, *FAST, "-o", "x.png").returncode == 0
    assert np.abs(pixels(tmp_path / "x.png").astype(int) - image_of(tmp_path, int(name) - 1)).max() <= 1


@pytest.mark.parametrize(
    "typed",
    [
        ("generate", "2", *FAST),
        ("animate", "2", "--frames", 2, *FAST),
        ("inspect", "numbered", "--at", 500, "--label", "2", "--device", "cpu", "--seed", 5),
        ("grid", *FAST),
    ],
    ids=lambda typed: str(typed[0]),
)
def test_a_recorded_command_makes_the_same_class_again(
    numbered: Cli, tmp_path: Path, typed: tuple[object, ...]
) -> None:
    file = "x.gif" if typed[0] == "animate" else "x.png"
    assert numbered(*typed, "-o", file).returncode == 0
    told = reported(numbered("inspect", file, "--json"), "inspect")
    if typed[0] != "grid":
        assert (told["labels"], told["classes"]) == ([1], ["2"])
    before = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    assert numbered(*shlex.split(told["command"])[1:], "-o", file).returncode == 0
    assert (tmp_path / file).read_bytes() == before


def test_an_animation_ends_in_the_class_that_was_named(numbered: Cli, tmp_path: Path) -> None:
    assert (
        numbered("animate", "12", "--frames", 3, "--show", "x0", "--upscale", 1, *FAST, "-o", "x.png").returncode == 0
    )
    shown, _ = frames(tmp_path / "x.png")
    assert np.abs(shown[-1][..., 0].astype(int) - image_of(tmp_path, 11)).max() <= 1


def test_shards_hold_each_class_under_its_own_index(numbered: Cli, tmp_path: Path) -> None:
    done = numbered("generate", "--all", "-n", 24, "--shard-size", 12, *FAST, "-o", "shards")
    assert done.returncode == 0, done.stderr
    for number, path in enumerate(sorted((tmp_path / "shards").glob("*.npz"))):
        with np.load(path) as archive:
            assert archive["labels"].tolist() == list(range(12))
            for k in range(12):
                expected = image_of(tmp_path, k, seed=5 + 12 * number + k)
                assert np.abs(archive["images"][k].astype(int) - expected).max() <= 1, (number, k)


def test_a_number_that_is_no_name_is_an_index_and_this_is_said(numbered: Cli, tmp_path: Path) -> None:
    done = numbered("generate", "0", *FAST, "-o", "x.png")
    assert done.returncode == 0
    assert "no class is named '0': using index 0 (class '1')\n" in done.stderr
    assert "no class is named" not in numbered("generate", "1", *FAST, "-o", "x.png").stderr


def test_a_number_beyond_all_classes_is_refused_with_names_and_indices(numbered: Cli) -> None:
    message, hint = complaint(numbered("generate", "13", *FAST), 2)
    assert message == "unknown label '13'"
    assert hint.startswith("did you mean") or "1 (index 0)" in hint


def test_a_report_of_the_second_class_shows_its_chain_and_records_its_name(numbered: Cli, tmp_path: Path) -> None:
    done = numbered("report", "numbered", "--label", "2", "--seed", 5, "--device", "cpu", "-o", "r.html", "--json")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "r.html").read_text()
    assert "--label 2" in page
    assert json.loads(done.stdout)["result"]["models"] == ["numbered"]


def test_accuracy_compares_predictions_with_the_indices_that_were_asked_for(
    numbered: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier that knows each class's own image by heart finds every one of them right."""
    engine = Engine.load("numbered", "cpu", "fp32")
    labels = list(range(12))
    images = engine.generate(labels, seed=5, sampler="ddim", steps=3)
    known = {image.tobytes(): index for index, image in enumerate(images)}

    def predict(_: object, tensor: torch.Tensor) -> Predictions:
        found = [known[image[0].numpy().tobytes()] for image in tensor]
        return Predictions(torch.zeros(len(found), 64, dtype=torch.float64), torch.tensor(found))

    monkeypatch.setattr("ddpmctl.evaluation.evaluator.predict", predict)
    empty = Dataset("x", torch.zeros(1, 1, 32, 32, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), NAMES)
    evaluator = Evaluator(None, empty, empty)  # type: ignore[arg-type]
    again = engine.generate([NAMES[index] for index in labels], seed=5, sampler="ddim", steps=3)
    assert evaluator.accuracy(again, labels) == 1.0
