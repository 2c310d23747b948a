"""The training display: a live table on a terminal, otherwise one line per epoch."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ddpmctl.cli.output import Output, encodes
from ddpmctl.cli.terminal_images import in_characters
from ddpmctl.durations import format_duration
from ddpmctl.training.callbacks import Callback, RunInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from ddpmctl.imaging.upscale import Images
    from ddpmctl.plan import Plan
    from ddpmctl.training.history import EpochRow

ESTIMATE_AFTER = 5.0
"""Seconds of training after which the speed estimate is used."""

LONG = 3600.0
"""Seconds from which a run on a CPU is called long."""

ESTIMATE_AFTER_SHARE = 0.1
"""Share of a time limit after which the speed estimate is used, if that is sooner."""

NOTABLE = 0.2
"""Change of the planned steps, as a share of those that were shown last, that is reported."""

MEASURED = 8
"""Steps after which an unchanged initial plan is no longer a guess."""

FEW = 50
"""A run with fewer steps does not produce recognisable images."""

VISIBLE_ROWS = 12
FEWEST_ROWS = 3

HEAD = 4
"""Lines for the table's head, the two bars, and the one where the cursor waits."""

FEWEST_PREVIEW_LINES, PREVIEW_LINES, PREVIEW_COLUMNS = 7, 21, 110
CURVE_LINES = 4
NARROW = 30
"""Columns below which there is no room for a curve."""


