"""Time-limited runs: adapts the plan to the measured speed."""

from collections import deque

from ddpmctl.config import STEPS, TrainingConfig
from ddpmctl.plan import MAX_RATE_SEGMENTS, Plan, RateSegment, make_plan

AIM = 0.97
"""Share of the time limit that the steps are planned to take; the rest is for previews."""

SHORTEST = 0.93
"""A run that became faster is extended unless it has used this share of the time limit."""

LATEST, GRACE = 1.04, 0.02
"""Shares of the time limit: a late decay ends by LATEST, or GRACE after a stall that exceeded it."""

OVERTIME = 1.05
"""Share of the time limit after which a step is planned only if a stall took longer than the step may need."""

SPREAD, SLOWER = 120, 10
"""A step that takes more than SPREAD times the usual duration is a stall; the next step takes at most SLOWER times the
usual."""

GUESS = 0.01
"""Seconds per step until some are measured."""

TOLERANCE, DOUBLED = 0.08, 30
"""Share of the time left by which a forecast may be off before the plan changes, and segments that double it."""

SPACING = 12
"""A plan is kept for at least this part of the time, or of the steps, that were left when it was made."""

SPARE = 10
"""Rate segments reserved for the end of a run."""


class Speed:
    """Seconds per step over the recent past, robust against a single stall."""

    STEPS = 16
    """Minimum number of steps in the recent past, if there is time for them."""

    FEWEST = 3
    """Minimum number of spans."""

    PARTS = 16
    """Steps that together take less than this part of it are one span."""

    def __init__(self) -> None:
        self._spans: deque[tuple[int, float]] = deque()

    def add(self, steps: int, seconds: float, left: float) -> None:
        """Record the duration of the last steps; near the end (``left`` seconds), less of the past counts."""
        spans, left = self._spans, max(left, 0.0)
        window = min(max(3.0, left / 50), left / 16)
        if spans and spans[-1][1] < window / self.PARTS:
            steps, seconds = steps + spans[-1][0], seconds + spans[-1][1]
            spans.pop()
        spans.append((steps, seconds))
        total, taken = sum(span[0] for span in spans), sum(span[1] for span in spans)
        while len(spans) > self.FEWEST:
            total, taken = total - spans[0][0], taken - spans[0][1]
            if not ((taken >= window and total >= self.STEPS) or taken >= left / 6):
                break
            spans.popleft()

    @property
    def seconds_per_step(self) -> float | None:
        """The mean without the slowest span; None before two were measured."""
        if len(self._spans) < 2:
            return None
        slowest = max(self._spans, key=lambda span: span[1] / span[0])
        steps = sum(span[0] for span in self._spans) - slowest[0]
        return max((sum(span[1] for span in self._spans) - slowest[1]) / steps, 1e-9)


