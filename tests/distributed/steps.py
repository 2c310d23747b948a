"""Three steps in one of several processes, and the third once more as after a restart; written down as they went.

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
from ddpmctl.training.learner import Learner
from ddpmctl.training.run import Run

BATCH = 10
"""Which three and four processes cannot divide evenly."""

STEPS, LR = 3, 1e-3


def settings() -> Config:
    config = load_preset("quick").config
    model = replace(config.model, widths=(16, 32), embedding=16)
    return replace(config, model=model, training=replace(config.training, batch_size=BATCH, label_dropout=0.3))


def images() -> Dataset:
    return load_dataset("strokes:60", 32)


def learner(group: ProcessGroup) -> Learner:
    run = Run(preset="quick", dataset="strokes:60", device=torch.device("cpu"), precision="fp32", seed=7)
    return Learner(settings(), images(), run, group)


def learn(group: ProcessGroup) -> dict[str, np.ndarray]:
    one = learner(group)
    one.settle()
    told: dict[str, list[torch.Tensor]] = {name: [] for name in ("ids", "x0", "t", "epsilon", "label", "loss")}
    order = torch.split(one.order(1), BATCH)
    for step in range(STEPS):
        if step == STEPS - 1:
            kept = one.train_step.weights(), one.train_step.state()
        told["ids"].append(group.shard(order[step]))
        for name, whole in zip(("x0", "t", "epsilon", "label"), one.train_step.draw(order[step], step), strict=True):
            told[name].append(group.shard(whole))
        told["loss"].append(one.step(order[step], step, LR))
    again = learner(group)
    again.train_step.load_state(*kept, STEPS - 1)
    again.settle()
    repeated = again.step(order[STEPS - 1], STEPS - 1, LR)
    arrays = {name: torch.stack(values).numpy() for name, values in told.items()}
    arrays["heldout"] = np.array(one.validate(images(), lambda: False))
    arrays["repeated"] = repeated.numpy()
    arrays |= {f"weights.{name}": array for name, array in one.train_step.state().items()}
    return arrays | {f"again.{name}": array for name, array in again.train_step.state().items()}


if __name__ == "__main__":
    with join_process_group() as group:
        np.savez(Path(sys.argv[1]) / f"{group.rank}.npz", **learn(group))
