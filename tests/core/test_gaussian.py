"""The Gaussian denoiser against the conditional mean of a mixture by matrix inversion and Bayes, in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from ddpmctl.build import build_network
from ddpmctl.core.diffusion import PARAMETERIZATIONS, Diffusion
from ddpmctl.core.gaussian import MAX_VALUES, MIN_VARIANCE, GaussianDenoiser, GaussianResidual
from ddpmctl.core.schedule import SCHEDULES
from tests.builders import tiny_config

SIDE, PIXELS = 4, 16
SCHEDULE = SCHEDULES["cosine"](1000)


def images(count: int = 400) -> tuple[Tensor, Tensor]:
    """Two classes of correlated pixels, float32[N,1,4,4]."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count) % 2
    mixing = torch.randn(2, PIXELS, PIXELS, generator=generator) * 0.2
    values = torch.einsum("np,npq->nq", torch.randn(count, PIXELS, generator=generator), mixing[label])
    return (values + 0.5 * label[:, None] - 0.3).view(-1, 1, SIDE, SIDE), label


def fitted(rank: int, classes: int = 2, clusters: int = 1) -> GaussianDenoiser:
    torch.manual_seed(0)
    made = GaussianDenoiser(SCHEDULE, PIXELS, classes, rank, clusters)
    made.fit(*images())
    return made


