"""Three training steps in one of several processes, and the third again as after a restart, with recorded values.

torchrun .. steps.py FOLDER
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ddpmctl.config import Config, load_preset
from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.distributed.process_group import ProcessGroup, join_process_group
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.train_step import TrainStep, seed_of
from ddpmctl.training.validation import Validator

BATCH = 10
"""Which three and four processes cannot divide evenly."""

STEPS, LR = 3, 1e-3


def settings() -> Config:
    config = load_preset("quick").config
    model = replace(config.model, widths=(16, 32), embedding=16)
    return replace(config, model=model, training=replace(config.training, batch_size=BATCH, label_dropout=0.3))


def images() -> Dataset:
    return load_dataset("strokes:60", 32)


def train_step(group: ProcessGroup) -> TrainStep:
    execution = Execution(device=torch.device("cpu"), precision="fp32", group=group)
    return TrainStep(settings(), images(), RunSpec(seed=7), execution)


def learn(group: ProcessGroup) -> dict[str, np.ndarray]:
    one = train_step(group)
    one.warm_up_ddp()
    told: dict[str, list[torch.Tensor]] = {name: [] for name in ("ids", "x0", "t", "epsilon", "label", "loss")}
    generator = torch.Generator().manual_seed(seed_of(7, "order", 1))
    order = torch.split(torch.randperm(60, generator=generator), BATCH)
    for step in range(STEPS):
        if step == STEPS - 1:
            kept = one.weights(), one.state()
        told["ids"].append(group.shard(order[step]))
        for name, whole in zip(("x0", "t", "epsilon", "label"), one.draw(order[step], step), strict=True):
            told[name].append(group.shard(whole))
        told["loss"].append(one(order[step], step, LR))
    again = train_step(group)
    again.load_state(*kept, STEPS - 1)
    again.warm_up_ddp()
    repeated = again(order[STEPS - 1], STEPS - 1, LR)
    arrays = {name: torch.stack(values).numpy() for name, values in told.items()}
    arrays["validation"] = np.array(Validator(one, images()).mse(lambda: False))
    arrays["repeated"] = repeated.numpy()
    arrays |= {f"weights.{name}": array for name, array in one.state().items()}
    return arrays | {f"again.{name}": array for name, array in again.state().items()}


if __name__ == "__main__":
    with join_process_group() as group:
        np.savez(Path(sys.argv[1]) / f"{group.rank}.npz", **learn(group))  # type: ignore[arg-type]
