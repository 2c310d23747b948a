"""The metrics against closed forms and constructed extremes, the cache of classifiers, and the command."""

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpmctl import evaluate
from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import DdpmctlError
from ddpmctl.evaluation import cache, classifier, metrics
from ddpmctl.evaluation.evaluator import Evaluator
from ddpmctl.evaluation.metrics import diversity, frechet, kernel, nearest
from ddpmctl.sampling.loop import channels_last_pixels
from tests.builders import foreign_defaults
from tests.conftest import Cli

CPU = torch.device("cpu")

FEW_STEPS = 200
"""Enough for a classifier of drawn digits."""


def gaussian(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 8, generator=generator, dtype=torch.float64) + shift


@pytest.fixture(scope="module")
def train() -> Dataset:
    return load_dataset("strokes:600", 32)


@pytest.fixture(scope="module")
def test() -> Dataset:
    data = load_dataset("strokes", 32, train=False)
    return replace(data, images=data.images[:400], labels=data.labels[:400])


@pytest.fixture(scope="module")
def evaluator(train: Dataset, test: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(classifier, "MIN_STEPS", FEW_STEPS)
        trained = cache.cached_classifier(train, test, CPU, lambda done, total: None)
    return Evaluator(trained.classifier, train, test)


def test_frechet_is_the_closed_form_of_two_gaussians() -> None:
    features = gaussian(500, 0)
    assert frechet(features, features) == pytest.approx(0, abs=1e-6)
    # Equal covariances: only the means differ, by 3 in each of 8 directions.
    assert frechet(features, features + 3) == pytest.approx(8 * 9, rel=1e-6)
    # Twice the deviation: tr(C + 4C - 2 * 2C) = tr(C), beside the means' distance.
    doubled = 2 * features
    expected = float(torch.cov(features.T).trace() + (features.mean(0) ** 2).sum())
    assert frechet(features, doubled) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_tells_sets_apart() -> None:
    assert abs(kernel(gaussian(2000, 0), gaussian(2000, 1))) < 0.02
    assert kernel(gaussian(2000, 0), gaussian(2000, 1, shift=1.0)) > 0.5


def test_spread_of_equal_sets_is_full_and_of_one_point_is_none() -> None:
    real = gaussian(300, 0)
    equal = diversity(real, real)
    assert (equal.recall, equal.coverage) == (1.0, 1.0)
    collapsed = diversity(real, real[:1] + 1e-6 * gaussian(300, 1))
    assert collapsed.recall < 0.01
    assert collapsed.coverage < 0.2
    far = diversity(real, real + 100)
    assert (far.recall, far.density, far.coverage) == (0.0, 0.0, 0.0)


def test_nearest_finds_a_copy_and_measures_in_grey_levels(train: Dataset) -> None:
    copies = train.images[[5, 17]].clone()
    brighter = (copies[:1].int() + 3).clamp(max=255).to(torch.uint8)
    distances, indices = nearest(torch.cat([copies, brighter]), train.images)
    assert indices.tolist() == [5, 17, 5]
    assert distances[:2].tolist() == pytest.approx([0, 0], abs=0.05)
    difference = brighter[0].double() - copies[0].double()
    assert float(distances[2]) == pytest.approx(float((difference**2).mean().sqrt()), abs=0.05)


@pytest.mark.slow
def test_real_images_score_as_real_and_training_images_as_copies(evaluator: Evaluator) -> None:
    real = evaluator.measure(channels_last_pixels(evaluator.test.images), evaluator.test.labels.tolist())
    assert real.accuracy == real.real_accuracy > 0.95
    assert real.frechet.ratio == pytest.approx(1.0)
    assert real.memorization.near_duplicates == pytest.approx(0.01, abs=0.005)
    copied = evaluator.measure(channels_last_pixels(evaluator.train.images), evaluator.train.labels.tolist())
    assert copied.memorization.near_duplicates == 1.0
    assert copied.memorization.generated == pytest.approx(0, abs=0.05)


@pytest.mark.slow
def test_noise_scores_badly_on_everything(evaluator: Evaluator) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 32, 32), dtype=np.uint8)
    report = evaluator.measure(noise, [k % 10 for k in range(200)])
    assert report.accuracy < 0.3
    assert (report.frechet.ratio or 0) > 20
    assert report.frechet.draws > 1
    assert report.frechet.floor_std is not None
    assert report.diversity.recall < 0.1
    assert report.intensity == pytest.approx(127.5, abs=2)
    assert len(report.accuracy_by_class) == 10


