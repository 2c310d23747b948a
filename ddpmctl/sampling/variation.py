"""How sampling may differ from one class and pure noise: mixed classes, a picture, noise between two seeds.

Does not import torch.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ddpmctl.config import check_seed
from ddpmctl.errors import DataError, Setting, UsageError
from ddpmctl.labels import resolve_label
from ddpmctl.registry import Checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ddpmctl.imaging.drawing import Drawing
    from ddpmctl.imaging.provenance import PictureRecord

Mix = tuple[tuple[int, float], ...]
"""Further classes by index, with their weights; the class of an image has the rest."""


@dataclass(frozen=True, slots=True)
class Start:
    """A picture that images are edited from (SDEdit, Meng et al. 2022, arXiv:2108.01073).

    Attributes:
        record: file, strength and preparation.
        drawing: the prepared picture, at the resolution of the network.
        mask: bool[S,S], true where the picture may change (RePaint, Lugmayr et al. 2022); None changes it everywhere.
    """

    record: "PictureRecord"
    drawing: "Drawing" = field(compare=False)
    mask: "NDArray[np.bool_] | None" = field(default=None, compare=False)

    @classmethod
    def read(
        cls,
        checkpoint: Checkpoint,
        path: Path,
        strength: float,
        fit: str | None = None,
        *,
        invert: bool | None = None,
        mask: Path | None = None,
    ) -> Self:
        """Prepare a picture for a model; see `model_images.prepare_for_model`.

        Args:
            strength: in (0, 1]: the picture is noised to this fraction of the timesteps; 1 leaves nothing of it.
            mask: a picture that is white where ``path`` changes and black where it is kept: of the same size, or of the
                resolution of the network.
        """
        from ddpmctl.imaging.provenance import PictureRecord
        from ddpmctl.model_images import default_fit, prepare_for_model

        if not 0 < strength <= 1:
            raise UsageError(f"the strength {strength:g} is out of range", Setting("strength", "0.6"), " or up to 1")
        manifest = checkpoint.manifest
        fit = fit or default_fit(manifest)
        drawing = prepare_for_model(manifest, path, fit, invert=invert)
        changes = _read_mask(mask, drawing, manifest.config.model.sample_size) if mask else None
        record = PictureRecord(
            file=str(path),
            digest=file_digest(path),
            strength=strength,
            fit=fit,
            inverted=drawing.inverted,
            mask=str(mask) if mask else "",
            mask_digest=file_digest(mask) if mask else "",
        )
        return cls(record, drawing, changes)


@dataclass(frozen=True, slots=True)
class Between:
    """Initial noise between that of two seeds, by spherical interpolation.

    Attributes:
        seeds: of fraction 0 and of fraction 1.
        fractions: one per image, in 0..1.
    """

    seeds: tuple[int, int]
    fractions: tuple[float, ...]

    def __post_init__(self) -> None:
        for seed in self.seeds:
            check_seed(seed)

    @classmethod
    def spread(cls, seeds: tuple[int, int], count: int, repeat: int = 1) -> Self:
        """``count`` evenly spaced fractions from 0 to 1, each ``repeat`` times in a row."""
        return cls(seeds, tuple(k / max(1, count - 1) for k in range(count) for _ in range(repeat)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """What is added to a request for images of one class from pure noise."""

    mix: Mix = ()
    start: Start | None = None
    between: Between | None = None

    def __post_init__(self) -> None:
        weights = [weight for _, weight in self.mix]
        if not all(0 <= weight <= 1 for weight in weights) or sum(weights) > 1 + 1e-9:
            given = ", ".join(f"{weight:g}" for weight in weights)
            raise UsageError(
                f"mix weights must be in 0..1 and sum to at most 1, not {given}",
                "the label of the image has the rest: ", Setting("mix", "8:0.5"),
            )  # fmt: skip

    def slice(self, start: int, count: int) -> Self:
        """The variation of some of the images."""
        if self.between is None:
            return self
        return replace(self, between=replace(self.between, fractions=self.between.fractions[start : start + count]))


PLAIN = Variation()
"""Images of one class from pure noise."""


def parse_mix(texts: Sequence[str], classes: tuple[str, ...]) -> Mix:
    """Labels with weights, such as ``8:0.5`` or ``eight:0.5``."""
    mix = []
    for text in texts:
        label, _, number = text.rpartition(":")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not label or math.isnan(weight):
            raise UsageError(f"'{text}' is not a label and a weight", Setting("mix", "8:0.5"))
        mix.append((resolve_label(label, classes), weight))
    return tuple(mix)


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_mask(path: Path, drawing: "Drawing", size: int) -> "NDArray[np.bool_]":
    """Where the picture may change, placed as the picture was: bool[size,size]."""
    import numpy as np
    from PIL import Image

    from ddpmctl.imaging.drawing import open_picture

    opened = open_picture(path)
    if opened.has_transparency_data:
        opened = Image.alpha_composite(Image.new("RGBA", opened.size, "black"), opened.convert("RGBA"))
    grey = opened.convert("L")
    if opened.size == drawing.picture_size:
        changes = drawing.cut(grey, size) > 127
    elif opened.size == (size, size):
        changes = np.asarray(grey) > 127
    else:
        sizes = " x ".join(map(str, opened.size)), " x ".join(map(str, drawing.picture_size))
        raise DataError(
            f"the mask {path} has {sizes[0]} pixels, and the picture {sizes[1]}",
            "paint the mask on a copy of the picture: white changes, black is kept",
        )
    if not changes.any():
        raise DataError(f"the mask {path} keeps everything", "paint white what should change")
    return np.asarray(changes)
