"""The training plan: number of steps and learning rate schedule."""

from bisect import bisect_right
from dataclasses import dataclass, replace

from ddpmctl.config import STEPS, TrainingConfig

RESERVE = 0.97
"""Share of a time limit used for planning, to absorb variation in speed."""

MAX_RATE_SEGMENTS = 100
"""Rate segments of a plan; of more, the oldest are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSegment:
    """The learning rate from one step on, as a share of the peak rate: a trapezoid, possibly starting in the middle.

    Attributes:
        start: first step that it holds for, counted from 0.
        end: the step at which the decay reaches zero.
        level: the share before its first step, in [0, 1].
        warmup_steps: steps over which the share rises from there to 1; with 0 it stays where it is.
        decay_steps: steps before ``end`` over which it falls to zero; 0 for no decay.
    """

    start: int
    end: int
    level: float
    warmup_steps: int
    decay_steps: int

    def __post_init__(self) -> None:
        ordered = 0 <= self.start < self.end <= STEPS.high and 0 <= self.level <= 1
        if not (ordered and min(self.warmup_steps, self.decay_steps) >= 0):
            raise ValueError("the plan is inconsistent")

    def share(self, step: int) -> float:
        """The share of the peak rate at a step."""
        return min(self._rise(step), self._fall(step))

    def rises(self, step: int) -> bool:
        """Whether the warm-up is not over at a step."""
        return step < self.start + self.warmup_steps and self._rise(step) < self._fall(step)

    @property
    def _top(self) -> float:
        return 1.0 if self.warmup_steps else self.level

    def _rise(self, step: int) -> float:
        if not self.warmup_steps:
            return self.level
        return min(1.0, self.level + (1 - self.level) * ((step + 1 - self.start) / self.warmup_steps))

    def _fall(self, step: int) -> float:
        return self._top * ((self.end - step) / self.decay_steps) if self.decay_steps else self._top


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a run and their learning rates. It goes into the manifest, so that a run can be resumed.

    Attributes:
        steps: optimizer steps of the whole run.
        steps_per_epoch: steps that use each training image once.
        batch_size: images per step.
        peak_lr: the learning rate between warm-up and decay.
        limit: steps that no new segment may exceed; None if only a time limit applies.
        segments: in the order of their first steps. A run without a time limit has one; with a time limit, one more
            each time the forecast of its length changed.
    """

    steps: int
    steps_per_epoch: int
    batch_size: int
    peak_lr: float
    limit: int | None
    segments: tuple[RateSegment, ...]

    def __post_init__(self) -> None:
        starts = [segment.start for segment in self.segments]
        fits = bool(starts) and starts == sorted(set(starts)) and len(starts) <= MAX_RATE_SEGMENTS
        if not (
            fits
            and starts[-1] < self.steps <= min(self.segments[-1].end, self.limit or STEPS.high)
            and min(self.steps_per_epoch, self.batch_size) >= 1
            and 0 < self.peak_lr <= 1
        ):
            raise ValueError("the plan is inconsistent")

    @property
    def epochs(self) -> int:
        """Number of epochs; the last may be partial."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def ends_early(self) -> bool:
        """Whether the run ends before the learning rate has decayed to zero."""
        return self.steps < self.segments[-1].end

    def segment(self, step: int) -> RateSegment:
        """The segment that a step counted from 0 belongs to."""
        number = bisect_right(self.segments, step, key=lambda segment: segment.start)
        return self.segments[max(0, number - 1)]

    def lr(self, step: int) -> float:
        """The learning rate of a step counted from 0."""
        return self.peak_lr * self.segment(step).share(step)

    def followed_by(self, segment: RateSegment) -> "Plan":
        """This plan up to the first step of a new segment, and that one to its end."""
        kept = [old for old in self.segments if old.start < segment.start]
        return replace(self, steps=segment.end, segments=(*kept, segment)[-MAX_RATE_SEGMENTS:])

    def truncated_at(self, step: int) -> "Plan":
        """This plan up to a step, whatever the learning rate is there."""
        return replace(self, steps=step, segments=tuple(old for old in self.segments if old.start < step))


def make_plan(config: TrainingConfig, images: int, steps: int | None = None, limit: int | None = None) -> Plan:
    """The plan of a run from its first step.

    Args:
        images: number of training images; caps the batch size.
        steps: the length of the run; ``config.epochs`` passes by default.
        limit: the most steps that it may ever have, if any.
    """
    batch_size = min(config.batch_size, images)
    steps_per_epoch = images // batch_size
    total = steps if steps is not None else config.epochs * steps_per_epoch
    return Plan(
        steps=total,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        peak_lr=config.lr,
        limit=limit,
        segments=(_whole(config, 0, total),),
    )


def extend_plan(plan: Plan, config: TrainingConfig, step: int, epochs: int) -> Plan:
    """The plan of a run extended by more epochs from a step on, with their own warm-up and decay."""
    # Keep the peak rate that roll-backs have reduced.
    more = replace(plan, limit=None, peak_lr=min(config.lr, plan.peak_lr))
    return more.followed_by(_whole(config, step, epochs * plan.steps_per_epoch))


def steps_within(seconds: float, seconds_per_step: float) -> int:
    """How many steps fit into a time, with a small reserve; at least one."""
    return max(1, int(RESERVE * seconds / seconds_per_step))


def _whole(config: TrainingConfig, start: int, steps: int) -> RateSegment:
    """A segment with warm-up and decay."""
    warmup_steps = round(config.warmup * steps)
    return RateSegment(
        start=start,
        end=start + steps,
        level=0.0 if warmup_steps else 1.0,
        warmup_steps=warmup_steps,
        decay_steps=round(config.decay * steps),
    )
