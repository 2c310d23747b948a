"""Settings of a model: frozen dataclasses that go into its manifest, their choices and ranges, and the presets."""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, NamedTuple, Self, get_args

from ddpmctl.errors import Setting, UsageError
from ddpmctl.parsing import parse

NetworkName = Literal["classic", "unet"]
ScheduleName = Literal["linear", "cosine"]
ParameterizationName = Literal["epsilon", "v", "x0"]
NormName = Literal["group", "batch"]
OptimizerName = Literal["adam", "adamw", "muon"]
PrecisionName = Literal["auto", "fp32", "bf16"]
FitName = Literal["crop", "pad"]
InterpolationName = Literal["nearest", "linear", "cubic", "lanczos"]
PresetName = Literal["standard", "quick", "classic"]

PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
FITS: tuple[str, ...] = get_args(FitName)
PRESETS: tuple[str, ...] = get_args(PresetName)
DEVICES = ("auto", "cpu", "cuda", "mps")
"""Kinds of device; ``cuda:N`` is one of several."""

SAMPLER_STEPS = {"dpmpp": 20, "dpmpp-sde": 20, "ddim": 50, "ddpm": None}
"""The built-in samplers with their default steps; None takes all timesteps."""

PIXEL_RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0)}
IMAGE_SIZES = ("32", "64")


