"""Sampled images as files, upscaled and with their provenance."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ddpmctl.config import ModelConfig
from ddpmctl.imaging.files import check_target, free_path, npz, numbered_paths, png, safe_stem, write_atomic
from ddpmctl.imaging.provenance import Kind, Provenance
from ddpmctl.imaging.upscale import Images, check_upscale, upscale
from ddpmctl.paths import FolderPath, check_folder
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import SamplingRequest

SUFFIXES = (".png", ".npz")


@dataclass(frozen=True, slots=True)
class Enlargement:
    """Upscaling by an integer factor, with one of `upscale.INTERPOLATIONS`."""

    factor: int = 1
    interpolation: str = "cubic"

    def check(self, model: ModelConfig, count: int) -> None:
        """Check that ``count`` images of a model can be upscaled, before any is sampled."""
        check_upscale(self.factor, self.interpolation, count, model.image_size, model.channels)

    def apply(self, images: Images) -> Images:
        """Upscale uint8[N,H,W] or uint8[N,H,W,3]."""
        if self.factor == 1:
            return images
        return np.stack([upscale(image, self.factor, self.interpolation) for image in images])


def is_folder(output: Path) -> bool:
    """Whether images are written to a folder under default names: it exists, or the path ends with a slash."""
    return isinstance(output, FolderPath) or output.is_dir()


def plan_files(output: Path | None, request: SamplingRequest) -> list[Path]:
    """The files for the images of a request, checked before any is written: one archive, or one file per image.

    Args:
        output: a .png or .npz file, a folder, or None for the current folder. Default names never overwrite.
    """
    given = output is not None and not is_folder(output)
    mixed = [request.checkpoint.manifest.classes[label] for label, _ in request.variation.mix]
    stem = safe_stem("-".join([request.classes[0], *mixed])) if len(set(request.labels)) == 1 else "images"
    path = output if output is not None and given else (output or Path()) / f"{stem}.png"
    if isinstance(output, FolderPath) and not output.is_dir():
        check_folder(output)
        path = Path(path)
    else:
        check_target(path, SUFFIXES)
    if path.suffix.lower() == ".npz":
        return [path]
    count = len(request.labels)
    if count == 1:
        return [path if given else free_path(path)]
    numbered = numbered_paths(path, count, fresh=not given)
    if path.parent.is_dir():
        check_target(numbered[-1], SUFFIXES)  # the number makes the name longer
    return numbered


def image_provenance(request: SamplingRequest, enlargement: Enlargement, *, archive: bool = False) -> Provenance:
    """The provenance of the one image of a request, or of an archive of all its images."""
    # An archive contains its labels, which may be too many for a command line.
    typed = replace(request, labels=()) if archive and not request.variation.start else request
    factor, interpolation = enlargement.factor, enlargement.interpolation
    argv = typed.to_argv("generate", interpolation=interpolation if factor > 1 else None, upscale=factor)
    kind: Kind = "images" if archive else "image"
    return build_provenance(request, kind, argv, upscale=factor, interpolation=interpolation)


def save_images(
    paths: list[Path], images: Images, request: SamplingRequest, enlargement: Enlargement = Enlargement()
) -> None:
    """Write the images of a request with their provenance.

    Args:
        paths: as from `plan_files`.
        images: already upscaled, uint8[N,..].
        request: completed by `Engine.resolve`.
    """
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    if paths[0].suffix.lower() == ".npz":
        seeds = [request.seed + k for k in range(len(images))]
        provenance = image_provenance(request, enlargement, archive=True)
        classes = request.checkpoint.manifest.classes
        write_atomic(paths[0], npz(images, request.labels, seeds, classes, provenance))
        return
    for k, (path, image) in enumerate(zip(paths, images, strict=True)):
        write_atomic(path, png(image, image_provenance(request.slice(k), enlargement)))
