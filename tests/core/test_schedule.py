"""Noise schedules against `diffusers` and against their definitions."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from ddpmctl.core.schedule import LINEAR_MIN_TIMESTEPS, SCHEDULES, Schedule, cosine, linear

from . import oracle

LENGTHS = (50, 100, 400, 1000, 4000)
EVERY = pytest.mark.parametrize("name", sorted(SCHEDULES))


@EVERY
@pytest.mark.parametrize("timesteps", LENGTHS)
def test_agrees_with_diffusers(name: str, timesteps: int) -> None:
    theirs = oracle.scheduler("DDPMScheduler", name, timesteps)
    ours = SCHEDULES[name](timesteps)
    assert_close(ours.betas.float(), theirs.betas, atol=1e-6, rtol=0)
    assert_close(ours.alpha_bar.float(), theirs.alphas_cumprod, atol=1e-6, rtol=0)


@EVERY
@pytest.mark.parametrize("timesteps", LENGTHS)
def test_ends_in_noise(name: str, timesteps: int) -> None:
    assert 0 < SCHEDULES[name](timesteps).alpha_bar[-1] < 1e-3


@pytest.mark.parametrize("timesteps", [2, 3, 10, 49])
def test_a_very_short_cosine_ends_in_noise_too(timesteps: int) -> None:
    assert 0 < cosine(timesteps).alpha_bar[-1] < 1e-3


@EVERY
def test_begins_almost_clean(name: str) -> None:
    assert SCHEDULES[name](1000).alpha_bar[0] > 0.999


@EVERY
@pytest.mark.parametrize("timesteps", LENGTHS)
def test_loses_signal_at_every_step(name: str, timesteps: int) -> None:
    schedule = SCHEDULES[name](timesteps)
    assert len(schedule) == timesteps
    assert schedule.alpha_bar.dtype == torch.float64
    assert (schedule.alpha_bar.diff() < 0).all()
    assert ((schedule.betas > 0) & (schedule.betas < 1)).all()


def test_linear_betas_of_the_paper() -> None:
    betas = linear().betas
    assert len(betas) == 1000
    assert_close(betas[[0, -1]], torch.tensor([1e-4, 0.02], dtype=torch.float64))
    assert_close(betas.diff(), torch.full((999,), (0.02 - 1e-4) / 999, dtype=torch.float64), atol=1e-12, rtol=0)


def test_linear_bounds_scale_with_the_length() -> None:
    assert_close(linear(250).betas[[0, -1]], torch.tensor([4e-4, 0.08], dtype=torch.float64))


@pytest.mark.parametrize("timesteps", [1, 20, LINEAR_MIN_TIMESTEPS - 1])
def test_a_linear_schedule_under_50_steps_is_refused(timesteps: int) -> None:
    with pytest.raises(ValueError, match=f"at least 50 timesteps, not {timesteps}"):
        linear(timesteps)


def test_everything_follows_from_alpha_bar() -> None:
    schedule = Schedule(torch.tensor([0.64, 0.36], dtype=torch.float64))
    expected = {"alpha": [0.8, 0.6], "sigma": [0.6, 0.8], "betas": [0.36, 0.4375], "snr": [0.64 / 0.36, 0.5625]}
    for name, values in expected.items():
        assert_close(getattr(schedule, name), torch.tensor(values, dtype=torch.float64))
    assert [schedule.signal(t) for t in (-1, 0, 1)] == [1.0, 0.64, 0.36]


def test_a_schedule_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        linear().alpha_bar = torch.ones(3)  # type: ignore[misc]
