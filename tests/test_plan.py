"""How a run is laid out."""

from dataclasses import replace
from typing import Any

import pytest

from ddpmctl.config import TrainingConfig
from ddpmctl.plan import MAX_RATE_SEGMENTS, RESERVE, Plan, RateSegment, make_plan, steps_within
from tests.builders import tiny_config


def settings(**changes: Any) -> TrainingConfig:
    return tiny_config(training=changes).training


def rates(plan: Plan) -> list[float]:
    return [plan.lr(step) for step in range(plan.steps)]


def test_the_learning_rate_is_a_trapezoid() -> None:
    plan = make_plan(settings(epochs=2, batch_size=10, lr=0.4, warmup=0.2, decay=0.4), images=100)
    expected = [0.1, 0.2, 0.3, *[0.4] * 9, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05]
    assert rates(plan) == pytest.approx(expected)
    assert (plan.steps, plan.steps_per_epoch, plan.epochs) == (20, 10, 2)


@pytest.mark.parametrize(("warmup", "decay"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.6, 0.8)])
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_the_learning_rate_is_never_zero_nor_above_its_peak(warmup: float, decay: float, steps: int) -> None:
    plan = make_plan(settings(lr=0.4, warmup=warmup, decay=decay), images=100, steps=steps)
    assert all(0 < rate <= 0.4 for rate in rates(plan))


def test_without_warm_up_and_decay_the_rate_is_level() -> None:
    plan = make_plan(settings(epochs=2, batch_size=50, lr=0.4, warmup=0.0, decay=0.0), images=100)
    assert rates(plan) == [0.4] * 4


@pytest.mark.parametrize(
    ("images", "batch_size", "expected"),
    [(100, 30, (30, 3)), (100, 100, (100, 1)), (100, 101, (100, 1)), (7, 64, (7, 1)), (1, 1, (1, 1))],
)
def test_a_batch_is_as_large_as_the_set_at_most(images: int, batch_size: int, expected: tuple[int, int]) -> None:
    plan = make_plan(settings(epochs=4, batch_size=batch_size), images)
    assert (plan.batch_size, plan.steps_per_epoch) == expected
    assert plan.steps == 4 * expected[1]


def test_a_number_of_steps_may_cut_the_last_epoch() -> None:
    plan = make_plan(settings(epochs=4, batch_size=10, warmup=0.1, decay=0.5), images=100, steps=24)
    assert (plan.steps, plan.epochs) == (24, 3)
    assert plan.segments == (RateSegment(start=0, end=24, level=0.0, warmup_steps=2, decay_steps=12),)


@pytest.mark.parametrize(
    ("left", "a_step", "steps"), [(100.0, 0.1, int(RESERVE * 1000)), (0.05, 0.1, 1), (-3.0, 0.1, 1)]
)
def test_as_many_steps_fit_as_time_has_room_for(left: float, a_step: float, steps: int) -> None:
    assert steps_within(left, a_step) == steps


def shares(segment: RateSegment) -> list[float]:
    return [segment.share(step) for step in range(segment.start, segment.end)]


def test_a_segment_goes_on_rising_from_where_the_rate_is() -> None:
    segment = RateSegment(start=10, end=20, level=0.2, warmup_steps=4, decay_steps=4)
    assert shares(segment) == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert [segment.rises(step) for step in range(10, 15)] == [True, True, True, True, False]


def test_a_segment_without_warm_up_stays_where_the_rate_is_and_falls_to_zero() -> None:
    assert shares(RateSegment(start=10, end=16, level=0.8, warmup_steps=0, decay_steps=4)) == pytest.approx(
        [0.8, 0.8, 0.8, 0.6, 0.4, 0.2]
    )
    assert shares(RateSegment(start=10, end=12, level=0.6, warmup_steps=0, decay_steps=3)) == pytest.approx([0.4, 0.2])
    assert shares(RateSegment(start=10, end=12, level=0.6, warmup_steps=0, decay_steps=0)) == [0.6, 0.6]


def test_a_new_segment_changes_no_earlier_rate_and_gives_the_plan_its_length() -> None:
    plan = make_plan(settings(lr=0.4, warmup=0.0, decay=0.5), images=100, steps=100)
    longer = plan.followed_by(RateSegment(start=60, end=140, level=0.8, warmup_steps=0, decay_steps=40))
    assert (longer.steps, longer.ends_early) == (140, False)
    assert rates(longer)[:60] == rates(plan)[:60]
    assert rates(longer)[60:102] == pytest.approx([0.4 * 0.8] * 41 + [0.4 * 0.8 * 39 / 40])
    # What was planned beyond the new segment's first step is gone: a run that was rolled back is planned anew.
    again = longer.followed_by(RateSegment(start=40, end=50, level=1.0, warmup_steps=0, decay_steps=5))
    assert [segment.start for segment in again.segments] == [0, 40]


def test_a_plan_that_is_cut_keeps_its_rates() -> None:
    plan = make_plan(settings(lr=0.4, warmup=0.1, decay=0.5), images=100, steps=100)
    cut = plan.followed_by(RateSegment(start=60, end=140, level=0.8, warmup_steps=0, decay_steps=40)).truncated_at(50)
    assert (cut.steps, cut.ends_early, rates(cut)) == (50, True, rates(plan)[:50])


def test_of_very_many_segments_the_last_are_kept() -> None:
    plan = make_plan(settings(), images=100, steps=1000)
    for start in range(1, 900):
        plan = plan.followed_by(RateSegment(start=start, end=1000, level=1.0, warmup_steps=0, decay_steps=5))
    assert len(plan.segments) == MAX_RATE_SEGMENTS
    assert plan.segments[-1].start == 899


@pytest.mark.parametrize(
    "changes",
    [
        {"segments": ()},
        {"segments": (RateSegment(start=4, end=9, level=1.0, warmup_steps=0, decay_steps=0),) * 2},
        {"steps": 10},
        {"limit": 8},
        {"steps": 0},
        {"batch_size": 0},
        {"peak_lr": 0.0},
    ],
    ids=str,
)
def test_a_plan_whose_parts_do_not_fit_together_is_refused(changes: dict[str, Any]) -> None:
    whole = make_plan(settings(), images=100, steps=9)
    with pytest.raises(ValueError, match="the plan is inconsistent"):
        replace(whole, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"start": 9}, {"level": 1.1}, {"level": float("nan")}, {"warmup_steps": -1}, {"decay_steps": -1}],
    ids=str,
)
def test_a_segment_whose_parts_do_not_fit_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the plan is inconsistent"):
        RateSegment(**{"start": 0, "end": 9, "level": 1.0, "warmup_steps": 0, "decay_steps": 0} | changes)
