"""Samplers against `diffusers`, from the same timesteps, noise and denoiser, in float64."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from ddpmctl.core.diffusion import PARAMETERIZATIONS, Diffusion
from ddpmctl.core.samplers import SAMPLERS, Step, trailing_timesteps
from ddpmctl.core.schedule import SCHEDULES, Schedule, cosine, linear

from . import oracle

SHAPE = (3, 1, 4, 4)
SOLVER = {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}


SDE_SOLVER = {**SOLVER, "algorithm_type": "sde-dpmsolver++"}


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(schedule: Schedule, target: str, denoiser: oracle.BestDenoiser) -> Callable[[Tensor, int], Tensor]:
    """What the best network of this target answers."""

    def answer(x: Tensor, t: int) -> Tensor:
        alpha, sigma = schedule.alpha[t], schedule.sigma[t]
        x0 = denoiser(x, float(alpha), float(sigma))
        return PARAMETERIZATIONS[target].to_model_output(x0, (x - alpha * x0) / sigma, alpha, sigma)

    return answer


def ours(
    sampler: str, schedule: Schedule, target: str, steps: int, answer: Callable[[Tensor, int], Tensor]
) -> list[Step]:
    diffusion = Diffusion(schedule, target, clip_x0=False)
    generator = torch.Generator().manual_seed(1)

    def predict_x0(x: Tensor, t: int) -> Tensor:
        return diffusion.predict_x0(x, torch.full((len(x),), t), answer(x, t))

    def noise() -> Tensor:
        return torch.randn(SHAPE, generator=generator, dtype=torch.float64)

    timesteps = trailing_timesteps(len(schedule), steps)
    return list(SAMPLERS[sampler](predict_x0, schedule, start(), timesteps, noise))


# diffusers turns its tensors into arrays in a way that NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("denoiser", [oracle.gaussian, oracle.two_points], ids=lambda f: f.__name__)
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize(
    ("sampler", "target", "steps", "kind", "settings"),
    [
        ("ddpm", "epsilon", 1000, "DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}),
        ("ddpm", "v", 1000, "DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}),
        ("ddpm", "epsilon", 250, "DDPMScheduler", {"variance_type": "fixed_small", "clip_sample": False}),
        ("ddpm", "v", 30, "DDPMScheduler", {"variance_type": "fixed_small", "clip_sample": False}),
        ("ddim", "epsilon", 50, "DDIMScheduler", {"clip_sample": False}),
        ("ddim", "v", 10, "DDIMScheduler", {"clip_sample": False}),
        ("ddim", "v", 1000, "DDIMScheduler", {"clip_sample": False}),
        ("ddim", "v", 1, "DDIMScheduler", {"clip_sample": False}),
        ("dpmpp", "epsilon", 20, "DPMSolverMultistepScheduler", SOLVER),
        ("dpmpp", "v", 20, "DPMSolverMultistepScheduler", SOLVER),
        ("dpmpp", "v", 7, "DPMSolverMultistepScheduler", SOLVER),
        ("dpmpp", "v", 2, "DPMSolverMultistepScheduler", SOLVER),
        ("dpmpp", "v", 1, "DPMSolverMultistepScheduler", SOLVER),
        ("dpmpp-sde", "v", 20, "DPMSolverMultistepScheduler", SDE_SOLVER),
        ("dpmpp-sde", "epsilon", 7, "DPMSolverMultistepScheduler", SDE_SOLVER),
        ("dpmpp-sde", "v", 1, "DPMSolverMultistepScheduler", SDE_SOLVER),
    ],
)
def test_every_step_agrees_with_diffusers(
    sampler: str, target: str, steps: int, kind: str, settings: dict[str, object], schedule: str,
    denoiser: oracle.BestDenoiser,
) -> None:  # fmt: skip
    made = SCHEDULES[schedule](1000)
    answer = network(made, target, denoiser)
    prediction = oracle.PREDICTION_TYPES[target]
    scheduler = oracle.in_float64(oracle.scheduler(kind, schedule, 1000, prediction_type=prediction, **settings), made)
    theirs = list(oracle.run(scheduler, made, steps, start(), answer))
    mine = ours(sampler, made, target, steps, answer)
    assert [step.t for step in mine] == [move.t for move in theirs]
    for step, move in zip(mine, theirs, strict=True):
        assert_close(step.x, move.x, atol=1e-4, rtol=0)
        if move.x0 is not None:
            assert_close(step.x0, move.x0, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 5, 100])
def test_steps_are_numbered_and_end_in_the_image(sampler: str, steps: int) -> None:
    schedule = cosine(100)
    taken = ours(sampler, schedule, "v", steps, network(schedule, "v", oracle.gaussian))
    assert [step.index for step in taken] == list(range(steps))
    assert [step.t for step in taken] == trailing_timesteps(100, steps)
    assert_close(taken[-1].x, taken[-1].x0, atol=1e-12, rtol=0)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_sampler_works_only_as_far_as_it_is_read(sampler: str) -> None:
    asked: list[int] = []

    def predict_x0(x: Tensor, t: int) -> Tensor:
        asked.append(t)
        return x

    chain = SAMPLERS[sampler](predict_x0, linear(100), start(), [99, 49], start)
    assert asked == []
    next(chain)
    assert asked == [99]
    next(chain)
    assert asked == [99, 49]


@pytest.mark.parametrize(
    ("sampler", "steps", "draws"),
    [("ddpm", 100, 99), ("ddpm", 4, 3), ("ddim", 4, 0), ("dpmpp", 4, 0), ("dpmpp-sde", 4, 3)],
)
def test_noise_is_drawn_where_it_is_added(sampler: str, steps: int, draws: int) -> None:
    drawn = 0

    def noise() -> Tensor:
        nonlocal drawn
        drawn += 1
        return start()

    list(SAMPLERS[sampler](lambda x, t: x, linear(100), start(), trailing_timesteps(100, steps), noise))
    assert drawn == draws


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 1000), ("ddim", 200), ("dpmpp", 50), ("dpmpp-sde", 50)])
def test_samples_have_the_mean_and_deviation_of_the_data(sampler: str, steps: int) -> None:
    schedule, generator = cosine(1000), torch.Generator().manual_seed(0)

    def predict_x0(x: Tensor, t: int) -> Tensor:
        return oracle.gaussian(x, float(schedule.alpha[t]), float(schedule.sigma[t]))

    def noise() -> Tensor:
        return torch.randn(100, 1, 10, 10, generator=generator, dtype=torch.float64)

    *_, last = SAMPLERS[sampler](predict_x0, schedule, noise(), trailing_timesteps(1000, steps), noise)
    assert last.x0.mean().item() == pytest.approx(0.3, abs=0.03)
    assert last.x0.std().item() == pytest.approx(0.5, abs=0.03)


@given(data=st.data(), timesteps=st.integers(1, 3000))
def test_trailing_timesteps_fall_evenly_from_the_end(data: st.DataObject, timesteps: int) -> None:
    steps = data.draw(st.integers(1, timesteps))
    spaced = trailing_timesteps(timesteps, steps)
    assert len(spaced) == steps
    assert spaced[0] == timesteps - 1
    assert spaced[-1] >= 0
    # Rounding moves each by half a step at most.
    assert all(a - b > 0 and abs(a - b - timesteps / steps) <= 1 for a, b in pairwise(spaced))


def test_all_timesteps_are_the_full_chain() -> None:
    assert trailing_timesteps(1000, 1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps must be in 1\.\.1000, not {steps}"):
        trailing_timesteps(1000, steps)
