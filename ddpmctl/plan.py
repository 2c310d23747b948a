"""How long a run is and how the learning rate goes over it."""

from dataclasses import dataclass, replace

from ddpmctl.config import MOST_STEPS, TrainingConfig

RESERVE = 0.97
"""Share of a time limit that is planned: machines are not steady."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run laid out in steps; the clock is only a backstop. It goes into the manifest, so that a run can go on.

    Attributes:
        steps: optimizer steps of the whole run.
        steps_per_epoch: steps that show each training image once.
        batch_size: images a step.
        warmup_steps: steps over which the rate rises.
        decay_steps: steps at the end over which it falls to zero.
        peak_lr: the rate between the two.
        start: the step from which they are counted: where a run was extended, else 0.
    """

    steps: int
    steps_per_epoch: int
    batch_size: int
    warmup_steps: int
    decay_steps: int
    peak_lr: float
    start: int = 0

    def __post_init__(self) -> None:
        ordered = 0 <= self.start < self.steps <= MOST_STEPS and self.steps_per_epoch >= 1 and self.batch_size >= 1
        if not (ordered and min(self.warmup_steps, self.decay_steps) >= 0 and 0 < self.peak_lr <= 1):
            raise ValueError("the plan does not fit together")

    @property
    def epochs(self) -> int:
        """Epochs begun by the end, the last one possibly cut."""
        return -(-self.steps // self.steps_per_epoch)

    def lr(self, step: int) -> float:
        """The rate of a step counted from 0: a trapezoid."""
        rise = (step + 1 - self.start) / self.warmup_steps if self.warmup_steps else 1.0
        fall = (self.steps - step) / self.decay_steps if self.decay_steps else 1.0
        return self.peak_lr * min(1.0, rise, fall)


def lay_out(config: TrainingConfig, images: int, steps: int | None = None) -> Plan:
    """Lay a run out.

    Args:
        config: the settings.
        images: how many there are to train on; a set smaller than the batch makes smaller batches.
        steps: the length of the run; ``config.epochs`` passes by default.
    """
    batch_size = min(config.batch_size, images)
    steps_per_epoch = images // batch_size
    total = steps if steps is not None else config.epochs * steps_per_epoch
    return Plan(
        steps=total,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        warmup_steps=round(config.warmup * total),
        decay_steps=round(config.decay * total),
        peak_lr=config.lr,
    )


def extended(plan: Plan, config: TrainingConfig, step: int, epochs: int) -> Plan:
    """The plan of a run that has come to a step and gets so many epochs more, with a warm-up and a decay of their own.

    Args:
        plan: the one it had.
        config: its settings.
        step: where it is.
        epochs: how many more.
    """
    more = lay_out(config, plan.batch_size * plan.steps_per_epoch, epochs * plan.steps_per_epoch)
    return replace(
        plan,
        start=step,
        steps=step + more.steps,
        warmup_steps=more.warmup_steps,
        decay_steps=more.decay_steps,
        # Not above what the run was brought down to when it diverged.
        peak_lr=min(more.peak_lr, plan.peak_lr),
    )


def steps_that_fit(seconds_left: float, seconds_per_step: float) -> int:
    """How many steps a time limit has room for, with a small reserve; at least one."""
    return max(1, int(RESERVE * seconds_left / seconds_per_step))
