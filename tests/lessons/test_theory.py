"""The mathematics of each lesson's claim, in closed form and on the real networks."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ddpmctl.core.diffusion import Diffusion
from ddpmctl.core.schedule import cosine, linear
from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import to_model_range
from ddpmctl.lessons.batchnorm import batch_statistics
from ddpmctl.lessons.theory import conditional_mean, dependence_on_batch, first_below, signal_to_noise
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.builders import register_random, tiny_config

TIMES = (10, 300, 600, 999)


@pytest.fixture
def pair() -> Tensor:
    """A data set of two images."""
    first = torch.full((1, 4, 4), -1.0)
    second = first.clone()
    second[:, 1:3, 1:3] = 1
    return torch.stack([first, second])


@pytest.mark.parametrize("t", TIMES)
def test_of_two_images_the_conditional_mean_weighs_each_by_a_logistic_of_the_distances(pair: Tensor, t: int) -> None:
    schedule = cosine(1000)
    alpha, sigma = float(schedule.alpha[t]), float(schedule.sigma[t])
    x = alpha * pair[[0, 1, 0, 1]] + sigma * torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    far, near = ((x - alpha * image).square().sum((1, 2, 3)) for image in pair)
    share = torch.sigmoid((far - near) / (2 * sigma**2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(conditional_mean(x, pair, alpha, sigma), (1 - share) * pair[0] + share * pair[1])


def test_from_pure_noise_it_is_the_plain_mean_and_from_none_the_image(pair: Tensor) -> None:
    noise = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(conditional_mean(noise, pair, 0.0, 1.0), pair.mean(0).expand(8, 1, 4, 4))
    torch.testing.assert_close(conditional_mean(pair, pair, 1.0, 0.01), pair)


@pytest.mark.parametrize("t", TIMES)
def test_no_answer_has_a_smaller_squared_error_than_the_conditional_mean(pair: Tensor, t: int) -> None:
    diffusion, count = Diffusion(linear(1000), "x0"), 20_000
    generator = torch.Generator().manual_seed(1)
    x0 = pair[torch.randint(2, (count,), generator=generator)]
    epsilon = torch.randn(x0.shape, generator=generator)
    times, labels = torch.full((count,), t), torch.zeros(count, dtype=torch.long)
    alpha, sigma = float(diffusion.schedule.alpha[t]), float(diffusion.schedule.sigma[t])

    def best(x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return conditional_mean(x, pair, alpha, sigma)

    def nearest(x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return pair[(best(x, times, labels) - pair[0]).square().sum((1, 2, 3)).gt(8).long()]

    def error(answer: object) -> float:
        return float(diffusion.loss(answer, x0, times, epsilon, labels).double().mean())  # type: ignore[arg-type]

    least = error(best)
    others = {
        "always the mean": lambda x, times, labels: pair.mean(0).expand(count, 1, 4, 4),
        "the nearer image": nearest,
        "a little bolder": lambda x, times, labels: pair.mean(0) + 1.1 * (best(x, times, labels) - pair.mean(0)),
        "a little shyer": lambda x, times, labels: pair.mean(0) + 0.9 * (best(x, times, labels) - pair.mean(0)),
    }
    for name, answer in others.items():
        # Where hardly any noise is, several are right; none is better.
        assert error(answer) >= least - 1e-4, name
    assert error(others["always the mean"]) > least + 1e-3 or t == 999


def test_at_half_the_chain_both_bolder_and_shyer_answers_are_worse(pair: Tensor) -> None:
    # The images are told apart by a half: the mean is neither of the two, and either would be worse.
    x = torch.randn(50_000, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    x0 = pair[torch.randint(2, (50_000,), generator=torch.Generator().manual_seed(3))]
    x = 0.2 * x0 + math.sqrt(1 - 0.2**2) * x
    answer = conditional_mean(x, pair, 0.2, math.sqrt(1 - 0.2**2))
    sure = torch.where((answer - pair[0]).square().sum((1, 2, 3), keepdim=True) > 8, pair[1], pair[0])
    errors = [float((each - x0).square().mean()) for each in (answer, sure, pair.mean(0).expand_as(x0))]
    assert errors[0] < 0.95 * min(errors[1:])


@pytest.mark.parametrize("t", [0, 250, 500, 750])
def test_pixels_of_0_to_1_lose_six_decibels_at_every_timestep(t: int) -> None:
    images, schedule = load_dataset("strokes:200", 32).images, cosine(1000)
    centred, other = (
        signal_to_noise(to_model_range(images, limits), schedule.signal(t)) for limits in ((-1.0, 1.0), (0.0, 1.0))
    )
    assert centred - other == pytest.approx(20 * math.log10(2), abs=1e-4)
    assert centred - other == pytest.approx(6.02, abs=0.01)


def test_a_signal_as_strong_as_the_noise_has_no_decibels_and_falls_below_it_at_the_right_timestep() -> None:
    images = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    assert signal_to_noise(images, 0.5) == pytest.approx(0)
    assert signal_to_noise(images, 10 / 11) == pytest.approx(10)
    schedule = cosine(1000)
    below = first_below(images, schedule.alpha_bar)
    assert schedule.signal(below) < 0.5 <= schedule.signal(below - 1)
    assert first_below(images, schedule.alpha_bar, -1000) == 1000


@pytest.fixture
def norms(tmp_path: Path) -> dict[str, Engine]:
    """The tiny network with either norm, never trained: a last layer that is not zero, so that something is said."""
    registry = Registry(tmp_path)
    engines = {}
    for norm in ("batch", "group"):
        register_random(registry, norm, tiny_config(model={"norm": norm}))
        engines[norm] = Engine(registry.open(norm), "cpu", "fp32")
        for module in engines[norm].network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.abs_()  # random ones may be below zero
    return engines


def answers(engine: Engine) -> Tensor:
    """What is said of one image among seven others, five times with others."""
    generator = torch.Generator().manual_seed(0)
    image, said = torch.randn(1, 1, 32, 32, generator=generator), []
    for _ in range(5):
        x = torch.cat([image, torch.randn(7, 1, 32, 32, generator=generator)])
        said.append(engine.predict_x0(x, 500, [3] * 8)[0])
    return torch.stack(said)


def test_batch_norm_makes_an_image_depend_on_its_mates_and_group_norm_does_not(norms: dict[str, Engine]) -> None:
    assert dependence_on_batch(answers(norms["group"])) < 1e-6
    assert dependence_on_batch(answers(norms["batch"])) < 1e-6  # by running statistics, which are the same for all
    with batch_statistics(norms["batch"]):
        assert dependence_on_batch(answers(norms["batch"])) > 1e-3


def test_statistics_of_the_batch_leave_the_running_ones_as_they_are(norms: dict[str, Engine]) -> None:
    engine = norms["batch"]
    before = {name: tensor.clone() for name, tensor in engine.network.state_dict().items()}
    first = answers(engine)
    with batch_statistics(engine):
        assert not torch.equal(answers(engine), first)
    assert torch.equal(answers(engine), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.network.state_dict().items())
    assert not any(module.training for module in engine.network.modules() if isinstance(module, nn.BatchNorm2d))
