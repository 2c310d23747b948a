"""Test objects: settings, weights and registered models that were never trained."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddpmctl.config import Config
from ddpmctl.registry import (
    DatasetRecord,
    FileRecord,
    Manifest,
    Metric,
    ModelWriter,
    Registry,
    RunRecord,
    SegmentRecord,
)
from ddpmctl.registry.manifest import with_checksum

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLANNED = 1_000_000
HISTORY = "epoch,step\n1,10\n"
WEIGHTS = {"layer": np.arange(6, dtype=np.float32).reshape(2, 3)}

SEGMENT = SegmentRecord(
    why="begun", step=0, planned_steps=100, peak_lr=0.1, created="2000-01-01T00:00:00+00:00", device="cpu",
    precision="fp32", threads=2, versions={"ddpmctl": "0.1.0"}, exact=True,
)  # fmt: skip

Weights = dict[str, NDArray[Any]]


def tiny_values() -> dict[str, Any]:
    """Every setting of a network of some ten thousand parameters, as plain values."""
    return {
        "model": {
            "network": "unet",
            "image_size": 32,
            "sample_size": 32,
            "channels": 1,
            "num_classes": 10,
            "widths": [16, 32],
            "blocks": 1,
            "patch": 4,
            "embedding": 16,
            "norm": "group",
            "gaussian_rank": 0,
            "gaussian_clusters": 1,
        },
        "diffusion": {
            "timesteps": 1000,
            "schedule": "cosine",
            "parameterization": "v",
            "clip_x0": True,
            "pixel_range": [-1, 1],
        },
        "training": {
            "epochs": 3,
            "batch_size": 32,
            "optimizer": "adamw",
            "lr": 5e-3,
            "beta2": 0.99,
            "weight_decay": 0.01,
            "warmup": 0.1,
            "decay": 0.4,
            "clip_norm": 1.0,
            "newton_schulz": 5,
            "ema_lag": 0.1,
            "label_dropout": 0.1,
            "stratified": True,
            "timestep_focus": [0.1, 0.9],
            "focus_share": 0.0,
            "one_timestep": False,
            "flip": False,
            "validation_images": 5000,
            "patience": 15,
        },
        "sampling": {"sampler": "dpmpp", "steps": 20, "guidance": 1.3, "guidance_interval": [0.0, 1.0]},
    }


def tiny_config(**tables: dict[str, Any]) -> Config:
    """The tiny settings, but for those given: ``tiny_config(training={"epochs": 1})``."""
    values = tiny_values()
    for table, changes in tables.items():
        values[table] |= changes
    return Config.from_dict(values)


def manifest(files: dict[str, FileRecord], *, step: int = 10, value: float = 0.5, **changes: Any) -> Manifest:
    """A manifest of a run that is ``step`` steps old, and as many minutes after the turn of the century."""
    metric = Metric(name="validation_mse", parameterization="v", value=value, epoch=1, step=step)
    made = Manifest(
        created=(datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=step)).isoformat(),
        preset="quick",
        config=tiny_config(),
        classes=DIGITS,
        dataset=DatasetRecord(name="strokes:300", digest="0" * 64, count=300, fit=""),
        resume=changes.pop("resume", None),
        run=RunRecord(
            id="a run",
            step=step,
            planned_steps=PLANNED,
            epochs=1,
            images=320,
            seconds=1.5,
            seed=0,
            device="cpu",
            precision="fp32",
            threads=2,
            stopped="running",
            max_time=0.0,
            accumulate=1,
            compiled=False,
            segments=(SEGMENT,),
        ),
        metric=metric,
        best=metric,
        parameters=6,
        versions={"ddpmctl": "0.1.0"},
        files=files,
    )
    return replace(made, **changes)


def commit(
    writer: ModelWriter,
    step: int = 10,
    *,
    best: bool = True,
    weights: Weights = WEIGHTS,
    history: str = HISTORY,
    state: Weights | None = None,
    **changes: Any,
) -> Path:
    """Commit weights under a manifest with these changes."""
    return writer.save(weights, history, lambda files: manifest(files, step=step, **changes), best=best, state=state)


def rewrite_manifest(commit: Path, values: Mapping[str, Any]) -> None:
    """Put other values into a commit's manifest, sealed, and into the pointers that name it."""
    (commit / "manifest.json").write_text(with_checksum({k: v for k, v in values.items() if k != "checksum"}))
    for pointer in (commit.parent / "best", commit.parent / "last"):
        if pointer.exists() and pointer.read_text().split()[0] == commit.name:
            point(pointer, commit)


def reseal(text: str) -> str:
    """The text of a manifest with the right checksum, where it has a place for one."""
    blank = re.sub(r'("checksum": ")[0-9a-f]{64}("\n}\n)\Z', rf"\g<1>{'0' * 64}\g<2>", text)
    digest = hashlib.sha256(blank.encode()).hexdigest()
    return re.sub(r'("checksum": ")0{64}("\n}\n)\Z', rf"\g<1>{digest}\g<2>", blank)


def point(pointer: Path, commit: Path) -> None:
    """Let a pointer name a commit."""
    checksum = json.loads((commit / "manifest.json").read_text())["checksum"]
    pointer.write_text(f"{commit.name} {checksum}\n")


def register(registry: Registry, name: str, **settings: Any) -> Path:
    """A model of one commit; the settings are those of `commit`."""
    with registry.writer(name, "") as writer:
        return commit(writer, **settings)


def random_weights(config: Config, scale: float = 0.1) -> Weights:
    """Weights for the network of these settings, none of them zero."""
    from ddpmctl.build import build_network

    generator = np.random.default_rng(0)
    return {
        name: (scale * generator.standard_normal(tensor.shape)).astype(np.float32)
        for name, tensor in build_network(config).state_dict().items()
    }


def register_random(registry: Registry, name: str, config: Config, *, scale: float = 0.1, **changes: Any) -> Path:
    """A model of these settings with random weights."""
    return register(registry, name, weights=random_weights(config, scale), config=config, **changes)


class FakeGraphs:
    """Stands in for CUDA graphs on a CPU: as there, a replay repeats the operations of the capture on the same tensors,
    whatever has changed in Python since then, and fills one output, which the capture alone does not.

    Args:
        error: raised by every capture.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.events: list[str] = []

    def run(self, work: "Callable[[], Tensor]") -> "Tensor":
        self.events.append("run")
        return work()

    def capture(self, work: "Callable[[], Tensor]") -> "tuple[Callable[[], None], Tensor]":
        self.events.append("capture")
        if self.error:
            raise self.error
        from torch.fx.experimental.proxy_tensor import make_fx

        kernels = make_fx(lambda: work().clone())()
        output = kernels().fill_(-1)

        def replay() -> None:
            self.events.append("replay")
            output.copy_(kernels())

        return replay, output


@contextmanager
def foreign_defaults() -> Iterator[None]:
    """A program that has set up torch for itself: doubles, on a device that holds nothing, and no gradients."""
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