@pytest.mark.slow
def test_wrong_labels_cost_their_own_class_alone(evaluator: Evaluator) -> None:
    labels = evaluator.test.labels.clone()
    images = channels_last_pixels(evaluator.test.images)
    honest = evaluator.measure(images, labels.tolist())
    keep = (labels != 3).nonzero()[:, 0]
    relabelled = torch.where(labels == 3, 4, labels)
    report = evaluator.measure(images, relabelled.tolist())
    figures = (report.accuracy_by_class[4], honest.accuracy_by_class[4])
    assert figures[0] is not None and figures[1] is not None
    assert figures[0] < 0.6 < figures[1]
    assert len(keep) < len(labels)
    assert report.accuracy_by_class[0] == honest.accuracy_by_class[0]


@pytest.mark.slow
def test_a_class_without_test_or_generated_images_has_no_figure(evaluator: Evaluator) -> None:
    few = replace(
        evaluator.test,
        images=evaluator.test.images[evaluator.test.labels != 4],
        labels=evaluator.test.labels[evaluator.test.labels != 4],
    )
    images, labels = channels_last_pixels(evaluator.test.images), evaluator.test.labels
    asked = labels != 7
    report = Evaluator(evaluator.classifier, evaluator.train, few).measure(
        images[asked.numpy()], labels[asked].tolist()
    )
    assert report.unmeasured_classes == {"four": "no test image", "seven": "no generated image"}
    for label, share in enumerate(report.accuracy_by_class):
        assert share is None if label in (4, 7) else share is not None and 0 <= share <= 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_a_small_test_set_gives_fewer_figures_and_no_nan(evaluator: Evaluator, count: int) -> None:
    few = replace(evaluator.test, images=evaluator.test.images[:count], labels=evaluator.test.labels[:count])
    made = np.random.default_rng(0).integers(0, 256, (100, 32, 32), dtype=np.uint8)
    report = Evaluator(evaluator.classifier, evaluator.train, few).measure(made, [k % 10 for k in range(100)])
    json.dumps(asdict(report), allow_nan=False)
    assert (report.frechet.floor is None) == (report.frechet.ratio is None) == (count < 2)
    assert report.frechet.value is not None
    assert (report.diversity is None) == (report.real_diversity is None) == (count < 6)


