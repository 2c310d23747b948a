"""Finds the largest batch that fits in memory, for the error about a larger one."""

import copy
from typing import TYPE_CHECKING

import torch

from ddpmctl.devices import is_out_of_memory
from ddpmctl.errors import DdpmctlError, Setting

if TYPE_CHECKING:
    from ddpmctl.training.train_step import TrainStep


def largest_batch(step: "TrainStep", most: int) -> int:
    """How many images fit in one pass: ``most``, or a half of it, or a quarter and so on; 0 for none."""
    count = most
    # A copy has none of the hooks by which DistributedDataParallel would wait for the other processes.
    network = copy.deepcopy(step.model) if step.execution.group.size > 1 else step.model
    while count:
        step.clear_gradients()
        try:
            step.backward(network, step.draw(torch.arange(count, device=step.execution.device), step=0), count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            count //= 2
        else:
            break
    step.clear_gradients()
    return count


def batch_too_large(step: "TrainStep", size: int) -> DdpmctlError:
    """The error for a batch that does not fit in memory, with one that does.

    To be called outside of the ``except`` clause, whose traceback keeps tensors of the failed pass alive.
    """
    processes = step.execution.group.size
    fits = largest_batch(step, -(-size // processes) // 2) * processes
    if not fits:
        return DdpmctlError(
            "there is not enough memory for a single image", Setting("preset", "quick"), " uses less memory"
        )
    hint: list[str | Setting] = [Setting("batch_size", fits)]
    if step.config.model.norm == "group":
        parts = -(-size // fits) * step.spec.accumulate
        hint += [", or ", Setting("accumulate", parts), " for gradient accumulation"]
    return DdpmctlError(f"a batch of {size} does not fit in memory; one of {fits} does", *hint)