class Pacer:
    """Decides when the plan of a run with a time limit changes, and to what; it reads no clock itself.

    Args:
        max_time: the time limit in seconds of training.
        step: steps done before this process started, in ``seconds``.
    """

    def __init__(self, config: TrainingConfig, max_time: float, plan: Plan, step: int, seconds: float) -> None:
        self.config = config
        self.max_time = max_time
        self.plan = plan
        self._speed = Speed()
        self._begun = self._last = self._planned = (step, seconds)
        self._is_new = True
        self._longest, self._now = 0.0, seconds
        self._deadline: float | None = None

    def update(self, step: int, seconds: float) -> Plan | None:
        """The plan from here on, if it has to change; the device has finished all ``step`` steps."""
        left = self._left(seconds)
        count, taken = step - self._last[0], seconds - self._last[1]
        # The first step of a process includes initialization and is slower: it counts as time only.
        is_first, self._last = self._last == self._begun, (step, seconds)
        self._take_time(seconds)
        if not is_first:
            self._speed.add(count, taken, left)
        per_step = self._speed.seconds_per_step
        if left <= 0:
            return self._end(step, seconds, per_step or max(taken / count, 1e-9))
        if per_step is None:
            per_step = max(taken / count, 1e-9)
            if step < self.plan.steps and (is_first or 3 * per_step < left):
                return None  # too few measurements so far
        steps = min(step + max(1, round(left / per_step)), self.plan.limit or STEPS.high, STEPS.high)
        if steps <= step or not self._is_off(step, seconds, steps, per_step):
            return None
        return self._change(step, seconds, steps, per_step)

    def is_overdue(self, step: int, seconds: float) -> bool:
        """Whether enough time has passed since the last reading for the next one to be due.

        For each step that is not followed by a reading; the device may not have finished it.
        """
        self._take_time(seconds)
        usual = self._speed.seconds_per_step
        expected = None if usual is None else usual * (step - self._last[0])
        slow = expected is not None and seconds - self._last[1] > 3 * expected + 0.002 * self.max_time
        return slow or self._left(seconds) <= 0

    def _take_time(self, seconds: float) -> None:
        self._longest, self._now = max(self._longest, seconds - self._now), seconds

    def _left(self, seconds: float) -> float:
        return AIM * self.max_time - seconds

    def _is_off(self, step: int, seconds: float, steps: int, per_step: float) -> bool:
        """Whether the plan misses the time by enough, and was kept for long enough, to be changed."""
        left, segments = self._left(seconds), len(self.plan.segments)
        if step == self.plan.steps:
            return seconds < SHORTEST * self.max_time and left > per_step / 2 and segments < MAX_RATE_SEGMENTS
        off = abs(steps - self.plan.steps) * per_step
        tolerance = TOLERANCE * 2 ** (segments / DOUBLED)
        if off <= max(tolerance * left, 0.004 * self.max_time, 0.6 * per_step):
            return False
        if segments >= MAX_RATE_SEGMENTS - SPARE:
            return False
        at_step, at_seconds = self._planned
        return (
            self._is_new
            or seconds - at_seconds >= self._left(at_seconds) / SPACING
            or step - at_step >= (self.plan.steps - at_step) / SPACING
            or seconds - self._begun[1] >= 1.5 * (at_seconds - self._begun[1])
        )

    def _end(self, step: int, seconds: float, per_step: float) -> Plan | None:
        """The plan when the time is over: a few steps for the rate to fall to zero, or none if they may take long."""
        if self._deadline is None:
            self._deadline = max(LATEST * self.max_time, seconds + GRACE * self.max_time)
        more = int((self._deadline - seconds) / per_step)
        if seconds <= OVERTIME * self.max_time:
            more = max(more, 1)
        else:
            worst = per_step * (SLOWER if self._longest > SPREAD * per_step else SPREAD)
            if seconds + worst > OVERTIME * self.max_time + self._longest:
                more = 0
        if step + more >= self.plan.steps:
            return None
        if more < 1 or len(self.plan.segments) >= MAX_RATE_SEGMENTS:
            self.plan = self.plan.truncated_at(step)
            return self.plan
        return self._change(step, seconds, step + more, per_step)

    def _change(self, step: int, seconds: float, steps: int, per_step: float) -> Plan:
        """The plan with one more segment, whose rate begins where it is now."""
        config, more, before = self.config, steps - step, self.plan.segment(step - 1)
        level, whole = before.share(step - 1), seconds / per_step + more
        decay_steps = max(1, round(config.decay * whole)) if config.decay else 0
        if before.rises(step) and (not decay_steps or level < more / decay_steps):
            warmup_steps = max(1, round((1 - level) * config.warmup * whole))
        else:
            # If the decay's share of the time has begun, the rate falls from the next step on.
            warmup_steps, decay_steps = 0, min(decay_steps, more + 1)
        self.plan = self.plan.followed_by(
            RateSegment(start=step, end=steps, level=level, warmup_steps=warmup_steps, decay_steps=decay_steps)
        )
        self._planned, self._is_new = (step, seconds), False
        return self.plan


def first_plan(config: TrainingConfig, images: int, max_time: float, limit: int | None) -> Plan:
    """The plan before any speed is known, with at most ``limit`` steps."""
    guess = max(1, min(round(AIM * max_time / GUESS), STEPS.high))
    return make_plan(config, images, min(guess, limit or guess), limit)


def next_reading(plan: Plan, step: int, start_step: int, max_interval: int) -> int:
    """The step after which the host waits for the device next, to read the clock.

    Readings are close together at the start of a process (``start_step``), when no speed is known, and at the end of
    the run, when there is little time to react.
    """
    return step + max(1, min(max_interval, (plan.steps - step) // 64, (step - start_step) // 2))
