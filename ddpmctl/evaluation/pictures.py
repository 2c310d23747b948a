"""A person's pictures, classified by a diffusion model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddpmctl.evaluation.diffusion_classifier import classify, error_map
from ddpmctl.evaluation.evaluator import as_tensor
from ddpmctl.evaluation.plot import ErrorMap, error_maps
from ddpmctl.imaging.drawing import Drawing
from ddpmctl.model_images import prepare_for_model
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.engine import Engine

MAP_CLASSES = 30
"""Classes of a picture, those of the smallest errors, that its error map shows."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ClassifiedPicture:
    """A picture and the class that a model takes it for.

    Attributes:
        drawing: the picture as it was prepared.
        predicted: index of the class, and its name ``label``.
        errors: by class name; see `diffusion_classifier.Classification`.
        nfe: network function evaluations.
    """

    path: Path
    drawing: Drawing
    predicted: int
    label: str
    errors: dict[str, float]
    nfe: int

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        drawing = self.drawing
        prepared = {"kept": drawing.kept, "inverted": drawing.inverted, "thickened": drawing.thickened}
        answer = {"predicted": self.predicted, "label": self.label, "errors": self.errors, "nfe": self.nfe}
        return {"file": str(self.path), **answer, **prepared}


def read_pictures(
    checkpoint: Checkpoint, paths: Sequence[Path], fit: str | None = None, *, invert: bool | None = None
) -> list[Drawing]:
    """Prepare pictures for a model, see `prepare_for_model`; raises DataError for the first that cannot be read."""
    return [prepare_for_model(checkpoint.manifest, path, fit, invert=invert) for path in paths]


def classify_pictures(
    engine: Engine, paths: Sequence[Path], drawings: Sequence[Drawing], seed: int, progress: Progress
) -> list[ClassifiedPicture]:
    """Classify prepared pictures, in their order."""
    images = as_tensor(np.stack([drawing.pixels for drawing in drawings]))
    found = classify(engine, images, seed, progress=lambda done, total: progress("classifying", done, total))
    rows = zip(found.labels.tolist(), found.errors.tolist(), found.evaluations.tolist(), strict=True)
    classes = engine.classes
    return [
        ClassifiedPicture(path, drawing, label, classes[label], dict(zip(classes, errors, strict=True)), nfe)
        for path, drawing, (label, errors, nfe) in zip(paths, drawings, rows, strict=True)
    ]


def draw_error_maps(engine: Engine, pictures: Sequence[ClassifiedPicture], seed: int, progress: Progress) -> bytes:
    """A PNG of the pictures and their errors by class and timestep."""
    maps = []
    for done, picture in enumerate(pictures, 1):
        timesteps, errors = error_map(engine, as_tensor(picture.drawing.pixels[None])[0], seed)
        best = sorted(errors.mean(dim=1).argsort()[:MAP_CLASSES].tolist())
        shown = sorted({*best, picture.predicted})
        maps.append(
            ErrorMap(
                pixels=picture.drawing.pixels, title=picture.path.name,
                classes=[engine.classes[k] for k in shown], predicted=shown.index(picture.predicted),
                timesteps=timesteps.tolist(), errors=errors[shown].numpy(),
            )
        )  # fmt: skip
        progress("error maps", done, len(pictures))
    return error_maps(maps)
