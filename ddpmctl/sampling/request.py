"""A request for images of a model: everything that determines their pixels. Does not import torch."""

import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self, SupportsIndex, TypedDict, Unpack, cast

from ddpmctl import plugins
from ddpmctl.config import PRECISIONS, SamplingConfig, check_seed, choose
from ddpmctl.errors import Setting, UsageError
from ddpmctl.labels import resolve_label, resolves_to_index, typed_label
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.settings import resolve_sampling
from ddpmctl.sampling.variation import PLAIN, Variation

log = logging.getLogger("ddpmctl")

Labels = Iterable[SupportsIndex | str]

STOCHASTIC = ("ddpm", "dpmpp-sde")
"""Built-in samplers that draw noise in each step."""

_SHORT_OPTIONS = {"count": "-n", "output": "-o"}


class SamplingSettings(TypedDict, total=False):
    """Overrides of the recommended sampling of a model; None keeps the recommendation.

    ``sampler`` is a built-in one (``ddpm``, ``ddim``, ``dpmpp``, ``dpmpp-sde``) or a plugin's. A ``guidance`` of 1.0
    disables it; ``guidance_interval`` is the interval of t/T in which it is applied, 0 the image and 1 the noise.
    """

    sampler: str | None
    steps: int | None
    guidance: float | None
    guidance_interval: tuple[float, ...] | None


