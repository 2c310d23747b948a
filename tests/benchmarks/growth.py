"""How cost grows with the batch, the number of images and the width of the network.

python -m tests.benchmarks growth --data-dir DATA
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from ddpmctl.config import Config, load_preset
from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine

from .machine import about_this_machine, ddpmctl, markdown
from .speed import one_epoch

STEPS = 25


def growth(data_dir: Path) -> None:
    """Print three small tables."""
    print(about_this_machine(), flush=True)
    data = load_dataset("mnist", 32, data_dir)
    quick = load_preset("quick").config
    rows = []
    for batch in (16, 32, 64, 128, 256):
        rate = _rate(replace(quick, training=replace(quick.training, batch_size=batch)), data)
        rows.append([str(batch), f"{1000 * batch / rate:.0f}", f"{rate:.0f}"])
    print(markdown(["batch", "ms a step", "images/s trained"], rows), "\n", flush=True)
    rows = []
    for widths in ((16, 32, 64), (32, 64, 128), (48, 96, 192), (64, 128, 256)):
        config = replace(quick, model=replace(quick.model, widths=widths))
        rows.append(["-".join(map(str, widths)), f"{_rate(config, data):.0f}"])
    print(markdown(["widths", "images/s trained"], rows), "\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ddpmctl(
            Path(folder), "train", "--preset", "quick", "--dataset", "strokes:2000", "--epochs", 1, "--device", "cpu"
        )
        engine = Engine(Registry(Path(folder)).open(None), "cpu")
        for count in (1, 8, 64, 256, 1024, 10_000):
            ran = ddpmctl(Path(folder), "generate", 8, "-n", count, "-o", Path(folder) / "x.npz", "--device", "cpu")
            rows.append([str(count), f"{ran.seconds:.2f}", f"{ran.peak:,.0f}"])
        print(f"{engine.nfe(engine.request([0]).sampling)} evaluations of the network an image\n")
    print(markdown(["images", "s, whole process", "peak MiB"], rows))


def _rate(config: Config, data: Dataset) -> float:
    return one_epoch(config, data, STEPS * config.training.batch_size)[1]
