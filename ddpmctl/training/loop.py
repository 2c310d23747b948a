"""The training loop."""

from typing import TYPE_CHECKING

import torch

from ddpmctl.training.train_step import seed_of

if TYPE_CHECKING:
    from ddpmctl.training.state import StopReason
    from ddpmctl.training.trainer import Trainer


def train_loop(run: "Trainer") -> "StopReason":
    """Train until the plan is done, patience is exhausted or a stop is requested.

    Every process takes the same steps; rank 0 makes all time-dependent decisions. Raises `NotFinite` if a loss,
    gradient or weight is not finite, from which `Trainer.train` rolls back.
    """
    state, step = run.state, run.train_step
    stopped: StopReason = "running"
    while stopped == "running":
        # An epoch uses every training image once, in an order that depends only on the seed and the epoch.
        epoch = state.epoch_in_progress
        generator = torch.Generator().manual_seed(seed_of(run.spec.seed, "order", epoch + 1))
        order = torch.randperm(len(run.train_set), generator=generator, device="cpu").to(run.execution.device)
        batches = torch.split(order, state.plan.batch_size)
        first, before, started, rate = state.step, state.seconds, run.clock(), 0.0

        while state.step < state.end_of(epoch):
            # Learning rate and one optimizer step: draw, forward, backward, clip, step, average.
            place = state.step % state.plan.steps_per_epoch
            run.step_metrics[place] = step(batches[place], state.step, state.plan.lr(state.step))
            state.step += 1

            # The host waits for the device only occasionally, to read the clock and to check that losses are finite.
            synchronized = state.step in (run.synchronize_at, state.end_of(epoch))
            if synchronized:
                run.check_finite()
            now = run.clock()
            state.seconds = before + now - started
            rate = (state.step - first) * state.plan.batch_size / (state.seconds - before)
            run.callbacks.on_step(state.step, rate)

            # Stop, or change the plan if the speed has changed and there is a time limit.
            stop, checkpoint_due = run.synchronize_decisions(now, synchronized=synchronized)
            if stop:
                run.save("interrupted")
                return "interrupted"

            # Checkpoint and preview; their time is not training time.
            if checkpoint_due and state.step < state.end_of(epoch):
                run.save("running")
                started += run.checkpoints.cost
            started += run.maybe_draw_preview(rate, state.plan.steps - state.step)

        # Validate; stage or save the best weights, and stop early if there is no progress.
        stopped = run.validate(rate)
    return stopped
