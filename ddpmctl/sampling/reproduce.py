"""Provenance of generated images, and their reproduction."""

import shlex
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, Unpack

import numpy as np
from PIL import Image

from ddpmctl.errors import CheckpointError, DataError, Setting, UsageError
from ddpmctl.imaging.provenance import Kind, Provenance, read_provenance
from ddpmctl.imaging.upscale import Images
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.sampling.request import Labels, SamplingOptions, SamplingRequest, SamplingSettings, public_name
from ddpmctl.sampling.variation import PLAIN, Start, Variation, file_digest
from ddpmctl.versions import versions


def build_provenance(
    request: SamplingRequest,
    kind: Kind,
    argv: list[str],
    *,
    upscale: int = 1,
    interpolation: str = "cubic",
) -> Provenance:
    """The provenance of an image file.

    Args:
        request: resolved by an engine.
        kind: an archive of ``images`` contains its labels itself.
        argv: the command line that reproduces it, as from `SamplingRequest.to_argv`.
    """
    shown = () if kind == "images" else request.labels
    sampling, variation = request.sampling, request.variation
    return Provenance(
        kind=kind,
        model=public_name(request.checkpoint),
        digest=request.checkpoint.digest,
        labels=shown,
        classes=request.classes if shown else (),
        seed=request.seed,
        sampler=sampling.sampler,
        steps=sampling.steps,
        guidance=sampling.guidance,
        guidance_interval=sampling.guidance_interval,
        device=request.device_type,
        precision=request.precision,
        batch=request.batch_size or 1,
        upscale=upscale,
        interpolation=interpolation,
        command=shlex.join(argv),
        versions=versions(),
        mix=variation.mix,
        picture=variation.start.record if variation.start else None,
        between=variation.between.seeds if variation.between else None,
    )


def recorded_options(provenance: Provenance) -> SamplingSettings:
    """The sampling of an image as the options of a request."""
    return {
        "sampler": provenance.sampler,
        "steps": provenance.steps,
        "guidance": provenance.guidance,
        "guidance_interval": provenance.guidance_interval,
    }


def find_model(provenance: Provenance) -> Checkpoint | None:
    """The model that generated an image, under any name; None if no model has its weights."""
    models = [entry for entry in Registry().iter_models() if isinstance(entry, Checkpoint)]
    models.sort(key=lambda entry: entry.name != provenance.model)
    try:
        by_path = [Registry().open(provenance.model)]
    except CheckpointError:
        by_path = []
    return next((entry for entry in [*by_path, *models] if entry.digest == provenance.digest), None)


def model_status(provenance: Provenance) -> str:
    """Whether the model that generated an image still exists, as text."""
    checkpoint = find_model(provenance)
    if checkpoint is None:
        return "weights have changed" if provenance.model in Registry().names() else "not in the registry"
    return "in the registry" if checkpoint.name == provenance.model else f"renamed to '{checkpoint.name}'"


@dataclass(frozen=True, slots=True)
class ReproductionTarget:
    """A generated image to reproduce."""

    path: Path
    provenance: Provenance
    labels: list[int]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an image file or an archive of images.

        Raises:
            DataError: when it has no provenance.
            UsageError: for grids and animations, which have their own commands.
        """
        provenance = read_provenance(path)
        if provenance.kind in ("sheet", "animation"):
            kind = "a grid" if provenance.kind == "sheet" else "an animation"
            raise UsageError(f"{path} is {kind}; only images can be reproduced", provenance.command)
        labels = list(provenance.labels)
        if provenance.kind == "images":
            labels = _array(path, "labels").tolist()
            seeds = list(range(provenance.seed, provenance.seed + len(labels)))
            if _array(path, "seeds").tolist() != seeds:
                raise DataError(f"the seeds in {path} differ from its record", "generate it again: ddpmctl generate")
        return cls(path, provenance, labels)

    def request(
        self,
        checkpoint: Checkpoint | None = None,
        labels: Labels = (),
        *,
        seed: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        **options: Unpack[SamplingOptions],
    ) -> SamplingRequest:
        """The request that reproduces it, with the given settings replaced; see `SamplingRequest.resolve`."""
        before = self.provenance
        changed: SamplingOptions = {**options}
        if changed.get("sampler") is None and changed.get("steps") is None:
            changed |= {"sampler": before.sampler, "steps": before.steps}
        if changed.get("guidance") is None:
            changed["guidance"] = before.guidance
            if changed.get("guidance_interval") is None and before.guidance != 1.0:
                changed["guidance_interval"] = before.guidance_interval
        checkpoint = checkpoint or self.find_checkpoint()
        changed["variation"] = self._variation(checkpoint, changed.get("variation", PLAIN))
        return SamplingRequest.resolve(
            checkpoint,
            [*labels] or self.labels,
            seed=before.seed if seed is None else seed,
            device=before.device if device == "auto" else device,
            precision=before.precision if precision == "auto" else precision,
            **changed,
        )

    def matches_request(self, request: SamplingRequest, upscale: int) -> bool:
        """Whether a request has the same settings that determine the pixels, so that the images can be compared."""
        before = self.provenance
        now = (request.options, request.seed, list(request.labels), upscale, request.variation.mix)
        return now == (recorded_options(before), before.seed, self.labels, before.upscale, before.mix)

    def difference(self, images: Images) -> int | None:
        """The largest difference from the image in grey levels; None if the sizes differ.

        Args:
            images: as they were written, uint8[N,..].
        """
        before = self._pixels()
        if before.shape != images.shape:
            return None
        return int(np.abs(before.astype(int) - images.astype(int)).max())

    def find_checkpoint(self) -> Checkpoint:
        """The model that generated it."""
        found = find_model(self.provenance)
        if found:
            return found
        name, digest = self.provenance.model, self.provenance.digest[:12]
        if name in Registry().names():
            raise CheckpointError(
                f"the weights of '{name}' have changed since {self.path} was generated (digest {digest})",
                "use the current weights: ", Setting("model", name),
            )  # fmt: skip
        raise CheckpointError(
            f"the model that generated {self.path} was not found: '{name}', digest {digest}",
            "use another model: ", Setting("model", "NAME"), "; list models: ddpmctl models",
        )  # fmt: skip

    def _variation(self, checkpoint: Checkpoint, given: Variation) -> Variation:
        """The recorded variation, with another mix if one is given; reads the picture that was edited again."""
        record = self.provenance.picture
        mix = given.mix or self.provenance.mix
        if record is None:
            return replace(given, mix=mix)
        mask = self._recorded_file(record.mask, record.mask_digest) if record.mask else None
        picture = self._recorded_file(record.file, record.digest)
        start = Start.read(checkpoint, picture, record.strength, record.fit, invert=record.inverted, mask=mask)
        return replace(given, mix=mix, start=start)

    def _recorded_file(self, name: str, digest: str) -> Path:
        """A file that the image was edited from, where it was or beside the image."""
        candidates = [path for path in (Path(name), self.path.with_name(Path(name).name)) if path.is_file()]
        for path in candidates:
            if file_digest(path) == digest:
                return path
        problem = "has changed since" if candidates else "was not found"
        raise DataError(
            f"{self.path} was edited from {name} (sha256 {digest[:12]}), which {problem}",
            f"put that file beside {self.path}, or edit another one: ddpmctl edit",
        )

    def _pixels(self) -> Images:
        if self.provenance.kind == "images":
            return _array(self.path, "images")
        with Image.open(self.path) as image:
            return np.asarray(image)[None]


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: np.ndarray = archive[name]
            return found
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}", "generate it again: ddpmctl generate") from error
