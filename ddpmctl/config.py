"""Every setting of a model, as frozen values that go into its manifest, and the presets that name good ones."""

import dataclasses
import difflib
import math
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, Self

from ddpmctl.errors import UsageError
from ddpmctl.labels import is_displayable

Network = Literal["classic", "unet"]
ScheduleName = Literal["linear", "cosine"]
TargetName = Literal["epsilon", "v", "x0"]
Norm = Literal["group", "batch"]

PIXEL_RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0)}

IMAGE_SIZES = ("32", "64")
FITS = ("crop", "pad")

MOST_EPOCHS = 1_000_000
FEWEST_BATCHES = 20
"""Of an epoch, for a device's larger batch to be taken."""

MOST_STEPS = 10**12

CLASSIC_WIDTHS = (64, 128, 256, 512)
LINEAR_MIN_TIMESTEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network and the images it makes."""

    network: Network
    image_size: int
    """Side of the images in files and arrays, in pixels."""
    sample_size: int
    """Side of the images that the network sees and predicts; samples are resized bilinearly to ``image_size``."""
    channels: int
    """1 for grey, 3 for colour."""
    num_classes: int
    """How many labels; `unet` adds a null one."""
    widths: tuple[int, ...]
    """Channels a level, finest first."""
    blocks: int
    """Residual blocks a level."""
    patch: int
    """Side of the squares that the stem folds into channels; 1 folds nothing."""
    embedding: int
    """Width of the time and of the label embedding."""
    norm: Norm
    """What normalises: GroupNorm each image by itself, BatchNorm all images of a batch together."""

    def __post_init__(self) -> None:
        _check(self.channels in (1, 3), "channels is 1 or 3")
        _check(1 <= self.num_classes <= 10_000, "num_classes lies in 1..10000")
        _check(1 <= len(self.widths) <= 6, "widths names 1 to 6 levels")
        _check(all(16 <= width <= 2048 and width % 16 == 0 for width in self.widths), "widths are multiples of 16")
        _check(1 <= self.blocks <= 8, "blocks lies in 1..8")
        _check(self.patch in (1, 2, 4), "patch is 1, 2 or 4")
        _check(4 <= self.embedding <= 2048 and self.embedding % 2 == 0, "embedding is even, in 4..2048")
        _check(8 <= self.image_size <= 256, "image_size lies in 8..256")
        smallest = 2 * self.patch * 2 ** (len(self.widths) - 2) if len(self.widths) > 1 else self.patch
        fits = smallest <= self.sample_size <= self.image_size and self.sample_size % self.patch == 0
        _check(fits, f"sample_size is a multiple of {self.patch} in {smallest}..{self.image_size}")
        if self.network == "classic":
            _check(self.norm == "group", "the classic network has GroupNorm")
            sides = (self.image_size, self.sample_size)
            fixed = (self.widths, self.blocks, self.patch, self.embedding, self.num_classes, *sides)
            _check(fixed == (CLASSIC_WIDTHS, 1, 1, 256, 10, 32, 32), "the classic network has one size and ten classes")

    @property
    def guidable(self) -> bool:
        """Whether the network has a null class to be guided away from."""
        return self.network != "classic"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionConfig:
    """The Markov chain and what the network says about it."""

    timesteps: int
    schedule: ScheduleName
    parameterization: TargetName
    clip_x0: bool
    """Keep predicted images in the range of the pixels at every step of a chain."""
    pixel_range: tuple[float, ...]
    """What black and white are in the chain: -1 and 1, centred like the noise; 0 and 1 are not."""

    def __post_init__(self) -> None:
        _check(2 <= self.timesteps <= 10_000, "timesteps lies in 2..10000")
        _check(self.pixel_range in PIXEL_RANGES.values(), "pixel_range is -1 and 1, or 0 and 1")
        _check(
            self.schedule != "linear" or self.timesteps >= LINEAR_MIN_TIMESTEPS,
            f"a linear schedule needs at least {LINEAR_MIN_TIMESTEPS} timesteps",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How the weights are found. Lengths are in epochs or in shares of the whole run, never in seconds."""

    epochs: int
    """At most this many passes over the training images."""
    batch_size: int
    optimizer: Literal["adam", "adamw", "muon"]
    """`muon` moves the large matrices by Muon and the rest by AdamW."""
    lr: float
    """Peak learning rate."""
    beta2: float
    """Decay of the squared gradient's average; 0.99 reacts faster than Adam's 0.999 and suits short runs."""
    weight_decay: float
    warmup: float
    """Share of the run over which the rate rises from 0."""
    decay: float
    """Share of the run, at its end, over which the rate falls to 0."""
    clip_norm: float
    """Largest gradient norm; 0 for no limit."""
    ema_lag: float
    """How far the averaged weights lag behind, as a share of the steps so far; 0 for no average."""
    newton_schulz: int
    """Steps by which `muon` makes a matrix orthogonal; others have no use for it."""
    label_dropout: float
    """Share of labels replaced by the null one, so that samples can be guided."""
    stratified: bool
    """Spread the timesteps of a batch evenly over the chain."""
    one_timestep: bool
    """Give all images of a batch the same timestep: an experiment, which `stratified` excludes."""
    flip: bool
    """Mirror half of the images from left to right, each time others; digits and letters must not be."""
    validation_images: int
    """Images kept out of training to judge it by, a tenth of a small set at most; 0 judges by the training MSE."""
    patience: int
    """Epochs without a better MSE before training stops."""

    def __post_init__(self) -> None:
        _check(1 <= self.epochs <= MOST_EPOCHS, f"epochs lies in 1..{MOST_EPOCHS}")
        _check(1 <= self.batch_size <= 65_536, "batch size lies in 1..65536")
        _check(0 < self.lr <= 1, "the learning rate lies in (0, 1]")
        _check(0 <= self.beta2 < 1, "beta2 lies in [0, 1)")
        _check(0 <= self.weight_decay <= 1, "weight_decay lies in [0, 1]")
        _check(0 <= self.warmup <= 1 and 0 <= self.decay <= 1, "warmup and decay lie in [0, 1]")
        _check(0 <= self.clip_norm < math.inf, "clip_norm is at least 0, and finite")
        _check(0 <= self.ema_lag < 0.5, "ema_lag lies in [0, 0.5)")
        _check(1 <= self.newton_schulz <= 20, "newton_schulz lies in 1..20")
        _check(0 <= self.label_dropout < 1, "label_dropout lies in [0, 1)")
        _check(not (self.stratified and self.one_timestep), "one_timestep and stratified exclude each other")
        _check(self.validation_images >= 0, "validation_images is at least 0")
        _check(self.patience >= 1, "patience is at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """The recommended way to make images with a model."""

    sampler: str
    """A key of `core.samplers.SAMPLERS`, or one that a plugin adds."""
    steps: int
    guidance: float
    """1.0 is none; above it labels are exaggerated."""
    guidance_interval: tuple[float, ...]
    """Where along the chain guidance acts, from and to: 0 is the image, 1 is the noise."""

    def __post_init__(self) -> None:
        _check(self.steps >= 1, "steps is at least 1")
        _check(0 <= self.guidance <= 100, "guidance lies in 0..100")
        interval = self.guidance_interval
        ordered = len(interval) == 2 and 0 <= interval[0] <= interval[1] <= 1
        _check(ordered, "guidance_interval holds two numbers in 0..1, the lower one first")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one model."""

    model: ModelConfig
    diffusion: DiffusionConfig
    training: TrainingConfig
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        _check(self.sampling.steps <= self.diffusion.timesteps, "steps is at most timesteps")
        if not self.model.guidable:
            _check(self.sampling.guidance == 1.0, "the classic network has no null class: its guidance is 1.0")
            _check(self.training.label_dropout == 0, "the classic network has no null class: its label_dropout is 0")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`, strictly: every field present, no other, each of its type and in range.

        Raises:
            ValueError: naming the field that does not fit.
        """
        return typing.cast(Self, build(cls, values, ""))


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of settings."""

    name: str
    summary: str
    config: Config
    by_device: Mapping[str, Mapping[str, Any]]
    """Training settings that differ on a kind of device (``cuda``), by name."""


def for_device(config: Config, by_device: Mapping[str, Mapping[str, Any]], kind: str, images: int) -> Config:
    """The settings for a kind of device: large batches keep a GPU busy, where a data set has enough images for them.

    Args:
        config: the usual settings.
        by_device: as in `Preset`.
        kind: ``cpu``, ``cuda`` or ``mps``.
        images: how many there are to train on.
    """
    changes = by_device.get(kind, {})
    if not changes or images < FEWEST_BATCHES * changes.get("batch_size", config.training.batch_size):
        return config
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


SAMPLER_STEPS = {"dpmpp": 20, "dpmpp-sde": 20, "ddim": 50, "ddpm": None}
"""The built-in samplers, with the steps each takes unless told otherwise; None is the full chain."""

STRIP_STEPS = 12
"""Of the sampler, for the strips of small images that a training draws: enough to see what it is."""

PRECISIONS = ("auto", "fp32", "bf16")

PRESETS = ("standard", "quick", "classic")


def strip_sampling(config: "Config") -> SamplingConfig:
    """The way to make the strips that a training draws: few steps, and no guidance, which would cost twice as much."""
    steps = min(STRIP_STEPS, config.diffusion.timesteps)
    return SamplingConfig(sampler="dpmpp", steps=steps, guidance=1.0, guidance_interval=(0.0, 1.0))


def load_preset(name: str) -> Preset:
    """Read a preset by name.

    Raises:
        UsageError: for a name that is not one.
    """
    choose("preset", name, PRESETS)
    text = resources.files("ddpmctl").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text)
    summary, by_device = values.pop("summary"), values.pop("device", {})
    return Preset(name, summary, Config.from_dict(values), by_device)


def choose(kind: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is allowed, else say which one was probably meant.

    Raises:
        UsageError: for a value that is not allowed.
    """
    names = list(allowed)
    if value in names:
        return value
    close = difflib.get_close_matches(value.lower(), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"one of: {', '.join(names)}"
    raise UsageError(f"there is no {kind} '{value}'", hint)


def build(kind: Any, values: Any, where: str) -> Any:
    """Turn plain values into a frozen dataclass (or a field of one), refusing whatever does not match exactly.

    Args:
        kind: the type to build: a dataclass, a Literal, ``tuple[X, ...]``, ``dict[str, X]``, ``X | None`` or a plain
            type.
        values: what JSON or TOML gave.
        where: dotted name for messages, empty at the top.

    Raises:
        ValueError: naming the field that does not fit.
    """
    if dataclasses.is_dataclass(kind):
        return _build_table(kind, values, where)
    origin = typing.get_origin(kind)
    if origin is Literal:
        allowed = typing.get_args(kind)
        _check(values in allowed, f"{where} is one of {', '.join(map(str, allowed))}")
        return values
    if origin is tuple:
        _check(isinstance(values, list | tuple), f"{where} is a list")
        return tuple(build(typing.get_args(kind)[0], value, where) for value in values)
    if origin is types.UnionType:
        (inner,) = (given for given in typing.get_args(kind) if given is not types.NoneType)
        return None if values is None else build(inner, values, where)
    if origin is dict:
        _check(isinstance(values, Mapping), f"{where} is a table")
        inner = typing.get_args(kind)[1]
        return {build(str, name, where): build(inner, value, f"{where}.{name}") for name, value in values.items()}
    if kind is float and type(values) in (int, float):
        _check(abs(values) <= sys.float_info.max, f"{where} is finite")
        values = float(values)
    # `type(..) is` and not isinstance: a bool is no int here.
    _check(type(values) is kind, f"{where} is of type {kind.__name__}")
    # Whatever is read from a file may be printed: no text in it may move the cursor.
    _check(kind is not str or is_displayable(values), f"{where} holds characters that cannot be displayed")
    return values


def _build_table(kind: Any, values: Any, where: str) -> Any:
    """A dataclass from a table with exactly its fields."""
    _check(isinstance(values, Mapping), f"{where or 'config'} is a table")
    hints = typing.get_type_hints(kind)
    _check(all(map(is_displayable, values)), f"{where or 'config'} holds characters that cannot be displayed")
    unknown, missing = values.keys() - hints.keys(), hints.keys() - values.keys()
    _check(not unknown, f"{where or 'config'} has unknown settings: {', '.join(sorted(unknown))}")
    _check(not missing, f"{where or 'config'} lacks settings: {', '.join(sorted(missing))}")
    prefix = f"{where}." if where else ""
    return kind(**{name: build(hint, values[name], prefix + name) for name, hint in hints.items()})


def resolve_sampling(
    config: Config,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, ...] | None = None,
    extra_samplers: Iterable[str] = (),
) -> SamplingConfig:
    """The way to sample a model: what it recommends, except for what is asked for.

    Args:
        config: the model's settings.
        sampler: a built-in one or one of ``extra_samplers``.
        steps: in 1..timesteps; when only the sampler is given, as many as suit it.
        guidance: 1.0 is none.
        guidance_interval: where along the chain it acts, from and to in 0..1.
        extra_samplers: names that plugins add.

    Raises:
        UsageError: for what this model cannot do.
    """
    recommended, timesteps = config.sampling, config.diffusion.timesteps
    name = choose("sampler", sampler or recommended.sampler, [*SAMPLER_STEPS, *extra_samplers])
    if steps is None:
        usual = recommended.steps if name == recommended.sampler else SAMPLER_STEPS.get(name)
        steps = min(usual or timesteps, timesteps)
    if not 1 <= steps <= timesteps:
        raise UsageError(
            f"{steps} steps are not possible: this model's chain has {timesteps}", f"--steps 1..{timesteps}"
        )
    scale = recommended.guidance if guidance is None else guidance
    if scale != 1.0 and not config.model.guidable:
        raise UsageError("this model has no null class and cannot be guided", "--guidance 1.0, or leave it out")
    if not 0 <= scale <= 100:
        raise UsageError(f"a guidance of {scale:g} is out of range", "--guidance 0..100; 1.0 is none")
    acts = recommended.guidance_interval if guidance_interval is None else guidance_interval
    try:
        return SamplingConfig(sampler=name, steps=steps, guidance=scale, guidance_interval=acts)
    except ValueError as error:
        raise UsageError(f"guidance cannot act there: {error}", "--guidance-interval 0.3:0.85") from error


def _check(true: bool, rule: str) -> None:
    if not true:
        raise ValueError(rule)