class SamplingOptions(SamplingSettings, total=False):
    """`SamplingSettings`, and a mix of classes, a picture to edit, or interpolated noise."""

    variation: Variation


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRequest:
    """Images of a model. Image ``k`` shows class ``labels[k]`` and draws all its noise from ``seed + k``.

    Attributes:
        labels: class indices.
        sampling: sampler, steps, guidance and its interval of t/T, complete.
        device: ``auto`` until an engine resolves it; likewise ``precision``.
        batch_size: maximum number of images sampled together; None depends on the device.
        variation: a mix of classes, a picture that is edited, or interpolated noise.
    """

    checkpoint: Checkpoint
    labels: tuple[int, ...]
    sampling: SamplingConfig
    seed: int
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    variation: Variation = PLAIN

    def __post_init__(self) -> None:
        choose("precision", self.precision, PRECISIONS)
        check_seed(self.seed, max(1, len(self.labels)))
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}", Setting("batch_size", 1))

    @classmethod
    def resolve(
        cls,
        checkpoint: Checkpoint,
        labels: Labels = (),
        *,
        seed: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        variation: Variation = PLAIN,
        **options: Unpack[SamplingSettings],
    ) -> Self:
        """Complete and check a request.

        Args:
            labels: indices (Python or NumPy integers, also as an array) or class names; ``1`` is the class with index
                1, ``"1"`` the class named 1.
            seed: in 0..2^63-1; drawn when None.

        Raises:
            UsageError: for labels and settings that this model does not support.
        """
        if isinstance(labels, str):
            raise UsageError(f"labels must be a sequence, not the string '{labels}'", f"engine.generate(['{labels}'])")
        config, extra = checkpoint.manifest.config, plugins.available(plugins.SAMPLERS)
        if variation.between:
            options |= {"sampler": _deterministic(options.get("sampler"), config.sampling.sampler)}
        return cls(
            checkpoint=checkpoint,
            sampling=resolve_sampling(config, **options, extra_samplers=extra),
            labels=tuple(_indices(list(labels), checkpoint.manifest.classes)),
            seed=secrets.randbelow(2**31) if seed is None else seed,
            device=device,
            precision=precision,
            batch_size=batch_size,
            variation=variation,
        )

    def slice(self, start: int, count: int = 1) -> Self:
        """Some of these images as a new request with the same batch size."""
        labels, variation = self.labels[start : start + count], self.variation.slice(start, count)
        # Interpolated images have one seed, that of the first end.
        seed = self.seed if self.variation.between else self.seed + start
        return replace(self, labels=labels, seed=seed, variation=variation)

    @property
    def seeds(self) -> Sequence[int]:
        """The seed of each image."""
        count = len(self.labels)
        return [self.seed] * count if self.variation.between else range(self.seed, self.seed + count)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, one per image."""
        return tuple(self.checkpoint.manifest.classes[label] for label in self.labels)

    @property
    def options(self) -> SamplingSettings:
        """Its sampling as the options of another request."""
        return cast(SamplingSettings, asdict(self.sampling))

    @property
    def device_type(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.device.partition(":")[0]

    def to_dict(self) -> dict[str, object]:
        """Model, seed, sampling, device, precision and variation as plain values for JSON."""
        model = {"model": self.checkpoint.name, "digest": self.checkpoint.digest, "seed": self.seed}
        mix, start, between = self.variation.mix, self.variation.start, self.variation.between
        varied: dict[str, object] = (
            {"mix": [{"label": label, "weight": weight} for label, weight in mix]} if mix else {}
        )
        varied |= {"picture": asdict(start.record)} if start else {}
        varied |= {"between": list(between.seeds)} if between else {}
        return {**model, **asdict(self.sampling), "device": self.device, "precision": self.precision, **varied}

    def to_argv(self, command: str, *, upscale: int | None = None, **settings: object) -> list[str]:
        """A command line that reproduces this request.

        Args:
            command: ``generate`` and ``animate`` take the labels, ``evaluate`` takes the model as its argument.
            settings: further options of the command; see `command_line`.
        """
        sampling, positional = self.sampling, command == "evaluate"
        model, names = public_name(self.checkpoint), self.checkpoint.manifest.classes
        if self.variation.start and command == "generate":
            command = "edit"
        labels = self.labels[:1] if command == "animate" else self.labels  # interpolated frames share their label
        arguments = [typed_label(k, names) for k in labels] if command in ("generate", "animate") else []
        if self.variation.start and command == "edit":
            arguments = [self.variation.start.record.file]
        guided = sampling.guidance != 1.0
        return command_line(
            command,
            *([model] if positional else arguments),
            **self._varied(command),
            **settings,
            model=None if positional else model,
            seed=None if self.variation.between else self.seed,
            sampler=sampling.sampler,
            steps=sampling.steps,
            guidance=sampling.guidance,
            guidance_interval="{:g}:{:g}".format(*sampling.guidance_interval) if guided else None,
            device=self.device_type,
            precision=self.precision,
            upscale=upscale,
        )

    def _varied(self, command: str) -> dict[str, object]:
        """The options of the variation."""
        names, start = self.checkpoint.manifest.classes, self.variation.start
        varied: dict[str, object] = {
            "mix": [f"{typed_label(label, names)}:{weight!r}" for label, weight in self.variation.mix],
            "between": self.variation.between.seeds if self.variation.between else None,
        }
        if start is None:
            return varied
        record, edits = start.record, command == "edit"
        return {
            **({"label": typed_label(self.labels[0], names)} if edits else {"from": record.file}),
            "count": len(self.labels) if edits and len(self.labels) > 1 else None,
            "strength": repr(record.strength),
            "fit": record.fit,
            "invert" if record.inverted else "no_invert": True,
            "mask": record.mask or None,
            **varied,
        }


def _deterministic(requested: str | None, recommended: str) -> str:
    """The sampler of interpolated images, which change smoothly only without noise of their own."""
    if requested in STOCHASTIC:
        raise UsageError(
            f"the sampler {requested} draws noise in each step, and interpolation needs one that does not",
            Setting("sampler", "dpmpp"), " or ", Setting("sampler", "ddim"),
        )  # fmt: skip
    if requested is None and recommended in STOCHASTIC:
        log.info(f"the model's own sampler {recommended} draws noise in each step: using dpmpp")
        return "dpmpp"
    return requested or recommended


def check_timesteps(checkpoint: Checkpoint, timesteps: Sequence[int]) -> None:
    """Check that a model has these timesteps."""
    length = checkpoint.manifest.config.diffusion.timesteps
    for t in timesteps:
        if not 0 <= t < length:
            message = f"timestep {t} is out of range: this model has {length} timesteps"
            raise UsageError(message, Setting("at", f"0..{length - 1}"))


def _indices(labels: list[SupportsIndex | str], classes: tuple[str, ...]) -> Iterator[int]:
    # Requests repeat a label a million times: each name is looked up once.
    indices: dict[str, int] = {}
    for text in dict.fromkeys(label for label in labels if isinstance(label, str)):
        index = indices[text] = resolve_label(text, classes)
        if resolves_to_index(text, classes):
            log.info(f"no class is named '{text}': using index {index} (class '{classes[index]}')")
    for label in labels:
        yield indices[label] if isinstance(label, str) else resolve_label(label, classes)


def command_line(command: str, *arguments: object, **settings: object) -> list[str]:
    """The words of a ``ddpmctl`` command.

    None is omitted, True is a flag, a list repeats the option, a tuple is several words after it.
    """
    words = ["ddpmctl", command, *map(str, arguments)]
    for name, setting in settings.items():
        option = _SHORT_OPTIONS.get(name, f"--{name.replace('_', '-')}")
        for value in setting if isinstance(setting, list) else [setting]:
            if value is True:
                words.append(option)
            elif isinstance(value, tuple):
                words += [option, *map(str, value)]
            elif value is not None:
                words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def public_name(checkpoint: Checkpoint) -> str:
    """The name of a model without its folder."""
    return checkpoint.path.parent.name if Path(checkpoint.name).is_absolute() else checkpoint.name
