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
from ddpmctl.training.run import Run
from ddpmctl.training.saving import HALF_A_MINUTE, Every
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
        every: Every = HALF_A_MINUTE,
        resume: str | None = None,
        more_epochs: int | None = None,
        best_is_lost: bool = False,
        on_trainer: Callable[[Trainer], object] = lambda trainer: None,
        **training: Any,
    ) -> Trained:
        watcher = watcher or Watcher()
        config = config or tiny_config(training=training)
        about = Run(
            preset="quick",
            dataset="strokes:300",
            device=torch.device("cpu"),
            precision=precision,
            seed=seed,
            max_time=max_time,
            within_epochs=within_epochs,
            accumulate=accumulate,
            compiled=compiled,
        )
        timing = {"clock": clock} if clock else {}
        name = resume or f"run-{next(numbers)}"
        writer, resumed = registry.resume(name) if resume else (registry.writer(name, ""), None)
        with writer:
            trainer = Trainer(
                config, data, about, writer, watcher, stop,
                every=every, resumed=resumed, more_epochs=more_epochs, best_is_lost=best_is_lost, **timing,
            )  # fmt: skip
            on_trainer(trainer)
            stopped = trainer.train()
        return Trained(name, stopped, watcher, trainer, registry)

    return run