@pytest.mark.slow
def test_learning_from_noise_scores_worse_than_from_real_images(
    train: Dataset, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = replace(train, images=torch.randint_like(train.images, 256))
    images, labels = channels_last_pixels(noise.images), noise.labels.tolist()
    monkeypatch.setattr(classifier, "MIN_STEPS", FEW_STEPS)
    made, real = evaluator.classification_accuracy_score(images, labels)
    assert made < 0.4
    assert real > 0.9


@pytest.mark.slow
def test_a_classifier_is_trained_once_and_again_when_its_file_is_damaged(
    train: Dataset, test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(train, images=train.images[:50], labels=train.labels[:50])
    monkeypatch.setattr("ddpmctl.evaluation.classifier.MIN_STEPS", 5)

    def get() -> cache.CachedClassifier:
        return cache.cached_classifier(few, test, CPU, lambda done, total: None)

    first, second = get(), get()
    assert (first.newly_trained, second.newly_trained) == (True, False)
    assert first.digest == second.digest
    (path,) = cache.cache_folder().glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert get().newly_trained


@pytest.fixture(scope="module")
def classifier_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One cache for all commands, so that the classifier is trained once."""
    return str(tmp_path_factory.mktemp("judged"))


@pytest.mark.slow
def test_evaluate_reports_everything_as_json(tiny: Cli, classifier_cache: str, tmp_path: Path) -> None:
    done = tiny(
        "evaluate", "tiny", "-n", 100, "--steps", 2, "--show-nearest", tmp_path / "near.png", "--json",
        XDG_CACHE_HOME=classifier_cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    envelope = json.loads(done.stdout)
    assert (envelope["version"], envelope["command"]) == (1, "evaluate")
    (result,) = envelope["result"]["results"]
    assert result["count"] == 100
    assert result["nfe"] == 4  # guided: twice a step
    assert result["images_per_second"] > 0
    assert result["frechet"]["ratio"] == pytest.approx(result["frechet"]["value"] / result["frechet"]["floor"])
    assert 0 <= result["accuracy"] <= 1
    assert result["real_accuracy"] > 0.9
    with Image.open(tmp_path / "near.png") as sheet:
        assert sheet.width > 10 * 3 * 32
        made = json.loads(sheet.info["ddpmctl"])
    assert (made["kind"], made["model"], made["steps"], len(made["labels"])) == ("sheet", "tiny", 2, 10)
    assert made["command"].startswith("ddpmctl evaluate tiny -n 100 --show-nearest nearest.png --seed 0 ")
    again = tiny(*shlex.split(made["command"])[1:], XDG_CACHE_HOME=classifier_cache)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "nearest.png").read_bytes() == (tmp_path / "near.png").read_bytes()


@pytest.mark.slow
def test_evaluate_sweeps_every_combination(tiny: Cli, classifier_cache: str) -> None:
    done = tiny(
        "evaluate", "-n", 100, "--sweep", "steps=1,2", "--sweep", "guidance=1,1.5", "--json",
        XDG_CACHE_HOME=classifier_cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["result"]["results"]
    ways = [(r["sampling"]["steps"], r["sampling"]["guidance"], r["nfe"]) for r in results]
    assert ways == [(1, 1.0, 1), (1, 1.5, 2), (2, 1.0, 2), (2, 1.5, 4)]


@pytest.mark.slow
def test_a_sweep_can_be_drawn(tiny: Cli, classifier_cache: str, tmp_path: Path) -> None:
    done = tiny(
        "evaluate", "-n", 100, "--sweep", "steps=1,2", "--sweep", "guidance-interval=0:1,0.3:0.8", "--json",
        "--plot", "quality.png", XDG_CACHE_HOME=classifier_cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert result["files"] == ["quality.png"]
    intervals = [each["sampling"]["guidance_interval"] for each in result["results"]]
    assert intervals == [[0.0, 1.0], [0.3, 0.8]] * 2
    with Image.open(tmp_path / "quality.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_what_the_extra_brings_is_missed_before_anything_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(DdpmctlError, match="torchmetrics is not installed") as caught:
        evaluate("no model is opened")
    assert caught.value.hint == "in the project's folder: pip install '.[eval]'"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-n", "5"], "--count should be greater than or equal to 100, not '5'"),
        (["--sweep", "seeds=1,2"], "'seeds=1,2' is not a valid sweep"),
        (["--sweep", "steps"], "'steps' is not a valid sweep"),
        (["--sweep", "steps=a"], "'steps=a' contains a value that is not a number"),
        (["--sweep", "steps=0"], "0 steps are too few"),
        (["--show-nearest", "x.gif"], "'x.gif' has an unsupported file extension"),
    ],
)
def test_evaluate_refuses_what_is_typed_wrong(tiny: Cli, arguments: list[str], complaint: str) -> None:
    done = tiny("evaluate", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not done.stdout


@pytest.mark.slow
def test_evaluate_without_torchmetrics_names_the_extra(tiny: Cli, classifier_cache: str, tmp_path: Path) -> None:
    (tmp_path / "torchmetrics.py").write_text("raise ImportError('no torchmetrics')\n")
    done = tiny("evaluate", "-n", 100, "--steps", 1, PYTHONPATH=str(tmp_path), XDG_CACHE_HOME=classifier_cache)
    assert done.returncode == 1
    assert "in the project's folder: pip install '.[eval]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_classifier_does_not_depend_on_the_defaults_of_torch(
    train: Dataset, test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "MIN_STEPS", 3)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    expected = classifier.fit(train, CPU, lambda done, total: None)
    features = classifier.predict(expected, test.images).features
    with foreign_defaults():
        found = classifier.fit(train, CPU, lambda done, total: None)
        assert torch.equal(classifier.predict(found, test.images).features, features)
