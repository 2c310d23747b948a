"""The bound on the likelihood: against KL divergences of normal distributions, an exact density, and the full sum."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpmctl.core.noise import normal
from ddpmctl.data.dataset import to_model_range
from ddpmctl.errors import UsageError
from ddpmctl.evaluation import denoising
from ddpmctl.evaluation.likelihood import discretized_nll, likelihood, random_timesteps
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.builders import register_random, tiny_config

from .gaussian import PIXELS, SIDE, GaussianImages, gaussian_engine

DATA = GaussianImages(distance=0.1)

FEW = 12
"""Timesteps of the tiny process."""


@pytest.fixture(params=["v", "epsilon", "x0"])
def tiny_process(tmp_path: Path, request: pytest.FixtureRequest) -> Engine:
    config = tiny_config(
        model={"image_size": SIDE, "sample_size": SIDE, "widths": [16]},
        diffusion={"timesteps": FEW, "parameterization": request.param},
        sampling={"steps": FEW},
    )
    register_random(Registry(tmp_path), "random", config, scale=0.3)
    return Engine(Registry(tmp_path).open("random"), "cpu", "fp32")


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return gaussian_engine(tmp_path_factory.mktemp("best"), DATA)


def some_images(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(256, (count, 1, SIDE, SIDE), generator=generator).clamp(20, 235) // 15 * 15
    return images.to(torch.uint8), torch.arange(count) % 10


def bound(engine: Engine, image: Tensor, label: int, seed: int) -> tuple[float, float, float]:
    """Ho et al. 2020, eq. 5, term by term, in bits: L_T, the sum of L_1 .. L_{T-1}, L_0."""
    schedule, shape = engine.diffusion.schedule, (FEW, 1, SIDE, SIDE)
    x0, epsilon = to_model_range(image[None]).double(), normal([seed], 0, shape)[0].double()
    alpha_bar = schedule.alpha_bar

    def posterior(x: Tensor, clean: Tensor, t: int) -> tuple[Tensor, float]:  # eq. 6 and 7
        before, beta = float(alpha_bar[t - 1]), float(schedule.betas[t])
        mean = math.sqrt(before) * beta * clean + math.sqrt(1 - beta) * (1 - before) * x
        return mean / (1 - alpha_bar[t]), float((1 - before) / (1 - alpha_bar[t]) * beta)

    steps = 0.0
    for t in range(FEW):
        x = schedule.alpha[t] * x0 + schedule.sigma[t] * epsilon[t]
        predicted = engine.predict_x0(x.float(), t, [label]).double().clamp(-1, 1)
        if t:
            (true, variance), (mean, _) = posterior(x, x0, t), posterior(x, predicted, t)
            steps += float(kl_divergence(Normal(true, variance**0.5), Normal(mean, variance**0.5)).sum())
        else:
            deviation = math.sqrt(schedule.betas[1] * (1 - alpha_bar[0]) / (1 - alpha_bar[1]))
            upper = norm.cdf((x0 + 1 / 255 - predicted) / deviation)
            lower = norm.cdf((x0 - 1 / 255 - predicted) / deviation)
            decoder = -float(torch.from_numpy(upper - lower).log().sum())
    last = Normal(schedule.alpha[-1] * x0, schedule.sigma[-1])
    prior = float(kl_divergence(last, Normal(torch.zeros_like(x0), 1.0)).sum())
    dims = PIXELS * math.log(2)
    return prior / dims, steps / dims, decoder / dims


def test_the_sum_of_all_timesteps_is_the_sum_of_the_kl_divergences(tiny_process: Engine) -> None:
    images, labels = some_images(3)
    found = likelihood(tiny_process, images, labels, seed=7, timesteps=None)
    for k in range(3):
        expected = bound(tiny_process, images[k], int(labels[k]), seed=7 + k)
        # The decoder of the oracle is a difference of two numbers near 1 where the prediction is far off.
        assert (float(found.prior[k]), float(found.diffusion[k])) == pytest.approx(expected[:2], rel=1e-4)
        if math.isfinite(expected[2]):
            assert float(found.decoder[k]) == pytest.approx(expected[2], rel=1e-2)
        assert float(found.bits[k]) == pytest.approx(float(found.prior[k] + found.diffusion[k] + found.decoder[k]))


def test_random_timesteps_estimate_the_sum_of_all_within_their_standard_error(tiny_process: Engine) -> None:
    images, labels = some_images(1)
    many, label = images.expand(600, -1, -1, -1), labels.expand(600)
    exact = likelihood(tiny_process, many, label, seed=1, timesteps=None)
    found = likelihood(tiny_process, many, label, seed=2001, timesteps=3)
    together = math.hypot(exact.standard_error, found.standard_error)
    assert abs(found.mean - exact.mean) < 3 * together
    assert together < 0.02 * exact.mean


def test_the_weights_of_random_timesteps_make_any_sum_unbiased() -> None:
    alpha_bar = torch.linspace(0.999, 0.001, 200, dtype=torch.float64)
    t, weight = random_timesteps(alpha_bar, torch.arange(20_000), seed=3, count=5)
    assert (int(t.min()), int(t.max())) == (1, 199)
    for term in (torch.ones(200), torch.arange(200.0), torch.arange(200) % 2):
        estimates = (weight * term[t]).sum(dim=1)
        assert float(estimates.mean()) == pytest.approx(float(term[1:].sum()), rel=0.01)


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("deviation", [0.001, 0.005, 0.3])
def test_the_decoder_is_a_distribution_over_256_values(pixel_range: tuple[float, float], deviation: float) -> None:
    values = to_model_range(torch.arange(256, dtype=torch.uint8), pixel_range).double().view(256, 1, 1, 1)
    for mean in (-1.3, -1.0, 0.0, 0.4321, 1.0, 2.0):
        nats = discretized_nll(values, torch.full_like(values, mean), deviation, pixel_range)
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-4)
    inner = discretized_nll(values[100:101], values[100:101], deviation, pixel_range)
    half = (pixel_range[1] - pixel_range[0]) / 510
    assert float(inner) == pytest.approx(-math.log(norm.cdf(half / deviation) - norm.cdf(-half / deviation)), rel=1e-6)
    assert bool(discretized_nll(values, torch.full_like(values, 50.0), deviation, pixel_range).isfinite().all())


def test_the_best_denoiser_has_the_least_mean_squared_error_and_a_bound_above_the_density(best: Engine) -> None:
    data, engine = DATA, best
    images, labels = data.draw(300, seed=2)
    found = likelihood(engine, images, labels, timesteps=32)
    # Of normal images with the eigenvalues w of their covariance, the error of the mean is sum w / (1 + SNR w).
    w, snr = torch.from_numpy(np.linalg.eigvalsh(data.covariances)), engine.diffusion.schedule.snr
    least = (w / (1 + snr[1:, None, None] * w)).sum(dim=2).mean(dim=1)
    expected = float(((snr[:-1] - snr[1:]) / 2 * least).sum()) / (PIXELS * math.log(2))
    assert float(found.diffusion.mean()) == pytest.approx(expected, rel=0.01)
    density = data.log_density(images).gather(1, labels[:, None])[:, 0]
    # The probability of an 8-bit pixel is nearly its density times the width of the bin.
    exact = -(density / PIXELS + math.log(2 / 255)) / math.log(2)
    assert float(exact.mean()) < found.mean
    assert likelihood(engine, images, (labels + 1) % 3).mean > found.mean + 0.1


def test_an_image_has_the_same_bits_in_batches_of_any_size(best: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = DATA.draw(7, seed=2)
    whole = likelihood(best, images, labels, seed=9)
    monkeypatch.setitem(denoising.BATCH_PIXELS, "cpu", 20 * PIXELS)
    torch.testing.assert_close(likelihood(best, images, labels, seed=9).bits, whole.bits, rtol=1e-5, atol=1e-6)


def test_a_seed_out_of_range_is_refused(tiny_process: Engine) -> None:
    images, labels = some_images(2)
    with pytest.raises(UsageError, match="out of range"):
        likelihood(tiny_process, images, labels, seed=-1)
