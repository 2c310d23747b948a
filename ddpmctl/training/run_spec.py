"""The specification of a training run: one frozen value for command line, Python and manifest. No torch."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ddpmctl.config import (
    DEVICES,
    EPOCHS,
    IMAGE_SIZES,
    PIXEL_RANGES,
    PRECISIONS,
    STEPS,
    Config,
    Preset,
    check_seed,
    choose,
    load_preset,
)
from ddpmctl.data import resolve_dataset
from ddpmctl.errors import Command, Setting, UsageError
from ddpmctl.registry import Checkpoint
from ddpmctl.training.intervals import CheckpointInterval

CHANGEABLE = frozenset(
    {"config", "data_dir", "epochs", "device", "precision", "accumulate", "compile", "force", "checkpoint_every"}
)
"""Settings that may be overridden when a run is resumed; all others are fixed by its plan."""

CONFIG_FIELDS = {
    "training": {
        "epochs": "epochs",
        "batch_size": "batch_size",
        "lr": "lr",
        "patience": "patience",
        "clip_norm": "clip",
    },
    "diffusion": {"timesteps": "timesteps", "schedule": "schedule", "parameterization": "target"},
    "model": {"norm": "norm", "gaussian_rank": "gaussian_rank"},
}
"""Fields of `Config` by section, and the settings that replace them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Specification of a training run; None selects the preset's value or the default.

    Attributes:
        config: all settings of the model, in place of the preset's.
        dataset: a name of `data.DATASETS`, ``strokes:COUNT``, ``folder:PATH``, ``arrays:PATH`` or one of a plugin.
        data_dir: the folder that contains the dataset.
        fit: how images are made square: ``crop`` or ``pad``.
        flip: random horizontal flip.
        image_size: side of the images.
        sample_size: resolution of the network.
        epochs: maximum number of epochs; with ``max_time`` or ``max_steps``, the shortest applies.
        max_time: time limit in seconds.
        max_steps: length of the run in optimizer steps.
        lr: peak learning rate.
        clip: gradient clipping norm; 0 disables clipping.
        accumulate: gradient accumulation steps.
        compile: compile the network with ``torch.compile``.
        patience: epochs without improvement before early stopping.
        target: prediction type: ``epsilon``, ``v`` or ``x0``.
        pixel_range: ``-1..1`` or ``0..1``.
        gaussian_rank: components per cluster of the Gaussian denoiser that the network corrects; 0 for none.
        one_timestep: use one timestep for all images of a batch.
        name: of the model; generated from dataset and preset by default.
        force: overwrite a model of that name.
        checkpoint_every: such as ``30s``, ``200steps`` or ``1epoch``.
    """

    preset: str = "standard"
    config: Config | None = None
    dataset: str = "mnist"
    data_dir: Path | None = None
    fit: str | None = None
    channels: int | None = None
    flip: bool = False
    image_size: int | None = None
    sample_size: int | None = None
    epochs: int | None = None
    max_time: float | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    clip: float | None = None
    accumulate: int = 1
    compile: bool = False
    patience: int | None = None
    timesteps: int | None = None
    schedule: str | None = None
    target: str | None = None
    pixel_range: str | None = None
    norm: str | None = None
    gaussian_rank: int | None = None
    one_timestep: bool = False
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    name: str | None = None
    force: bool = False
    checkpoint_every: str | None = None

    def checked(self) -> "RunSpec":
        """This spec with its dataset by its full path; raises a `UsageError` for an invalid value.

        Needs no torch: whatever is wrong is reported before the slow imports.
        """
        check_execution(self.device, self.precision, self.accumulate)
        check_seed(self.seed)
        if self.max_steps is not None and self.max_steps not in STEPS:
            raise UsageError(
                f"max_steps must be in {STEPS}, not {self.max_steps}", "for example ", Setting("max_steps", 1000)
            )
        if self.max_time is not None and not self.max_time > 0:
            raise UsageError(
                f"max_time must be positive, not {self.max_time:g}", "for example ", Setting("max_time", 60)
            )
        self.interval()
        if self.accumulate > 1 and self.resolve_config().model.norm == "batch":
            raise UsageError(
                "BatchNorm would use different statistics with gradient accumulation",
                "omit ", Setting("accumulate"), ", or use ", Setting("norm", "group"),
            )  # fmt: skip
        dataset, fit, channels = resolve_dataset(self.dataset, self.fit, self.channels)
        return replace(self, dataset=dataset, fit=fit or None, channels=channels)

    def interval(self) -> CheckpointInterval:
        """How often the run is saved."""
        return CheckpointInterval.parse(self.checkpoint_every)

    def resolve_preset(self) -> Preset:
        """The preset that the spec is based on."""
        return load_preset(self.preset)

    def resolve_config(self) -> Config:
        """The preset's settings with those of the spec in their place; classes and channels follow from the data."""
        base = self.config or self.resolve_preset().config
        return self._sized(self._changed(base))

    def _changed(self, base: Config) -> Config:
        for kind, allowed in {"pixel range": PIXEL_RANGES, "schedule": ("linear", "cosine"),
                              "target": ("epsilon", "v", "x0"), "norm": ("group", "batch")}.items():  # fmt: skip
            value = getattr(self, kind.replace(" ", "_"))
            if value is not None:
                choose(kind, value, allowed)
        given: dict[str, dict[str, Any]] = {
            section: {field: value for field, name in names.items() if (value := getattr(self, name)) is not None}
            for section, names in CONFIG_FIELDS.items()
        }
        if self.pixel_range is not None:
            given["diffusion"]["pixel_range"] = PIXEL_RANGES[self.pixel_range]
        if self.one_timestep:
            given["training"] |= {"one_timestep": True, "stratified": False, "focus_share": 0.0}
        if self.flip:
            given["training"]["flip"] = True
        try:
            diffusion = replace(base.diffusion, **given["diffusion"])
            full = base.sampling.steps == base.diffusion.timesteps
            steps = diffusion.timesteps if full else min(base.sampling.steps, diffusion.timesteps)
            return replace(
                base,
                model=replace(base.model, **given["model"]),
                diffusion=diffusion,
                training=replace(base.training, **given["training"]),
                sampling=replace(base.sampling, steps=steps),
            )
        except ValueError as error:
            raise UsageError(f"invalid settings: {error}", "ddpmctl train --help") from error

    def _sized(self, config: Config) -> Config:
        """Settings for an image size; doubling it adds a level, so that the bottleneck stays as small."""
        model = config.model
        side = model.image_size
        if self.image_size is not None:
            side = int(choose("image size", str(self.image_size), IMAGE_SIZES))
        widths = model.widths + model.widths[-1:] * (side // model.image_size // 2)
        computed = self.sample_size
        if computed is None:
            computed = model.sample_size if self.image_size is None else side
        try:
            return replace(config, model=replace(model, image_size=side, sample_size=computed, widths=widths))
        except ValueError as error:
            raise UsageError(f"invalid settings: {error}", Setting("preset", "standard"), " or quick") from error

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "RunSpec":
        """The spec of a stored run, with all settings of its plan."""
        manifest = checkpoint.manifest
        model, diffusion, training = manifest.config.model, manifest.config.diffusion, manifest.config.training
        run, resume = manifest.run, manifest.resume
        ranges = {limits: name for name, limits in PIXEL_RANGES.items()}
        return cls(
            preset=manifest.preset,
            config=manifest.config,
            dataset=manifest.dataset.name,
            fit=manifest.dataset.fit or None,
            channels=model.channels,
            flip=training.flip,
            image_size=model.image_size,
            sample_size=model.sample_size,
            epochs=training.epochs if resume and resume.within_epochs else None,
            max_time=run.max_time or None,
            max_steps=run.planned_steps,
            batch_size=training.batch_size,
            lr=training.lr,
            clip=training.clip_norm,
            accumulate=run.accumulate,
            compile=run.compiled,
            patience=training.patience,
            timesteps=diffusion.timesteps,
            schedule=diffusion.schedule,
            target=diffusion.parameterization,
            pixel_range=ranges[diffusion.pixel_range],  # type: ignore[index]
            norm=model.norm,
            gaussian_rank=model.gaussian_rank,
            one_timestep=training.one_timestep,
            device=resume.device if resume else "auto",
            precision=run.precision,
            seed=run.seed,
            name=checkpoint.name,
        )

    def overridden(self, overrides: Mapping[str, Any]) -> "RunSpec":
        """This stored spec with new settings; raises a `UsageError` for one that a resumed run cannot change."""
        if "force" in overrides:
            raise UsageError("resume and force are mutually exclusive", "use only one of them")
        unknown = overrides.keys() - {field.name for field in fields(self)}
        if unknown:
            raise UsageError(f"unknown setting '{min(unknown)}'", "the settings are the fields of RunSpec")
        for name, value in overrides.items():
            planned = getattr(self, name)
            if name not in CHANGEABLE and value != planned:
                raise UsageError(
                    f"cannot change {name.replace('_', ' ')} of '{self.name}' from {_shown(planned)} "
                    f"to {_shown(value)} on resume",
                    "omit ", Setting(name), ", or train a new model",
                )  # fmt: skip
        check_execution(
            overrides.get("device", "auto"), overrides.get("precision", "auto"), overrides.get("accumulate", 1)
        )
        epochs = overrides.get("epochs")
        if epochs is not None and epochs not in EPOCHS:
            raise UsageError(f"epochs must be in {EPOCHS}, not {epochs}", "for example ", Setting("epochs", 1))
        return replace(self, **{name: value for name, value in overrides.items() if name != "epochs"})

    def to_argv(self) -> list[str]:
        """The command line that trains it: ``ddpmctl train`` with every setting that is not the default."""
        argv = ["ddpmctl", "train"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "config" and value != field.default:
                argv += option(field.name, value)
        return argv


def option(name: str, value: object) -> list[str]:
    """A setting as an option of ``ddpmctl train``."""
    word = "--" + name.replace("_", "-")
    if value is True:
        return [word]
    return [word, f"{value:g}s" if name == "max_time" else f"{value:g}" if isinstance(value, float) else str(value)]


def resume_command(name: str, **overrides: object) -> Command:
    """How a run is resumed, for hints."""
    argv = ["ddpmctl", "train", "--resume", name]
    for setting, value in overrides.items():
        argv += option(setting, value)
    arguments = "".join(f", {setting}={value!r}" for setting, value in overrides.items())
    return Command(shlex.join(argv), f"ddpmctl.resume({name!r}{arguments})")


def check_execution(device: str, precision: str, accumulate: int) -> None:
    """Raise a `UsageError` for a device, a precision or a number of accumulation steps that is invalid."""
    choose("device", device.partition(":")[0], DEVICES)
    choose("precision", precision, PRECISIONS)
    if accumulate < 1:
        raise UsageError(f"accumulate must be at least 1, not {accumulate}", Setting("accumulate", 1), " or more")


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
