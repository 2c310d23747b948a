"""The model as a classifier: against Bayes' rule where it is known, and the rule by which classes are dropped."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpmctl.core.gaussian import GaussianResidual
from ddpmctl.errors import UsageError
from ddpmctl.evaluation import denoising
from ddpmctl.evaluation import diffusion_classifier as by_diffusion
from ddpmctl.evaluation.diffusion_classifier import Round, classify, error_map, survivors, timesteps_at
from ddpmctl.sampling.engine import Engine

from .gaussian import CLASSES, PIXELS, GaussianImages, gaussian_engine

DATA = GaussianImages(distance=0.018, alike=True)
"""Classes that overlap: the best classifier errs, too."""

ALL_DRAWS = (Round(93, 1),)
"""Every class on every draw."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return gaussian_engine(tmp_path_factory.mktemp("gaussian"), DATA)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return DATA.draw(300, seed=2)


@pytest.fixture(autouse=True)
def noise_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """These images differ in less than digits do."""
    monkeypatch.setattr(by_diffusion, "LOG_SNR", (5.0, 0.0))


def test_it_agrees_with_bayes_rule(engine: Engine, images: tuple[Tensor, Tensor]) -> None:
    bayes = DATA.log_density(images[0]).argmax(dim=1)
    right = float((bayes == images[1]).double().mean())
    found = classify(engine, images[0])
    assert 0.9 < right < 0.95
    assert float((found.labels == bayes).double().mean()) > 0.92
    assert float((found.labels == images[1]).double().mean()) > right - 0.03


def test_dropping_classes_early_changes_hardly_any_answer_and_saves_evaluations(
    engine: Engine, images: tuple[Tensor, Tensor]
) -> None:
    every, early = classify(engine, images[0], rounds=ALL_DRAWS), classify(engine, images[0])
    assert every.evaluations.unique().tolist() == [93 * len(CLASSES)]
    assert float((every.labels == early.labels).double().mean()) > 0.95
    assert float(early.evaluations.double().mean()) < 0.3 * 93 * len(CLASSES)
    assert int(early.evaluations.min()) == 3 * len(CLASSES)


def test_the_closed_form_drops_classes_without_an_evaluation_and_never_all_but_one(
    engine: Engine, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = engine.network
    assert isinstance(network, GaussianResidual)
    plain = classify(engine, images[0])
    monkeypatch.setattr(by_diffusion, "CLOSED_FORM_MARGIN", 1.0)
    found = classify(engine, images[0], closed_form=True)
    # So wide a margin drops nothing.
    assert torch.equal(found.labels, plain.labels) and torch.equal(found.evaluations, plain.evaluations)
    monkeypatch.setattr(by_diffusion, "CLOSED_FORM_MARGIN", 0.0)
    # Near the image, where these classes differ.
    monkeypatch.setattr(by_diffusion, "CLOSED_FORM_LOG_SNR", 8.0)
    found = classify(engine, images[0], closed_form=True)
    assert int(found.evaluations.min()) == 3 * 2
    assert float(found.evaluations.double().mean()) < 0.8 * float(plain.evaluations.double().mean())
    kept = by_diffusion.plausible(engine, network.gaussian, denoising.Denoising(engine).clean(images[0]))
    assert kept.sum(dim=1).unique().tolist() == [2]
    bayes = DATA.log_density(images[0]).argmax(dim=1, keepdim=True)
    assert float(kept.gather(1, bayes).double().mean()) > 0.98
    right, before = (float((each.labels == images[1]).double().mean()) for each in (found, plain))
    assert right > before - 0.02


def test_the_answer_has_the_smallest_error_and_every_class_has_one(
    engine: Engine, images: tuple[Tensor, Tensor]
) -> None:
    found = classify(engine, images[0])
    assert found.errors.shape == (300, len(CLASSES))
    assert bool(found.errors.isfinite().all())
    assert torch.equal(found.errors.argmin(dim=1), found.labels)


def test_an_image_has_the_same_class_alone_among_others_and_in_batches_of_any_size(
    engine: Engine, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = images[0][:12]
    together = classify(engine, some, seed=4)
    alone = [classify(engine, some[k : k + 1], seed=4) for k in range(3)]
    monkeypatch.setitem(denoising.BATCH_PIXELS, "cpu", 13 * PIXELS)
    monkeypatch.setattr(by_diffusion, "GROUP", 5)
    small = classify(engine, some, seed=4)
    for found, rows in ((small, slice(0, 12)), *((one, slice(k, k + 1)) for k, one in enumerate(alone))):
        assert torch.equal(found.labels, together.labels[rows])
        assert torch.equal(found.evaluations, together.evaluations[rows])
        torch.testing.assert_close(found.errors, together.errors[rows], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parameterization", ["epsilon", "x0"])
def test_the_errors_are_the_same_whatever_the_network_predicts(
    engine: Engine, images: tuple[Tensor, Tensor], tmp_path: Path, parameterization: str
) -> None:
    other = gaussian_engine(tmp_path, DATA, diffusion={"parameterization": parameterization})
    expected, found = (classify(each, images[0][:20], rounds=(Round(6, 1),)) for each in (engine, other))
    torch.testing.assert_close(found.errors, expected.errors, rtol=1e-3, atol=1e-6)


def test_pixels_in_half_the_range_are_compared_at_a_quarter_of_the_noise(engine: Engine, tmp_path: Path) -> None:
    half = gaussian_engine(tmp_path, DATA, diffusion={"pixel_range": [0, 1]})
    snr = engine.diffusion.schedule.snr
    ratios = snr[timesteps_at(half, (2.0, -2.0), 5)] / snr[timesteps_at(engine, (2.0, -2.0), 5)]
    assert ratios.tolist() == pytest.approx([4] * 5, rel=0.02)


def errors(*classes: list[float]) -> Tensor:
    """The errors of one image on some draws, one list per class."""
    return torch.tensor(classes, dtype=torch.float64).T[None]


def test_a_class_is_dropped_when_it_is_worse_by_more_than_chance() -> None:
    near = errors([1.0, 2.0, 3.0, 4.0], [1.2, 1.9, 3.3, 4.1], [1.5, 2.5, 3.5, 4.6])
    # The second is worse by 0.125 +- 0.085, the third by 0.525 +- 0.025.
    assert survivors(near, 3).tolist() == [[True, True, False]]
    assert survivors(near, 1).tolist() == [[True, False, False]]
    dropped = torch.cat([near, near[..., :1] * math.nan], dim=2)
    assert survivors(dropped, 4).tolist() == [[True, True, False, False]]
    equal = errors([1.0, 2.0], [1.0, 2.0], [1.0, 2.0])
    assert survivors(equal, 2).sum().item() == 2


def test_the_map_shows_the_class_between_noise_and_details(engine: Engine, images: tuple[Tensor, Tensor]) -> None:
    timesteps, found = error_map(engine, images[0][0], seed=1)
    assert found.shape == (len(CLASSES), len(timesteps))
    assert timesteps.tolist() == sorted(timesteps.tolist())
    assert bool((found > 0).all())
    # In pure noise, the prediction is the noise itself.
    assert float(found[:, -1].max()) < 0.1 < float(found[:, 0].max())


def test_a_seed_out_of_range_is_refused(engine: Engine, images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        classify(engine, images[0], seed=2**63)