class Display(Callback):
    """Shows a run while it trains.

    Args:
        show: whether to draw a curve and a preview, too; None decides by terminal.
    """

    def __init__(self, out: Output, show: bool | None = None) -> None:
        self.out = out
        self.name = self.where = ""
        self.patience = 0
        self.max_time: float | None = None
        self.clock: Callable[[], float] = time.perf_counter
        self.suggest_quick = False
        self.rows: list[tuple[EpochRow, int]] = []
        self.preview: tuple[int, list[Images]] | None = None
        self.draws = out.draws(show) and out.animated
        self.bars = Progress(
            TextColumn("{task.description:>5}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            console=out.stderr,
            disable=not out.animated,
        )
        self._estimated = False
        self._shown_steps = 0
        self._is_guess = False
        self._live: Live | None = None
        self._shown = 0.0

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Remove the live display at the end, also after an error."""
        try:
            yield
        finally:
            if self._live:
                self._live.update(self._renderable())
                self._live.stop()

    def on_setup(self, run: RunInfo) -> None:
        """Record the run's settings, and start the live display."""
        device, precision = run.execution.device, run.execution.precision
        processes = f", {run.execution.group.size} processes" if run.execution.group.size > 1 else ""
        reason = "" if run.resumed else f" ({run.precision_reason})"
        self.name, self.where = run.name, f"on {device} in {precision}{reason}{processes}"
        self.patience, self.max_time, self.clock = run.config.training.patience, run.seconds_left, run.clock
        self.suggest_quick = not run.resumed and device.type == "cpu" and run.spec.preset != "quick"
        if self.out.animated:
            # Rich would otherwise take stdout over, and piped results would vanish.
            self._live = Live(
                self._renderable(), console=self.out.stderr, redirect_stdout=False, redirect_stderr=False,
                refresh_per_second=2,
            )  # fmt: skip
            self._live.start()

    def on_start(self, plan: "Plan", step: int) -> None:
        """Create the progress bars and print the name to resume with."""
        self.plan = plan
        verb = "resuming" if step else "training"
        self.out.note(f"{verb} '{self.name}' {self.where}")
        self.started_at = self.clock()
        self._epoch_bar = self.bars.add_task("epoch", total=min(plan.steps_per_epoch, plan.steps), note="")
        self._run_bar = self.bars.add_task("run", total=plan.steps, note="")
        self._is_guess = bool(self.max_time) and not step and plan.steps != plan.limit
        if self._is_guess:
            self.out.note(
                f"as many steps of batch size {plan.batch_size} as fit in {format_duration(self.max_time or 0)}"
            )
        else:
            self._show_plan(step=step)

    def on_step(self, step: int, images_per_second: float) -> None:
        """Move the bars; once the speed is known, print an estimate."""
        left = (self.plan.steps - step) * self.plan.batch_size / images_per_second
        if self.max_time:  # the clock ends what takes longer
            left = min(left, max(0.0, self.max_time - (self.clock() - self.started_at)))
        threshold = min(ESTIMATE_AFTER, ESTIMATE_AFTER_SHARE * self.max_time) if self.max_time else ESTIMATE_AFTER
        known = step >= MEASURED or not self._is_guess
        if known and not self._estimated and self.clock() - self.started_at > threshold:
            self._estimated = True
            self._estimate(left, images_per_second)
        # Drawing takes time: ten updates per second are enough.
        if not self.out.animated or time.perf_counter() - self._shown < 0.1:
            return
        self._shown = time.perf_counter()
        in_epoch = (step - 1) % self.plan.steps_per_epoch + 1
        # The last epoch may be a part of one.
        in_all = min(self.plan.steps_per_epoch, self.plan.steps - step + in_epoch)
        epoch_left = min(left, (in_all - in_epoch) * self.plan.batch_size / images_per_second)
        note = f"{images_per_second:,.0f} images/s, {format_duration(epoch_left)} left"
        self.bars.update(self._epoch_bar, total=in_all, completed=in_epoch, note=note)
        self.bars.update(self._run_bar, completed=step, note=f"{format_duration(left)} left")

    def on_epoch_end(self, row: "EpochRow", patience_left: int, step_metrics: "NDArray[np.float32]") -> None:
        """Add a row to the table, or print it as a line."""
        self.rows.append((row, patience_left))
        if self._live:
            self._live.update(self._renderable())
        else:
            validation = "" if row.validation_mse is None else f", validation MSE {row.validation_mse:.4f}"
            best = " (best)" if row.best else f", patience {patience_left}"
            self.out.note(
                f"epoch {row.epoch}/{self.plan.epochs}: train MSE {row.train_mse:.4f}{validation}{best}, "
                f"lr {row.lr:.2g}, {row.images_per_second:,.0f} images/s, {format_duration(row.seconds)}"
            )

    def on_preview(self, step: int, images: "Images") -> None:
        """Show the preview."""
        self.preview = step, list(images)
        if self._live and self.draws:
            self._live.update(self._renderable())

    def on_replan(self, plan: "Plan", step: int) -> None:
        """Show the new number of steps: in the bar, or as a line if it changed by much."""
        self.plan, self._is_guess = plan, False
        self.bars.update(self._run_bar, total=plan.steps)
        if self._estimated and not self.out.animated:
            self._show_notable_plan()

    def on_rollback(self, reason: str, plan: "Plan", step: int) -> None:
        """Report the roll-back."""
        self.plan = plan
        self.out.warn(f"{reason}: restored step {step:,} with half the learning rate ({plan.peak_lr:.2g})")

    def _show_plan(self, before: str = "", step: int = 0) -> None:
        plan = self.plan
        self._shown_steps = plan.steps
        many = f"step {step:,} of {plan.steps:,}" if step else f"{plan.steps:,} step{'' if plan.steps == 1 else 's'}"
        self.out.note(f"{before}{many}, batch size {plan.batch_size}, {_epochs(plan)}")

    def _show_notable_plan(self) -> None:
        if abs(self.plan.steps - self._shown_steps) > NOTABLE * self._shown_steps:
            self._show_plan("replanned for the time limit: " if self._shown_steps else "")

    def _estimate(self, left: float, rate: float) -> None:
        if self.max_time:
            self._show_notable_plan()
            if self.plan.steps < FEW:
                many = f"{self.plan.steps} step{'' if self.plan.steps == 1 else 's'}"
                self.out.warn(f"only {many} fit in this time: recognisable digits need several hundred")
        self.out.note(f"about {format_duration(left)} left at {rate:,.0f} images/s, unless it stops early")
        if self.suggest_quick and left > LONG:
            self.out.note("for a faster result: ddpmctl train --preset quick")

    def _renderable(self) -> Group:
        table = Table(
            "epoch", "train MSE", "validation MSE", "best", "patience", "learning rate", "images/s", "time", box=None
        )
        drawn = list(self._drawn()) if self.draws else []
        room = self.out.stderr.height - HEAD - sum(height for height, _ in drawn)
        for row, patience_left in self.rows[-max(FEWEST_ROWS, min(VISIBLE_ROWS, room)) :]:
            table.add_row(
                str(row.epoch),
                f"{row.train_mse:.4f}",
                "" if row.validation_mse is None else f"{row.validation_mse:.4f}",
                "*" if row.best else "",
                f"{patience_left}/{self.patience}",
                f"{row.lr:.2g}",
                f"{row.images_per_second:,.0f}",
                format_duration(row.seconds),
            )
        parts = [part for _, part in drawn]
        return Group(table, *parts, self.bars) if self.rows else Group(*parts, self.bars)

    def _drawn(self) -> "Iterator[tuple[int, RenderableType]]":
        """The loss curve and the preview, if there is room for them, each with its height."""
        from ddpmctl.cli.terminal import curve, tile

        console = self.out.stderr
        room = console.height - HEAD - FEWEST_ROWS
        if self.preview and room > FEWEST_PREVIEW_LINES:
            step, images = self.preview
            lines = max(FEWEST_PREVIEW_LINES, min(PREVIEW_LINES, room - CURVE_LINES - FEWEST_ROWS))
            preview, _ = tile(images, min(console.width, PREVIEW_COLUMNS), lines)
            lines = (len(preview) + 1) // 2
            room -= lines + 1
            title = f"preview after {step:,} steps:" if step else "initial noise:"
            yield lines + 1, Group(Text(title), in_characters(self.out, preview))
        values = [row.train_mse if row.validation_mse is None else row.validation_mse for row, _ in self.rows]
        if len(values) > 1 and room > CURVE_LINES and console.width > NARROW:
            plain = not encodes(console, "\u2800")
            drawn = curve(values, min(60, console.width - 12), CURVE_LINES, plain=plain)
            yield CURVE_LINES + 1, Group(Text("MSE (log scale):"), Text(drawn, no_wrap=True))


def _epochs(plan: "Plan") -> str:
    exact = plan.steps / plan.steps_per_epoch
    return f"{exact:g} epochs" if exact == int(exact) else f"{exact:.2f} epochs"
