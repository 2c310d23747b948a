"""The forward process, the parameterizations and the sampling of timesteps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from ddpmctl.core.diffusion import PARAMETERIZATIONS, Diffusion, Focus, stratified_timesteps
from ddpmctl.core.schedule import SCHEDULES, cosine, linear

from . import oracle

SHAPE = (6, 2, 4, 4)
ANGLES = st.floats(0.01, 1.56)


def images(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def t() -> Tensor:
    return torch.tensor([0, 1, 250, 500, 998, 999])


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_noising_agrees_with_diffusers(schedule: str, t: Tensor) -> None:
    made = SCHEDULES[schedule](1000)
    theirs = oracle.in_float64(oracle.scheduler("DDPMScheduler", schedule, 1000), made)
    x0, epsilon = images(0), images(1)
    assert_close(Diffusion(made, "v").add_noise(x0, t, epsilon), theirs.add_noise(x0, epsilon, t))


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_the_v_target_agrees_with_diffusers(schedule: str, t: Tensor) -> None:
    made = SCHEDULES[schedule](1000)
    theirs = oracle.in_float64(oracle.scheduler("DDPMScheduler", schedule, 1000), made)
    x0, epsilon = images(0), images(1)
    ours = PARAMETERIZATIONS["v"].to_model_output(x0, epsilon, *Diffusion(made, "v").alpha_sigma(t, x0))
    assert_close(ours, theirs.get_velocity(x0, epsilon, t))


def test_the_epsilon_target_is_the_noise() -> None:
    alpha, sigma = torch.tensor(0.6), torch.tensor(0.8)
    assert PARAMETERIZATIONS["epsilon"].to_model_output(images(0), images(1), alpha, sigma).equal(images(1))


@pytest.mark.parametrize("target", sorted(PARAMETERIZATIONS))
@given(angle=ANGLES, x0=st.floats(-1, 1), epsilon=st.floats(-5, 5))
def test_decoding_inverts_encoding(target: str, angle: float, x0: float, epsilon: float) -> None:
    values = torch.tensor([angle, x0, epsilon], dtype=torch.float64)
    alpha, sigma = values[0].cos(), values[0].sin()
    answer = PARAMETERIZATIONS[target].to_model_output(values[1], values[2], alpha, sigma)
    x = alpha * values[1] + sigma * values[2]
    assert_close(PARAMETERIZATIONS[target].from_model_output(x, answer, alpha, sigma), values[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("target", sorted(PARAMETERIZATIONS))
def test_the_perfect_network_has_no_loss_and_finds_the_image(target: str, t: Tensor) -> None:
    diffusion = Diffusion(linear(), target, clip_x0=False)
    x0, epsilon = images(0).clamp(-1, 1), images(1)

    def perfect(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return PARAMETERIZATIONS[target].to_model_output(x0, epsilon, *diffusion.alpha_sigma(t, x))

    x = diffusion.add_noise(x0, t, epsilon)
    assert_close(diffusion.predict_x0(x, t, perfect(x, t, t)), x0)
    # The network's answer is judged in float32.
    losses = diffusion.loss(perfect, x0, t, epsilon, t)
    assert losses.shape == (len(x0),)
    assert losses.max() < 1e-12


def test_the_loss_is_the_mean_squared_error_of_each_image(t: Tensor) -> None:
    x0, epsilon, label = images(0, torch.float32), images(1, torch.float32), torch.arange(6)
    diffusion = Diffusion(linear(), "epsilon")
    heard: list[Tensor] = []

    def silent(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        heard.extend([x, t, label])
        return torch.zeros_like(x)

    losses = diffusion.loss(silent, x0, t, epsilon, label)
    assert_close(losses, epsilon.pow(2).mean(dim=(1, 2, 3)))
    assert_close(heard[0], diffusion.add_noise(x0, t, epsilon))
    assert heard[1].equal(t)
    assert heard[2].equal(label)


@pytest.mark.parametrize(("clip", "farthest"), [(True, 1.0), (False, 3.0)])
def test_clipping_is_a_setting(clip: bool, farthest: float) -> None:
    diffusion = Diffusion(linear(), "v", clip_x0=clip)
    t = torch.tensor([999])
    # Where only noise is left, the answer v means the image -v.
    x0 = diffusion.predict_x0(torch.zeros(1, 1, 1, 1), t, torch.full((1, 1, 1, 1), -3.0))
    assert x0.item() == pytest.approx(farthest, rel=1e-4)


def test_predictions_keep_the_type_of_the_image() -> None:
    x = images(0, torch.float32)
    answer = images(1, torch.float32).bfloat16()
    assert Diffusion(linear(), "v").predict_x0(x, torch.zeros(6, dtype=torch.int64), answer).dtype == torch.float32


@given(count=st.integers(1, 300), timesteps=st.integers(2, 2000), seed=st.integers(0, 2**32))
def test_stratified_timesteps_take_one_from_each_slice(count: int, timesteps: int, seed: int) -> None:
    drawn = stratified_timesteps(count, timesteps, torch.Generator().manual_seed(seed))
    assert drawn.shape == (count,)
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 0
    assert drawn.max() < timesteps
    # A slice is timesteps / count wide; whole numbers move its edges by less than one.
    left = torch.arange(count, dtype=torch.float64) * timesteps / count
    within = drawn.sort().values - left
    assert (within > -1).all()
    assert (within < timesteps / count).all()


def test_each_stratified_timestep_alone_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([stratified_timesteps(8, 20, generator) for _ in range(4000)])
    for position in range(8):
        counts = torch.bincount(draws[:, position], minlength=20).double()
        # Chi-squared with 19 degrees of freedom exceeds 50 once in 7,000 times.
        assert ((counts - 200) ** 2 / 200).sum() < 50


def test_half_of_the_timesteps_are_drawn_from_the_focus_and_half_from_all() -> None:
    generator = torch.Generator().manual_seed(0)
    focus = Focus((0.2, 0.6), 0.5)
    draws = torch.cat([stratified_timesteps(100, 1000, generator, focus) for _ in range(200)])
    shares = torch.histc(draws.float(), 10, 0, 1000) / len(draws)
    expected = torch.tensor([0.05, 0.05, *[0.05 + 0.5 / 4] * 4, 0.05, 0.05, 0.05, 0.05])
    assert_close(shares, expected, atol=0.004, rtol=0)
    assert (int(draws.min()), int(draws.max())) == (0, 999)
    within = stratified_timesteps(1000, 1000, generator, Focus((0.2, 0.6), 1.0))
    assert within.sort().values[[0, -1]].tolist() == pytest.approx([200, 599], abs=1)


def test_a_focus_of_no_share_is_no_focus() -> None:
    u = torch.rand(1000)
    assert_close(Focus((0.3, 0.4), 0.0).quantile(u), u)


def test_stratified_timesteps_are_in_no_order() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([stratified_timesteps(64, 1000, generator) for _ in range(50)]).double()
    position = torch.arange(64).double().expand_as(draws)
    correlation = torch.corrcoef(torch.stack([position.flatten(), draws.flatten()]))[0, 1]
    assert correlation.abs() < 0.06


@pytest.mark.parametrize("target", PARAMETERIZATIONS)
@pytest.mark.parametrize("limits", [(-1.0, 1.0), (0.0, 1.0)])
def test_the_mse_of_the_best_constant_is_what_one_measures(target: str, limits: tuple[float, float]) -> None:
    """By drawing noise and taking the mean of each timestep's target, which no other constant beats."""
    generator = torch.Generator().manual_seed(0)
    low, high = limits
    x0 = low + (high - low) * torch.rand(200, 1, 16, 16, generator=generator, dtype=torch.float64).round()
    diffusion = Diffusion(cosine(20), target, pixel_range=limits)
    found = []
    for alpha, sigma in zip(diffusion.schedule.alpha, diffusion.schedule.sigma, strict=True):
        epsilon = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        found.append(PARAMETERIZATIONS[target].to_model_output(x0, epsilon, alpha, sigma).var(correction=0))
    assert diffusion.constant_mse(x0) == pytest.approx(float(torch.stack(found).mean()), rel=0.01)
