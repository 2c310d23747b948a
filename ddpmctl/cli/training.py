"""Training on the command line: display, signals and the final messages."""

import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from ddpmctl.cli.output import Output
from ddpmctl.cli.training_display import Display
from ddpmctl.distributed.process_group import ProcessGroup, join_process_group
from ddpmctl.durations import format_duration
from ddpmctl.errors import DdpmctlError, HungUp, Interrupted, Terminated, ending_signals
from ddpmctl.ranks import ranks
from ddpmctl.registry import Registry, last_of
from ddpmctl.training.callbacks import Callback
from ddpmctl.training.run_spec import RunSpec, resume_command

if TYPE_CHECKING:
    from ddpmctl.plan import Plan
    from ddpmctl.training.runs import TrainedModel


class _Resumable(Callback):
    """Knows whether the run can be resumed yet."""

    every_process = True

    def __init__(self) -> None:
        self.started = False

    def on_start(self, plan: "Plan", step: int) -> None:
        self.started = True


def run_training(
    out: Output, start: "Callable[..., TrainedModel]", *, show: bool | None = None, tensorboard: bool = False
) -> "TrainedModel":
    """Train with a display, and save and end at a signal.

    Args:
        start: starts or resumes the run, given ``callbacks`` and ``should_stop``.
        show: whether a curve and previews are drawn; None decides by terminal.
        tensorboard: whether to log for TensorBoard, too.
    """
    display, resumable = Display(out, show), _Resumable()
    callbacks: list[Callback] = [resumable, display]
    if tensorboard:
        from ddpmctl.training.tensorboard import TensorBoard

        folder = Registry().home / "tensorboard"
        out.note(f"to monitor: tensorboard --logdir '{folder}'")
        callbacks.append(TensorBoard(folder))
    with join_process_group() as group:
        with graceful_end(out, lambda: resumable.started) as ended_by, display.showing():
            trained = start(callbacks=callbacks, should_stop=lambda: ended_by() is not None)
        best = trained.best
        metric = f"{best.title} {best.value:.4f} at epoch {best.epoch}" if best else "no epoch validated yet"
        if trained.stopped == "interrupted":
            kind, verb = _ending(group, ended_by())
            raise kind(
                f"{verb} after {trained.steps:,} of {trained.planned_steps:,} steps; "
                f"checkpoint saved as '{trained.name}' ({metric})",
                resume_command(trained.name),
            )
    if trained.constant_mse is None:  # there was nothing left to train
        return trained
    if trained.stopped == "early":
        out.note(f"early stopping: no improvement for {display.patience} epochs")
    if trained.ends_early:
        out.note(
            "the time limit was reached before the learning rate decayed to zero: the machine was suspended or slow"
        )
    out.note(f"finished after {format_duration(trained.seconds)} of training; best {metric}")
    if not trained.has_learned:
        constant = f"that of a constant prediction ({trained.constant_mse:.4f})"
        out.warn(f"'{trained.name}' did not learn: its MSE is not below {constant}")
    return trained


def report_trained(out: Output, trained: "TrainedModel") -> None:
    """Print the result of a training run, and what comes next, in the main process."""
    if ranks().is_main_process:
        out.note(_next_command(trained))
        out.result(_record(trained), bare=[trained.name])


def _next_command(trained: "TrainedModel") -> str:
    if trained.has_learned:
        return f"generate samples: ddpmctl grid --model {trained.name}"
    lower = RunSpec(lr=float(f"{trained.lr / 10:.1g}")) if trained.lr else RunSpec()
    return f"train again, for longer or with a lower learning rate: {shlex.join(lower.to_argv())}"


def _record(trained: "TrainedModel") -> dict[str, object]:
    """The result, for ``--json``."""
    checkpoint = trained.checkpoint
    run, best = last_of(checkpoint).manifest.run, checkpoint.manifest.best
    assert best is not None, "a finished run has a best epoch"
    return {
        "name": trained.name,
        "path": str(checkpoint.path),
        "steps": run.step,
        "seconds": run.seconds,
        "best": {
            "name": best.name,
            "parameterization": best.parameterization,
            "value": best.value,
            "epoch": best.epoch,
        },
    }


def _ending(group: ProcessGroup, signum: int | None) -> tuple[type[DdpmctlError], str]:
    """The error and the verb for a run stopped by a signal in any process."""
    by_sigterm, by_sighup = group.any_rank(signum == signal.SIGTERM, signum == getattr(signal, "SIGHUP", -1))
    if by_sigterm:
        return Terminated, "terminated"
    return (HungUp, "terminal closed") if by_sighup else (Interrupted, "interrupted")


@contextmanager
def graceful_end(out: Output, can_save: Callable[[], bool]) -> Iterator[Callable[[], int | None]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request to save and end, which the yielded function returns.

    A second Ctrl-C stops immediately; so does the first signal before there is anything to save. A SIGHUP that was
    ignored at the start, as under nohup, stays ignored.
    """
    received: int | None = None
    noted = False

    def on_signal(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        if not can_save() or (received is not None and signum == signal.SIGINT):
            earlier = previous[signal.Signals(signum)]
            if callable(earlier):
                earlier(signum, frame)
            raise KeyboardInterrupt
        received = received or signum

    def ended_by() -> int | None:
        nonlocal noted
        if received is not None and not noted:
            # Not in the handler: the signal may have come in the middle of another line.
            noted = True
            out.note("stopping after this step; Ctrl-C again stops immediately")
        return received

    previous = {which: signal.signal(which, on_signal) for which in (signal.SIGINT, *ending_signals())}
    try:
        yield ended_by
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
