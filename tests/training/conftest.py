"""A tiny network to train on 300 drawn digits."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpmctl.config import Config
from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.registry import Registry
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.trainer import Trainer
from tests.builders import tiny_config

from .support import Train, Trained, Watcher


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("strokes:300", 32)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


@pytest.fixture
def train(registry: Registry, digits: Dataset) -> Train:
    """``train(epochs=2)``: a run of the tiny network on 300 digits, with these training settings."""
    numbers = itertools.count()

    def run(
        data: Dataset = digits,
        watcher: Watcher | None = None,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] | None = None,
        config: Config | None = None,
        seed: int = 0,
        max_time: float | None = None,
        within_epochs: bool = False,
        accumulate: int = 1,
        compiled: bool = False,
        precision: str = "fp32",
        every: str | None = None,
        resume: str | None = None,
        more_epochs: int | None = None,
        best_is_damaged: bool = False,
        on_trainer: Callable[[Trainer], object] = lambda trainer: None,
        **training: Any,
    ) -> Trained:
        watcher = watcher or Watcher()
        config = config or tiny_config(training=training)
        spec = RunSpec(
            preset="quick",
            dataset="strokes:300",
            seed=seed,
            max_time=max_time,
            epochs=config.training.epochs if within_epochs else None,
            accumulate=accumulate,
            compile=compiled,
            checkpoint_every=every,
        )
        execution = Execution(device=torch.device("cpu"), precision=precision)
        timing: dict[str, Any] = {"clock": clock} if clock else {}
        name = resume or f"run-{next(numbers)}"
        writer, resumed = registry.resume(name) if resume else (registry.writer(name, ""), None)
        with writer:
            trainer = Trainer(config, data, spec, execution, writer, callbacks=watcher, **timing)
            trainer.should_stop = stop
            on_trainer(trainer)
            stopped = trainer.train(resumed, more_epochs, best_is_damaged=best_is_damaged)
        return Trained(name, stopped, watcher, trainer, registry)

    return run
