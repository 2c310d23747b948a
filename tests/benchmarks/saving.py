"""The cost of saving checkpoints during training.

python -m tests.benchmarks saving --data-dir DATA
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from ddpmctl.config import PRESETS, load_preset
from ddpmctl.data import load_dataset
from ddpmctl.devices import choose_precision
from ddpmctl.registry import Registry
from ddpmctl.training.execution import Execution
from ddpmctl.training.intervals import DEFAULT_INTERVAL
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.trainer import Trainer

from .machine import about_this_machine, band, markdown
from .speed import Clock

COMMITS = 8


def saving(data_dir: Path) -> None:
    """Seconds and bytes of a commit, and its share of the time at the usual interval."""
    print(about_this_machine(), flush=True)
    whole = load_dataset("mnist", 32, data_dir)
    few = replace(whole, images=whole.images[:640], labels=whole.labels[:640])
    device = torch.device("cpu")
    rows = []
    for preset in PRESETS:
        config = load_preset(preset).config
        config = replace(config, training=replace(config.training, epochs=1, batch_size=64, validation_images=0))
        spec = RunSpec(preset=preset, checkpoint_every="1step")
        execution = Execution(device=device, precision=choose_precision("auto", device)[0])
        costs: list[float] = []
        with tempfile.TemporaryDirectory() as folder, Registry(Path(folder)).writer("it", "") as writer:
            trainer = Trainer(config, few, spec, execution, writer, callbacks=Clock())
            inner = trainer.save

            def timed(
                *arguments: object, inner: object = inner, trainer: Trainer = trainer, costs: list[float] = costs
            ) -> None:
                inner(*arguments)  # type: ignore[operator]
                costs.append(trainer.checkpoints.cost)

            trainer.save = timed  # type: ignore[method-assign, assignment]
            trainer.train()
            saved = trainer.checkpoints.saved
        assert saved is not None
        size = sum(record.size for record in saved.manifest.files.values())
        interval = max(DEFAULT_INTERVAL.number, statistics.median(costs) / DEFAULT_INTERVAL.share)
        share = statistics.median(costs) / interval
        rows.append([preset, f"{size / 1e6:.1f}", band(costs[:COMMITS]), f"{interval:.0f}", f"{share:.2%}"])
    print(markdown(["preset", "MB", "seconds a commit", "usual interval, s", "of the time"], rows))