class Range(NamedTuple):
    """Inclusive range of a setting."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def check(self, name: str, value: float) -> None:
        """Raises ValueError for a value out of range."""
        _check(value in self, f"{name} must be in {self}")


IMAGE_SIZE = Range(8, 256)
NUM_CLASSES = Range(1, 10_000)
LEVELS = Range(1, 6)
WIDTH = Range(16, 2048)
BLOCKS = Range(1, 8)
EMBEDDING = Range(4, 2048)
GAUSSIAN_RANK = Range(0, 1024)
GAUSSIAN_CLUSTERS = Range(1, 256)
TIMESTEPS = Range(2, 10_000)
EPOCHS = Range(1, 1_000_000)
STEPS = Range(1, 10**12)
BATCH_SIZE = Range(1, 65_536)
NEWTON_SCHULZ = Range(1, 20)
FRACTION = Range(0, 1)
GUIDANCE = Range(0, 100)
SEED = Range(0, 2**63 - 2)
"""Leaves room for seed + 1 in int64."""

CLASSIC_WIDTHS = (64, 128, 256, 512)
LINEAR_MIN_TIMESTEPS = 50

MIN_BATCHES = 20
"""Minimum batches per epoch for a device-specific batch size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network and the size of its images."""

    network: NetworkName
    image_size: int
    """Side of the images in files and arrays, in pixels."""
    sample_size: int
    """Resolution of the network; samples are resized bilinearly to ``image_size``."""
    channels: int
    """1 for grey, 3 for colour."""
    num_classes: int
    """Without the null class that `unet` adds."""
    widths: tuple[int, ...]
    """Channels per level, highest resolution first."""
    blocks: int
    """Residual blocks per level."""
    patch: int
    """Patch size of the space-to-depth input; 1 for none."""
    embedding: int
    """Width of the timestep embedding and of the class embedding."""
    norm: NormName
    """Normalization layer: GroupNorm or BatchNorm."""
    gaussian_rank: int
    """Principal components per cluster of the Gaussian denoiser that the network corrects; 0 for none."""
    gaussian_clusters: int
    """Clusters per class of the Gaussian denoiser, at most; those of all classes together are the null class."""

    def __post_init__(self) -> None:
        _check(self.channels in (1, 3), "channels must be 1 or 3")
        NUM_CLASSES.check("num_classes", self.num_classes)
        LEVELS.check("the number of widths", len(self.widths))
        _check(all(width in WIDTH and width % 16 == 0 for width in self.widths), "widths must be multiples of 16")
        BLOCKS.check("blocks", self.blocks)
        _check(self.patch in (1, 2, 4), "patch must be 1, 2 or 4")
        _check(self.embedding in EMBEDDING and self.embedding % 2 == 0, f"embedding must be even and in {EMBEDDING}")
        GAUSSIAN_RANK.check("gaussian_rank", self.gaussian_rank)
        GAUSSIAN_CLUSTERS.check("gaussian_clusters", self.gaussian_clusters)
        IMAGE_SIZE.check("image_size", self.image_size)
        smallest = 2 * self.patch * 2 ** (len(self.widths) - 2) if len(self.widths) > 1 else self.patch
        fits = smallest <= self.sample_size <= self.image_size and self.sample_size % self.patch == 0
        _check(fits, f"sample_size must be a multiple of {self.patch} in {smallest}..{self.image_size}")
        if self.network == "classic":
            _check(self.norm == "group", "the classic network supports only GroupNorm")
            _check(self.gaussian_rank == 0, "the classic network has no Gaussian denoiser: its gaussian_rank must be 0")
            sides = (self.image_size, self.sample_size)
            fixed = (self.widths, self.blocks, self.patch, self.embedding, self.num_classes, *sides)
            usual = (CLASSIC_WIDTHS, 1, 1, 256, 10, 32, 32)
            _check(fixed == usual, "the classic network supports only 32x32 images and ten classes")

    @property
    def supports_guidance(self) -> bool:
        """Whether the network has a null class, which classifier-free guidance needs."""
        return self.network != "classic"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionConfig:
    """The diffusion process and what the network predicts."""

    timesteps: int
    schedule: ScheduleName
    parameterization: ParameterizationName
    clip_x0: bool
    """Clamp predicted images to ``pixel_range`` at every sampling step."""
    pixel_range: tuple[float, ...]
    """The values of black and white: -1 and 1 are centred like the noise; 0 and 1 are not."""

    def __post_init__(self) -> None:
        TIMESTEPS.check("timesteps", self.timesteps)
        _check(self.pixel_range in PIXEL_RANGES.values(), "pixel_range must be -1 and 1, or 0 and 1")
        _check(
            self.schedule != "linear" or self.timesteps >= LINEAR_MIN_TIMESTEPS,
            f"a linear schedule needs at least {LINEAR_MIN_TIMESTEPS} timesteps",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Optimization. Lengths are in epochs or in fractions of the whole run, never in seconds."""

    epochs: int
    """Passes over the training images, at most."""
    batch_size: int
    optimizer: OptimizerName
    """`muon` updates the large matrices by Muon and the rest by AdamW."""
    lr: float
    """Peak learning rate."""
    beta2: float
    """Decay of the squared gradient's average; 0.99 reacts faster than Adam's 0.999 and suits short runs."""
    weight_decay: float
    warmup: float
    """Fraction of the run over which the learning rate rises from 0."""
    decay: float
    """Fraction of the run, at its end, over which the learning rate falls to 0."""
    clip_norm: float
    """Gradient clipping norm; 0 disables clipping."""
    ema_lag: float
    """EMA lag as a fraction of the steps so far (mean age of the average); 0 disables the EMA."""
    newton_schulz: int
    """Iterations by which `muon` orthogonalizes a matrix."""
    label_dropout: float
    """Fraction of labels replaced by the null class, for classifier-free guidance."""
    stratified: bool
    """Stratified timesteps: spread evenly over a batch."""
    timestep_focus: tuple[float, ...]
    """Interval of t/T from which a part of the timesteps is drawn; the others are drawn from all."""
    focus_share: float
    """That part; 0 draws all timesteps alike. It excludes unstratified timesteps."""
    one_timestep: bool
    """Use one timestep for all images of a batch (experimental); excludes `stratified`."""
    flip: bool
    """Random horizontal flip; not for digits or letters."""
    validation_images: int
    """Size of the validation split (at most a tenth); 0 selects the best checkpoint by training loss."""
    patience: int
    """Epochs without improvement before early stopping."""

    def __post_init__(self) -> None:
        EPOCHS.check("epochs", self.epochs)
        BATCH_SIZE.check("batch_size", self.batch_size)
        _check(0 < self.lr <= 1, "the learning rate must be in (0, 1]")
        _check(0 <= self.beta2 < 1, "beta2 must be in [0, 1)")
        FRACTION.check("weight_decay", self.weight_decay)
        FRACTION.check("warmup", self.warmup)
        FRACTION.check("decay", self.decay)
        _check(0 <= self.clip_norm < float("inf"), "clip_norm must be finite and at least 0")
        _check(0 <= self.ema_lag < 0.5, "ema_lag must be in [0, 0.5)")
        NEWTON_SCHULZ.check("newton_schulz", self.newton_schulz)
        _check(0 <= self.label_dropout < 1, "label_dropout must be in [0, 1)")
        _check(not (self.stratified and self.one_timestep), "one_timestep and stratified exclude each other")
        low, high = self.timestep_focus if len(self.timestep_focus) == 2 else (1, 0)
        _check(0 <= low < high <= 1, "timestep_focus must be two numbers in 0..1, the lower one first")
        _check(0 <= self.focus_share <= 1, "focus_share must be in [0, 1]")
        _check(self.stratified or self.focus_share == 0, "focus_share needs stratified timesteps")
        _check(self.validation_images >= 0, "validation_images must be at least 0")
        _check(self.patience >= 1, "patience must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How images are sampled; in a manifest, the model's recommendation."""

    sampler: str
    """A key of `SAMPLER_STEPS`, or a sampler of a plugin."""
    steps: int
    guidance: float
    """Classifier-free guidance scale; 1.0 disables guidance."""
    guidance_interval: tuple[float, ...]
    """Interval of t/T in which guidance is applied: 0 is the clean image, 1 is pure noise."""

    def __post_init__(self) -> None:
        _check(self.steps >= 1, "steps must be at least 1")
        _check_guidance(self.guidance, self.guidance_interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedFormConfig:
    """How the chain of a student begins: with steps of the Gaussian denoiser alone, without the network.

    At high noise levels the denoiser is as good as a trained network (measured), and an image is decided there: a step
    from pure noise is the hardest of all to distill (Wang & Vastola 2024, arXiv:2412.09726, skip it in the same way).
    """

    end: float
    """The t/T at which the student takes over."""
    steps: int
    guidance: float
    """Guidance scale of the denoiser."""
    guidance_interval: tuple[float, ...]
    """Interval of t/T in which the denoiser is guided."""

    def __post_init__(self) -> None:
        _check(0 < self.end < 1, "end must be between 0 and 1")
        _check(self.steps >= 1, "steps must be at least 1")
        _check_guidance(self.guidance, self.guidance_interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationConfig:
    """What a distilled model, the student, was trained to repeat in fewer steps."""

    teacher: str
    """Name of the model when the student was trained."""
    digest: str
    """sha256 of the teacher's weights, hexadecimal."""
    steps: int
    """Sampling steps of the student."""
    substeps: int
    """DDIM steps of the teacher for one step of the student."""
    parameterization: ParameterizationName
    """What the teacher predicts."""
    clip_x0: bool
    """Whether the teacher's predicted images are clamped."""
    guidance: float
    """Guidance scale of the teacher, which is built into the student."""
    guidance_interval: tuple[float, ...]
    """Interval of t/T in which the teacher is guided."""
    closed_form: ClosedFormConfig | None = None
    """None for a student whose own steps begin at pure noise."""

    def __post_init__(self) -> None:
        _check(self.steps >= 1 and self.substeps >= 1, "steps and substeps must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one model."""

    model: ModelConfig
    diffusion: DiffusionConfig
    training: TrainingConfig
    sampling: SamplingConfig
    distillation: DistillationConfig | None = None
    """None for a model that was trained on images alone."""

    def __post_init__(self) -> None:
        _check(self.sampling.steps <= self.chain_length, f"steps must be at most {self.chain_length}")
        if self.distillation:
            fine, length = self.distillation.steps * self.distillation.substeps, self.chain_length
            _check(fine <= length, f"steps times substeps must be at most {length}")
            closed_form = self.closed_form
            _check(closed_form is None or self.model.gaussian_rank > 0, "the closed form needs a Gaussian denoiser")
            above = self.diffusion.timesteps - length
            _check(closed_form is None or closed_form.steps <= above, f"the closed form has at most {above} timesteps")
        if not self.model.supports_guidance:
            _check(self.sampling.guidance == 1.0, "the classic network has no null class: its guidance must be 1.0")
            dropout = self.training.label_dropout
            _check(dropout == 0, "the classic network has no null class: its label_dropout must be 0")

    @property
    def chain_length(self) -> int:
        """The timesteps that the network is evaluated at in sampling: all, but for a student that begins below."""
        timesteps = self.diffusion.timesteps
        return round(self.closed_form.end * timesteps) if self.closed_form else timesteps

    @property
    def closed_form(self) -> ClosedFormConfig | None:
        """How the chain of a student begins; None for other models."""
        return self.distillation.closed_form if self.distillation else None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`; see `parse`."""
        return parse(cls, values)


@dataclass(frozen=True, slots=True)
class Preset:
    """Named settings."""

    name: str
    summary: str
    config: Config
    by_device: Mapping[str, Mapping[str, Any]]
    """Training settings that differ on a kind of device (``cuda``), by name."""


def for_device(config: Config, by_device: Mapping[str, Mapping[str, Any]], kind: str, images: int) -> Config:
    """The settings for a kind of device: large batches keep a GPU busy, if there are enough training images."""
    changes = by_device.get(kind, {})
    if not changes or images < MIN_BATCHES * changes.get("batch_size", config.training.batch_size):
        return config
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


def load_preset(name: str) -> Preset:
    """Read a preset of the package."""
    choose("preset", name, PRESETS)
    text = resources.files("ddpmctl").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text)
    summary, by_device = values.pop("summary"), values.pop("device", {})
    return Preset(name, summary, Config.from_dict(values), by_device)


def choose(kind: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is allowed; raises UsageError with the closest allowed value otherwise."""
    names = list(allowed)
    if value in names:
        return value
    close = difflib.get_close_matches(value.lower(), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"one of: {', '.join(names)}"
    word = {"option": "no such", "number of channels": "invalid", "image size": "invalid"}.get(kind, "unknown")
    raise UsageError(f"{word} {kind} '{value}'", hint)


def check_seed(seed: int, count: int = 1) -> None:
    """Raises UsageError unless the ``count`` seeds from ``seed`` on are in range."""
    if seed not in SEED or seed + count - 1 not in SEED:
        raise UsageError(f"the seed {seed} is out of range", Setting("seed"), f" must be in {SEED}")


def _check_guidance(scale: float, interval: tuple[float, ...]) -> None:
    GUIDANCE.check("guidance", scale)
    ordered = len(interval) == 2 and 0 <= interval[0] <= interval[1] <= 1
    _check(ordered, "guidance_interval must be two numbers in 0..1, the lower one first")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
