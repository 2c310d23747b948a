"""How a run is laid out."""

from typing import Any

import pytest

from ddpmctl.config import TrainingConfig
from ddpmctl.plan import RESERVE, Plan, lay_out, steps_that_fit
from tests.builders import tiny_config


def settings(**changes: Any) -> TrainingConfig:
    return tiny_config(training=changes).training


def rates(plan: Plan) -> list[float]:
    return [plan.lr(step) for step in range(plan.steps)]


def test_the_learning_rate_is_a_trapezoid() -> None:
    plan = lay_out(settings(epochs=2, batch_size=10, lr=0.4, warmup=0.2, decay=0.4), images=100)
    expected = [0.1, 0.2, 0.3, *[0.4] * 9, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05]
    assert rates(plan) == pytest.approx(expected)
    assert (plan.steps, plan.steps_per_epoch, plan.epochs) == (20, 10, 2)


@pytest.mark.parametrize(("warmup", "decay"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.6, 0.8)])
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_the_learning_rate_is_never_zero_nor_above_its_peak(warmup: float, decay: float, steps: int) -> None:
    plan = lay_out(settings(lr=0.4, warmup=warmup, decay=decay), images=100, steps=steps)
    assert all(0 < rate <= 0.4 for rate in rates(plan))


def test_without_warm_up_and_decay_the_rate_is_level() -> None:
    plan = lay_out(settings(epochs=2, batch_size=50, lr=0.4, warmup=0.0, decay=0.0), images=100)
    assert rates(plan) == [0.4] * 4


@pytest.mark.parametrize(
    ("images", "batch_size", "expected"),
    [(100, 30, (30, 3)), (100, 100, (100, 1)), (100, 101, (100, 1)), (7, 64, (7, 1)), (1, 1, (1, 1))],
)
def test_a_batch_is_as_large_as_the_set_at_most(images: int, batch_size: int, expected: tuple[int, int]) -> None:
    plan = lay_out(settings(epochs=4, batch_size=batch_size), images)
    assert (plan.batch_size, plan.steps_per_epoch) == expected
    assert plan.steps == 4 * expected[1]


def test_a_number_of_steps_may_cut_the_last_epoch() -> None:
    plan = lay_out(settings(epochs=4, batch_size=10, warmup=0.1, decay=0.5), images=100, steps=24)
    assert (plan.steps, plan.epochs, plan.warmup_steps, plan.decay_steps) == (24, 3, 2, 12)


@pytest.mark.parametrize(
    ("left", "a_step", "steps"), [(100.0, 0.1, int(RESERVE * 1000)), (0.05, 0.1, 1), (-3.0, 0.1, 1)]
)
def test_as_many_steps_fit_as_time_has_room_for(left: float, a_step: float, steps: int) -> None:
    assert steps_that_fit(left, a_step) == steps
