"""What is asked of the commands that train, checked, before torch is imported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddpmctl.config import Config
from ddpmctl.errors import UsageError
from ddpmctl.registry import Checkpoint
from ddpmctl.training.saving import Every


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a training is watched.

    Attributes:
        show: whether a curve and images are drawn; None for the usual.
        log: whether it is written down for TensorBoard.
    """

    show: bool | None = None
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked of a training.

    Attributes:
        config: settings; classes and channels follow from the data.
        preset: where they came from.
        dataset: by name.
        data_dir: where it lies, if given.
        device: as in ``--device``.
        precision: as in ``--precision``.
        seed: of everything random.
        name: of the model; None for a generated one.
        force: replace a model of that name.
        max_time: seconds to fit the run into, if any.
        max_steps: to lay it out in, if any.
        fit: how pictures are made squares; empty where all are.
        channels: of the images; None for what they have.
        within_epochs: whether the number of epochs bounds it as well.
        accumulate: parts of a batch.
        compiled: whether to compile the network.
        every: how often to commit; None for the usual.
        watch: what is seen and logged of it.
        by_device: training settings that the preset has for a kind of device, where none of them was given.
        any_sample_size: whether the network may compute at the data set's own side where that is less.
    """

    config: Config
    preset: str
    dataset: str
    data_dir: Path | None
    device: str
    precision: str
    seed: int
    name: str | None
    force: bool
    max_time: float | None
    within_epochs: bool
    max_steps: int | None = None
    fit: str = ""
    channels: int | None = None
    accumulate: int = 1
    compiled: bool = False
    every: Every | None = None
    watch: Watch = Watch()
    by_device: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    any_sample_size: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """What was asked of a training that is to go on.

    Attributes:
        reference: the name of the run, or ``latest``.
        more_epochs: beyond where it is; None for what is left of the plan.
        data_dir: where its data lies, if given.
        device: as in ``--device``; None for the one it had.
        precision: as in ``--precision``; None for the one it had.
        accumulate: parts of a batch; None for as many as it had.
        compiled: whether to compile the network; None for as it was.
        every: how often to commit; None for the usual.
        watch: what is seen and logged of it.
        keeps: settings that were given again, by option: they must be those of the run.
    """

    reference: str
    more_epochs: int | None = None
    data_dir: Path | None = None
    device: str | None = None
    precision: str | None = None
    accumulate: int | None = None
    compiled: bool | None = None
    every: Every | None = None
    watch: Watch = Watch()
    keeps: Mapping[str, Any] = field(default_factory=dict)


PLANNED: dict[str, Callable[[Checkpoint], Any]] = {
    "preset": lambda last: last.manifest.preset,
    "dataset": lambda last: last.manifest.dataset.name,
    "seed": lambda last: last.manifest.run.seed,
    "max-time": lambda last: last.manifest.run.max_time or "none",
    "max-steps": lambda last: last.manifest.run.planned_steps,
    "batch-size": lambda last: last.manifest.config.training.batch_size,
    "lr": lambda last: last.manifest.config.training.lr,
    "clip": lambda last: last.manifest.config.training.clip_norm,
    "patience": lambda last: last.manifest.config.training.patience,
    "timesteps": lambda last: last.manifest.config.diffusion.timesteps,
    "schedule": lambda last: last.manifest.config.diffusion.schedule,
    "target": lambda last: last.manifest.config.diffusion.parameterization,
    "pixel-range": lambda last: "{:g}..{:g}".format(*last.manifest.config.diffusion.pixel_range),
    "norm": lambda last: last.manifest.config.model.norm,
    "flip": lambda last: last.manifest.config.training.flip,
    "fit": lambda last: last.manifest.dataset.fit or "none",
    "channels": lambda last: last.manifest.config.model.channels,
    "image-size": lambda last: str(last.manifest.config.model.image_size),
    "sample-size": lambda last: last.manifest.config.model.sample_size,
    "one-timestep": lambda last: last.manifest.config.training.one_timestep,
    "name": lambda last: last.name,
}
"""What a run goes by, by option: a resumed one cannot change it."""


def see_that_it_keeps(last: Checkpoint, given: Mapping[str, Any]) -> None:
    """Refuse settings that are not those of the run.

    Raises:
        UsageError: naming the first.
    """
    for option, value in given.items():
        planned = PLANNED[option](last)
        if value != planned:
            raise UsageError(
                f"'{last.name}' goes on as it was planned, with --{option} {planned} and not {value}",
                "leave the option out, or begin another training without --resume",
            )
