"""A run with a time limit uses its time whatever the speed does, here on simulated clocks."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpmctl.config import TrainingConfig
from ddpmctl.plan import MAX_RATE_SEGMENTS, Plan
from ddpmctl.training.pacing import Pacer, first_plan, next_reading
from tests.builders import tiny_config

LIMIT = 100.0
"""Seconds."""

Duration = Callable[[int, float], float]
"""Seconds that a step takes, from its number and the seconds before it."""


def recipe(warmup: float = 0.1, decay: float = 0.4) -> TrainingConfig:
    return tiny_config(training={"warmup": warmup, "decay": decay, "lr": 0.5}).training


@dataclass
class Paced:
    """A run on a simulated clock.

    Attributes:
        plan: its last one.
        shares: of the peak rate, at each of its steps.
        ends: seconds by the end of each step.
    """

    plan: Plan
    shares: list[float]
    ends: list[float]

    @property
    def longest(self) -> float:
        return max(later - earlier for earlier, later in itertools.pairwise([0.0, *self.ends]))

    def uses_its_time(self, most: int = 1) -> bool:
        """Between 90 and 105 % of it, give or take one step; or two where the device is not waited for at each."""
        steps = self.longest * (1 if most == 1 else 2)
        return 0.9 * LIMIT - steps <= self.ends[-1] <= 1.05 * LIMIT + steps


def paced(duration: Duration, most: int = 1, config: TrainingConfig | None = None, limit: int | None = None) -> Paced:
    """A run whose steps take so long, and whose clock is read every so many steps at most."""
    config = config or recipe()
    plan = first_plan(config, 10_000, LIMIT, limit)
    pacer = Pacer(config, LIMIT, plan, 0, 0.0)
    seconds, reading = 0.0, 1
    run = Paced(plan, [], [])
    for step in itertools.count(1):
        run.shares.append(plan.lr(step - 1) / plan.peak_lr)
        seconds += duration(step - 1, seconds)
        run.ends.append(seconds)
        if step in (reading, plan.steps):
            plan = pacer.update(step, seconds) or plan
            reading = next_reading(plan, step, 0, most)
        elif pacer.is_overdue(step, seconds):
            reading = step + 1
        if step == plan.steps:
            run.plan = plan
            return run
    raise AssertionError("a run ends")


def changing(pieces: list[tuple[float, float]], base: float) -> Duration:
    """Steps whose length is ``base`` times the factor of the piece that the time is in; the pieces come again."""
    ends: list[float] = list(itertools.accumulate(share * LIMIT for share, _ in pieces))

    def duration(step: int, seconds: float) -> float:
        place = seconds % ends[-1]
        return base * next(factor for end, (_, factor) in zip(ends, pieces, strict=True) if place < end)

    return duration


PIECES = st.lists(
    st.tuples(st.floats(0.003, 1.0), st.floats(-1, 1).map(lambda exponent: 10**exponent)), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=100)
@given(pieces=PIECES, steps=st.integers(2, 1000), most=st.sampled_from([1, 50]))
def test_the_time_is_used_whatever_the_speed_does(pieces: list[tuple[float, float]], steps: int, most: int) -> None:
    run = paced(changing(pieces, LIMIT / steps), most)
    assert run.uses_its_time(most), run.ends[-1]
    assert len(run.plan.segments) <= MAX_RATE_SEGMENTS
    assert all(0 < share <= 1 for share in run.shares)
    if run.longest < 0.01 * LIMIT:
        last = run.plan.segments[-1]
        assert not run.plan.ends_early
        assert run.shares[-1] <= 1.001 / last.decay_steps
        assert run.shares[-1] < 0.15
    # The plan that is kept tells the rate of every step.
    assert run.shares == [run.plan.lr(step) / run.plan.peak_lr for step in range(run.plan.steps)]


@pytest.mark.parametrize("most", [1, 50])
@pytest.mark.parametrize("steps", [30, 200, 2000])
@pytest.mark.parametrize("when", [0.02, 0.3, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_speed_that_changes_once_for_good(most: int, steps: int, when: float, factor: float) -> None:
    base = LIMIT / steps
    run = paced(lambda step, seconds: base if seconds < when * LIMIT else factor * base, most)
    assert run.uses_its_time(most), run.ends[-1]
    assert len(run.plan.segments) < 20


def test_a_busy_moment_at_the_start_is_forgotten() -> None:
    run = paced(lambda step, seconds: 3.0 if step < 5 else 0.05)
    assert len(run.shares) > 1500
    assert max(run.shares) == 1.0
    assert run.shares[-1] < 0.01


def test_a_slow_first_step_counts_as_time_and_not_as_speed() -> None:
    run = paced(lambda step, seconds: 30.0 if step == 0 else 0.1)
    assert 90 <= run.ends[-1] <= 105
    assert len(run.plan.segments) == 2  # the guess, and the plan that one look at the real speed gave
    slope = [later - earlier for earlier, later in itertools.pairwise(run.shares[5:40])]
    assert max(slope) < 0.05, "the warm-up is one"


@pytest.mark.parametrize("most", [1, 50])
@pytest.mark.parametrize("when", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("stall", [5.0, 30.0, 66.0, 600.0])
def test_a_stall_shortens_the_run_and_the_rate_still_decays(most: int, when: float, stall: float) -> None:
    def duration(step: int, seconds: float) -> float:
        return stall if step == round(when * LIMIT / 0.05) else 0.05

    run = paced(duration, most)
    assert run.uses_its_time(most)
    assert run.ends[-1] <= max(1.05 * LIMIT, when * LIMIT + stall + 0.03 * LIMIT)
    assert not run.plan.ends_early
    assert run.shares[-1] < 0.06
    assert len(run.plan.segments) < 8, "one slow step is not a slow machine"


def test_a_steady_speed_needs_one_change_of_plan() -> None:
    run = paced(lambda step, seconds: 0.02)
    assert len(run.plan.segments) == 2
    # By then the rate had hardly begun to rise: it is the trapezoid of a run whose speed had been known.
    steps = len(run.shares)
    assert run.shares[steps // 20] == pytest.approx(0.5, abs=0.02)
    assert run.shares[steps // 3] == 1.0
    assert run.shares[round(0.8 * steps)] == pytest.approx(0.5, abs=0.02)


def test_noise_changes_the_plan_seldom() -> None:
    noise = itertools.cycle([0.01, 0.02, 0.03, 0.012, 0.04, 0.018, 0.05])
    run = paced(lambda step, seconds: next(noise))
    assert 90 <= run.ends[-1] <= 105
    assert len(run.plan.segments) < 15


@pytest.mark.parametrize(("base", "limit", "whole"), [(0.05, 500, True), (0.05, 5000, False)])
def test_a_limit_of_steps_is_never_exceeded_and_the_decay_ends_there(base: float, limit: int, whole: bool) -> None:
    plans: list[Plan] = []

    def slow_at_first(step: int, seconds: float) -> float:
        return 20 * base if seconds < 20 else base

    for duration in (slow_at_first, lambda step, seconds: base):
        run = paced(duration, limit=limit)
        plans.append(run.plan)
        assert (len(run.shares) == limit) == whole
        assert len(run.shares) <= limit
        assert run.shares[-1] < 0.02
    if whole:
        assert len(plans[1].segments) == 1, "where the steps fit into the time, it is as if there were no time limit"


def test_without_decay_the_rate_stays_and_the_time_is_used() -> None:
    run = paced(lambda step, seconds: 0.05 if seconds < 50 else 0.2, config=recipe(0.0, 0.0))
    assert 90 <= run.ends[-1] <= 105
    assert set(run.shares) == {1.0}


def test_a_process_that_begins_in_the_middle_learns_its_own_speed() -> None:
    config = recipe()
    first = first_plan(config, 10_000, LIMIT, None)
    plan = Pacer(config, LIMIT, first, 0, 0.0).plan
    seconds, pacer = 50.0, Pacer(config, LIMIT, plan, 500, 50.0)
    step = 500
    while step < plan.steps:
        step, seconds = step + 1, seconds + 0.5
        plan = pacer.update(step, seconds) or plan
    assert 90 <= seconds <= 105
    assert step == pytest.approx(594, abs=5)


def readings(steps: int, begun: int) -> Iterator[int]:
    plan, step = first_plan(recipe(), 10_000, LIMIT, steps), begun
    while step < plan.steps:
        step = min(next_reading(plan, step, begun, 50), plan.steps)
        yield step


def test_a_device_is_waited_for_often_at_the_start_and_at_the_end_and_seldom_between() -> None:
    found = list(readings(9000, 1000))
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert found[:5] == [1001, 1002, 1003, 1004, 1006]
    assert max(gaps) == 50
    assert gaps[-64:] == [1] * 64
    assert len(found) < 500


def test_a_clock_that_stands_still_is_no_fault() -> None:
    config = recipe()
    pacer = Pacer(config, LIMIT, first_plan(config, 10_000, LIMIT, None), 0, 0.0)
    assert [pacer.update(step, 0.0) for step in range(1, 3)] == [None, None]
    over = Pacer(config, LIMIT, first_plan(config, 10_000, LIMIT, None), 500, 200.0).update(501, 200.0)
    assert over is not None
    assert (over.steps, over.ends_early) == (501, True)
