"""Students whose chain begins with the Gaussian denoiser alone, against the formulas."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ddpmctl.config import Config
from ddpmctl.core.gaussian import GaussianResidual
from ddpmctl.core.noise import normal
from ddpmctl.registry import Registry
from ddpmctl.report.build import build_report
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.variation import Variation
from tests.builders import register
from tests.exports.support import halves, student_config

ABOVE, BELOW = [999, 899, 799], [699, 524, 349, 174]
"""Three steps of the closed form down to 0.7 T, then four of the network."""


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    config = student_config(closed_form=True)
    registry = Registry(tmp_path)
    register(registry, "student", weights=halves(config), config=config)
    return Engine(registry.open("student"), "cpu", "fp32")


def guided(engine: Engine, x: Tensor, t: int, labels: dict[int, float], scale: float) -> Tensor:
    """The closed form's clean image, of two evaluations of the denoiser."""
    assert isinstance(engine.network, GaussianResidual)
    times = torch.full((len(x),), t)
    alpha, sigma = (float(level[t]) for level in (engine.diffusion.schedule.alpha, engine.diffusion.schedule.sigma))

    def velocity(label: int) -> Tensor:
        return engine.network.gaussian(x, times, torch.full((len(x),), label))  # type: ignore[no-any-return]

    cond = sum((weight * velocity(label) for label, weight in labels.items()), torch.zeros_like(x))
    uncond = velocity(10)
    return (alpha * x - sigma * (uncond + scale * (cond - uncond))).clamp(-1, 1)


def chain(engine: Engine, x: Tensor, labels: dict[int, float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) above, DDIM (Song et al. 2021, eq. 12) below."""
    alpha, sigma = (level.tolist() for level in (engine.diffusion.schedule.alpha, engine.diffusion.schedule.sigma))
    before: tuple[float, Tensor] | None = None
    for t, following in pairwise([*ABOVE, BELOW[0]]):
        # Guided for t/T up to 0.9.
        x0 = guided(engine, x, t, labels, 1.5 if t <= 900 else 1.0)
        h = math.log(alpha[following] / sigma[following]) - math.log(alpha[t] / sigma[t])
        change = x0 if before is None else x0 + h / (2 * before[0]) * (x0 - before[1])
        x = sigma[following] / sigma[t] * x + alpha[following] * (1 - math.exp(-h)) * change
        before = (h, x0)
    for t, following in pairwise([*BELOW, -1]):
        x0 = sum((w * engine.predict_x0(x, t, [label] * len(x)) for label, w in labels.items()), torch.zeros_like(x))
        x0 = x0.clamp(-1, 1)
        if following < 0:
            return x0
        x = alpha[following] * x0 + sigma[following] / sigma[t] * (x - alpha[t] * x0)
    raise AssertionError


def test_the_chain_is_that_of_the_formulas(engine: Engine) -> None:
    steps = list(engine.steps(engine.request([3, 3, 3], 7)))
    assert [step.t for step in steps] == [*ABOVE, *BELOW]
    assert [step.index for step in steps] == list(range(7))
    expected = chain(engine, normal([7, 8, 9], 0, (1, 32, 32)), {3: 1.0})
    assert float(expected.std()) > 0.1
    assert_close(steps[-1].x0, expected, atol=1e-4, rtol=0)


def test_classes_are_mixed_from_the_first_step_on(engine: Engine) -> None:
    request = engine.request([3], 7, variation=Variation(mix=((5, 0.4),)))
    *_, last = engine.steps(request)
    assert_close(last.x0, chain(engine, normal([7], 0, (1, 32, 32)), {3: 0.6, 5: 0.4}), atol=1e-4, rtol=0)


def test_the_network_is_evaluated_below_alone(engine: Engine) -> None:
    assert isinstance(engine.network, GaussianResidual)
    seen: list[int] = []
    network: nn.Module = engine.network.network
    network.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[1][0])))
    request = engine.request([3], 7)
    engine.run(request)
    assert seen == BELOW
    assert (engine.nfe(request.sampling), engine.step_count(request)) == (4, 7)


def test_a_chain_of_all_its_timesteps_is_possible_and_more_are_not(engine: Engine) -> None:
    from ddpmctl.errors import UsageError

    assert engine.request([3], sampler="ddpm").sampling.steps == 700
    with pytest.raises(UsageError, match="701 steps exceed the 700 timesteps of this model"):
        engine.request([3], steps=701)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"end": 1.0}, "end must be between 0 and 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"guidance": -1.0}, "guidance must be in 0..100"),
        ({"guidance_interval": [0.9, 0.1]}, "guidance_interval must be two numbers in 0..1"),
        ({"steps": 301}, "the closed form has at most 300 timesteps"),
        ({"end": 0.04}, "steps times substeps must be at most 40"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any], said: str) -> None:
    plain = student_config(closed_form=True).to_dict()
    plain["distillation"]["closed_form"] |= values
    with pytest.raises(ValueError, match=said):
        Config.from_dict(plain)


def test_a_network_without_a_gaussian_denoiser_has_no_closed_form() -> None:
    plain = student_config(closed_form=True).to_dict()
    plain["model"]["gaussian_rank"] = 0
    with pytest.raises(ValueError, match="the closed form needs a Gaussian denoiser"):
        Config.from_dict(plain)


def test_a_report_shows_the_steps_that_the_student_itself_takes(engine: Engine) -> None:
    page = build_report([engine.checkpoint], device="cpu").html
    captions = [f"step {k} of 7, from t = {t}" for k, t in enumerate([*ABOVE, *BELOW], 1)]
    assert all(caption in page for caption in captions)
    assert "3 steps of the Gaussian denoiser alone, to t/T = 0.7" in page
