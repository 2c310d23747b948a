"""The cost of previews during training.

python -m tests.benchmarks previews --data-dir DATA
"""

import tempfile
import time
from pathlib import Path

import torch

from ddpmctl.config import PRESETS, load_preset
from ddpmctl.data import load_dataset
from ddpmctl.devices import choose_precision
from ddpmctl.registry import Registry
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.trainer import Trainer

from .machine import about_this_machine, markdown
from .speed import Clock

SECONDS = 60.0


def previews(data_dir: Path) -> None:
    """A minute of each preset: the previews drawn, the seconds each took, and their share of the whole time."""
    print(about_this_machine(), flush=True)
    data, device = load_dataset("mnist", 32, data_dir), torch.device("cpu")
    rows = []
    for preset in PRESETS:
        precision, _ = choose_precision("auto", device)
        spec = RunSpec(preset=preset, max_time=SECONDS)
        with tempfile.TemporaryDirectory() as folder, Registry(Path(folder)).writer("it", "") as writer:
            trainer = Trainer(
                load_preset(preset).config,
                data,
                spec,
                Execution(device=device, precision=precision),
                writer,
                callbacks=Clock(),
            )
            taken: list[float] = []
            inner = trainer.previews.draw

            def draw(inner: object = inner, taken: list[float] = taken) -> object:
                started = time.perf_counter()
                images = inner()  # type: ignore[operator]
                taken.append(time.perf_counter() - started)
                return images

            trainer.previews.draw = draw  # type: ignore[assignment]
            started = time.perf_counter()
            trainer.train()
            whole = time.perf_counter() - started
        mean = sum(taken) / len(taken) if taken else 0.0
        rows.append([preset, str(len(taken)), f"{mean:.3f}", f"{sum(taken):.2f}", f"{sum(taken) / whole:.1%}"])
    print(markdown(["preset", "previews", "seconds a preview", "seconds in all", "of the time"], rows))