def moments(values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance, of which the components beyond the rank share their variance."""
    flat = values.flatten(1).double()
    mean = flat.mean(0)
    variances, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    if rank < PIXELS:
        variances[:-rank] = variances[:-rank].mean()
    variances = variances.clamp(min=MIN_VARIANCE)
    return mean, vectors @ torch.diag(variances) @ vectors.T


Cluster = tuple[float, Tensor, Tensor]
"""Weight, mean and covariance."""


def clusters_of(gaussian: GaussianDenoiser) -> list[Cluster]:
    """What was fitted."""
    found = []
    for k, weight in enumerate(gaussian.weight.tolist()):
        basis = gaussian.basis[:, k * gaussian.rank : (k + 1) * gaussian.rank].double()
        rest = gaussian.rest[k].double()
        covariance = basis @ torch.diag(gaussian.variance[k].double() - rest) @ basis.T + rest * torch.eye(PIXELS)
        found.append((weight, gaussian.mean[k].double(), covariance))
    return found


def velocity(x: Tensor, t: int, clusters: list[Cluster]) -> Tensor:
    """``E[v | x_t]`` from ``E[x_0 | x_t, k] = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m)`` and Bayes."""
    alpha, sigma = SCHEDULE.alpha[t], SCHEDULE.sigma[t]
    noisy = x.flatten(1).double()
    densities, images = [], []
    for weight, mean, covariance in clusters:
        of_x = alpha**2 * covariance + sigma**2 * torch.eye(PIXELS, dtype=torch.float64)
        densities.append(math.log(weight) + MultivariateNormal(alpha * mean, of_x).log_prob(noisy))
        images.append(mean + torch.linalg.solve(of_x, (alpha * (noisy - alpha * mean)).T).T @ covariance)
    x0 = torch.einsum("kn,knp->np", torch.stack(densities).softmax(0), torch.stack(images))
    epsilon = (noisy - alpha * x0) / sigma
    expected: Tensor = alpha * epsilon - sigma * x0
    return expected.view_as(x)


@pytest.mark.parametrize("rank", [16, 5])
@pytest.mark.parametrize("t", [5, 300, 700, 990])
def test_it_is_the_conditional_mean_of_each_class_and_of_their_mixture(rank: int, t: int) -> None:
    gaussian, (values, labels) = fitted(rank), images()
    x = torch.randn(7, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(t))
    zero, one = ((0.5, *moments(values[labels == label], rank)) for label in (0, 1))
    for label, clusters in enumerate(([zero], [one], [zero, one])):
        found = gaussian(x, torch.full((7,), t), torch.full((7,), label))
        assert_close(found.double(), velocity(x, t, clusters), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("t", [5, 300, 700, 990])
def test_a_class_may_have_several_clusters(t: int) -> None:
    gaussian = fitted(5, clusters=3)
    fitted_clusters = clusters_of(gaussian)
    assert len(fitted_clusters) == 6
    assert_close(gaussian.weight.view(2, 3).sum(1), torch.tensor([0.5, 0.5]))
    x = torch.randn(7, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(t))
    for label, clusters in enumerate((fitted_clusters[:3], fitted_clusters[3:], fitted_clusters)):
        found = gaussian(x, torch.full((7,), t), torch.full((7,), label))
        assert_close(found.double(), velocity(x, t, clusters), atol=2e-3, rtol=2e-3)


def test_the_clusters_are_those_that_are_there() -> None:
    """Three groups far apart, of which one is too small to be a cluster of its own."""
    torch.manual_seed(0)
    values = 0.1 * torch.randn(410, 1, SIDE, SIDE)
    values[:200] += 1
    values[200:400] -= 1
    values[400:] += torch.tensor([3.0, -3.0]).repeat(8).view(1, 1, SIDE, SIDE)
    gaussian = GaussianDenoiser(SCHEDULE, PIXELS, 1, 2, clusters=5)
    gaussian.fit(values, torch.zeros(len(values), dtype=torch.int64))
    used = gaussian.weight > 0
    assert_close(gaussian.weight.sum(), torch.tensor(1.0))
    assert (gaussian.weight[used] * 410 >= 16).all()
    for side in (1.0, -1.0):
        assert any(abs(float(mean.mean()) - side) < 0.15 for mean in gaussian.mean[used])


def test_more_clusters_are_a_better_denoiser_of_images_in_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, PIXELS, generator=generator)
    values = centres[torch.arange(800) % 4] + 0.2 * torch.randn(800, PIXELS, generator=generator)
    values, labels = values.view(-1, 1, SIDE, SIDE), torch.zeros(800, dtype=torch.int64)
    noise, diffusion = torch.randn(values.shape, generator=generator), Diffusion(SCHEDULE, "v", clip_x0=False)
    times = torch.full((800,), 500)
    errors = []
    for clusters in (1, 4):
        gaussian = GaussianDenoiser(SCHEDULE, PIXELS, 1, 2, clusters)
        gaussian.fit(values, labels)
        errors.append(float(diffusion.loss(gaussian, values, times, noise, labels).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_the_images_of_a_batch_have_noise_levels_and_classes_of_their_own() -> None:
    gaussian = fitted(5)
    x, t, label = torch.randn(3, 1, SIDE, SIDE), torch.tensor([10, 500, 900]), torch.tensor([0, 2, 1])
    together = gaussian(x, t, label)
    for k in range(3):
        assert_close(together[k : k + 1], gaussian(x[k : k + 1], t[k : k + 1], label[k : k + 1]))


def test_all_clusters_at_once_are_as_a_class_at_a_time() -> None:
    gaussian = fitted(5, clusters=3)
    assert gaussian.training
    x, t = torch.randn(6, 1, SIDE, SIDE), torch.tensor([10, 500, 900, 30, 300, 990])
    label = torch.tensor([0, 2, 1, 1, 2, 0])
    by_class = gaussian(x, t, label)
    assert_close(gaussian.eval()(x, t, label), by_class, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t", [5, 400, 900])
def test_the_likelihood_of_a_class_is_that_of_its_mixture(t: int) -> None:
    gaussian, (values, _) = fitted(5, clusters=3), images()
    alpha, sigma = SCHEDULE.alpha[t], SCHEDULE.sigma[t]
    x = alpha * values[:9].flatten(1).double()
    expected = []
    for label in (0, 1):
        terms = [
            math.log(weight)
            + MultivariateNormal(alpha * mean, alpha**2 * covariance + sigma**2 * torch.eye(PIXELS)).log_prob(x)
            for weight, mean, covariance in clusters_of(gaussian)[label * 3 : label * 3 + 3]
        ]
        expected.append(torch.stack(terms).logsumexp(0))
    found = gaussian.log_likelihood(values[:9], t).double()
    # The constant is that of all classes.
    assert_close(found[:, 1] - found[:, 0], expected[1] - expected[0], atol=2e-2, rtol=1e-3)
    assert_close(found - found[0, 0], torch.stack(expected, 1) - expected[0][0], atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_in_one_pass_is_that_of_two(scale: float) -> None:
    gaussian = fitted(5, clusters=3).eval()
    x, t, label = torch.randn(3, 1, SIDE, SIDE), torch.tensor([300, 700, 900]), torch.tensor([0, 1, 0])
    cond, uncond = gaussian(x, t, label), gaussian(x, t, torch.full_like(label, 2))
    guided = gaussian.velocity(gaussian.clusters_of(), x, t, label, scale)
    assert_close(guided, uncond + scale * (cond - uncond), atol=1e-5, rtol=1e-4)


def test_products_in_half_the_precision_are_near_at_high_noise() -> None:
    gaussian = fitted(5, clusters=3).eval()
    x, t, label = torch.randn(8, 1, SIDE, SIDE), torch.arange(640, 1000, 45)[:8], torch.arange(8) % 2
    exact = gaussian.velocity(gaussian.clusters_of(), x, t, label, 1.8)
    rough = gaussian.velocity(gaussian.clusters_of().with_products_in(torch.bfloat16), x, t, label, 1.8)
    assert not torch.equal(exact, rough)
    assert_close(rough, exact, atol=0.02, rtol=0.02)


def test_an_image_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    gaussian = GaussianDenoiser(SCHEDULE, 1024, 10, 16, 16).eval()
    for name, tensor in gaussian.state_dict().items():
        tensor.copy_(torch.rand(tensor.shape) if name in ("variance", "rest", "weight") else torch.randn(tensor.shape))
    x, label = torch.randn(64, 1, 32, 32), torch.arange(64) % 11
    for t in (torch.full((64,), 600), torch.arange(64) * 15):
        together = gaussian(x, t, label)
        for first, last in ((0, 1), (3, 12), (40, 64)):
            part = slice(first, last)
            assert_close(gaussian(x[part], t[part], label[part]), together[part], atol=1e-5, rtol=1e-5)


def test_no_other_linear_prediction_is_better_on_its_own_images() -> None:
    gaussian, (values, labels) = fitted(16), images()
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    diffusion = Diffusion(SCHEDULE, "v")
    for t in (100, 500, 900):
        times = torch.full((len(values),), t)
        own = diffusion.loss(gaussian, values, times, noise, labels).mean()
        other = diffusion.loss(gaussian, values, times, noise, 1 - labels).mean()
        scaled = diffusion.loss(lambda x, t, label: 1.05 * gaussian(x, t, label), values, times, noise, labels).mean()
        assert own < other
        assert own < scaled


def test_a_class_of_one_image_is_as_all_images_and_one_of_none_too() -> None:
    torch.manual_seed(0)
    gaussian = GaussianDenoiser(SCHEDULE, PIXELS, 4, 3)
    values, labels = images(20)
    labels[labels == 1] = 0
    labels[4] = 1
    gaussian.fit(values, labels)
    x, t = torch.randn(2, 1, SIDE, SIDE), torch.tensor([300, 600])
    alone, of_none = (gaussian(x, t, torch.tensor([label, label])) for label in (1, 3))
    expected = torch.cat([velocity(x[k : k + 1], int(t[k]), [(1.0, *moments(values, 3))]) for k in range(2)])
    for found in (alone, of_none):
        assert_close(found.double(), expected, atol=1e-3, rtol=1e-3)
    assert torch.isfinite(gaussian(x, t, torch.tensor([4, 4]))).all()
    assert all(torch.isfinite(tensor).all() for tensor in gaussian.state_dict().values())


def test_equal_images_are_no_division_by_zero() -> None:
    gaussian = GaussianDenoiser(SCHEDULE, PIXELS, 1, 8)
    gaussian.fit(torch.ones(5, 1, SIDE, SIDE), torch.zeros(5, dtype=torch.int64))
    found = gaussian(torch.randn(2, 1, SIDE, SIDE), torch.tensor([0, 999]), torch.tensor([0, 1]))
    assert torch.isfinite(found).all()


def test_many_classes_share_the_components() -> None:
    def shape(pixels: int, classes: int) -> tuple[int, int]:
        made = GaussianDenoiser(SCHEDULE, pixels, classes, 16, 16)
        assert made.mean.numel() + made.basis.numel() <= max(MAX_VALUES, 2 * pixels * classes)
        return made.clusters, made.rank

    assert shape(1024, 10) == (16, 16)
    assert shape(1024, 26) == (6, 16)
    assert shape(1024, 47) == (3, 16)
    assert shape(12288, 10) == (1, 16)
    assert shape(1024, 5000) == (1, 1)


@pytest.mark.parametrize("target", ["v", "epsilon", "x0"])
def test_a_network_starts_as_the_gaussian_denoiser_whatever_it_predicts(target: str) -> None:
    config = tiny_config(model={"gaussian_rank": 16}, diffusion={"parameterization": target})
    network = build_network(config).eval()
    assert isinstance(network, GaussianResidual)
    generator = torch.Generator().manual_seed(0)
    values, labels = torch.rand(50, 1, 32, 32, generator=generator) * 2 - 1, torch.arange(50) % 10
    network.gaussian.fit(values, labels)
    x, t, label = torch.randn(3, 1, 32, 32, generator=generator), torch.tensor([20, 500, 990]), torch.tensor([0, 3, 10])
    diffusion = Diffusion(SCHEDULE, target, clip_x0=False)
    of_v = Diffusion(SCHEDULE, "v", clip_x0=False)
    with torch.no_grad():
        network.get_parameter("network.conv_out.bias").zero_()
        found = diffusion.predict_x0(x, t, network(x, t, label))
        assert_close(found, of_v.predict_x0(x, t, network.gaussian(x, t, label)), atol=2e-3, rtol=1e-3)
        network.get_parameter("network.conv_out.bias").fill_(0.1)
        assert not torch.allclose(found, diffusion.predict_x0(x, t, network(x, t, label)), atol=1e-3)
    assert set(PARAMETERIZATIONS) == {"v", "epsilon", "x0"}


def test_it_computes_in_float32_whatever_the_network_does() -> None:
    gaussian = fitted(5)
    x, t, label = torch.randn(2, 1, SIDE, SIDE), torch.tensor([10, 500]), torch.tensor([0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        low = gaussian(x, t, label)
    assert torch.equal(low, gaussian(x, t, label))
