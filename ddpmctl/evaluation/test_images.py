"""What a model knows about the test images of its dataset: their classes, and how likely they are."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpmctl.data import NATIVE_SIZES
from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import Setting, UsageError
from ddpmctl.evaluation.denoising import check_denoiser
from ddpmctl.evaluation.diffusion_classifier import Classification, classify
from ddpmctl.evaluation.likelihood import Likelihood, likelihood
from ddpmctl.imaging.files import png
from ddpmctl.imaging.grid import labelled_grid
from ddpmctl.imaging.upscale import Images
from ddpmctl.model_images import load_training_data
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import channels_last_pixels
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import command_line, public_name

SHEET_COLUMNS, SHEET_ROWS, UPSCALE = 10, 10, 3
EXTREMES = 20
"""Most and least surprising images in a sheet, of each."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationImages:
    """Test images, and the model that is evaluated on them.

    Attributes:
        data: the images at the resolution of the network.
        ids: their indices in the test set.
        count: the number that was requested; None for all.
        seed: of the noise.
    """

    engine: Engine
    data: Dataset
    ids: Tensor
    count: int | None
    seed: int

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        count: int | None = None,
        seed: int = 0,
        data_dir: Path | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> "EvaluationImages":
        """All test images of a model's dataset, or ``count`` of them, evenly spaced."""
        if count is not None and count < 1:
            raise UsageError(f"count must be at least 1, not {count}", Setting("count", 1000))
        check_denoiser(checkpoint, "classifier and no likelihood")
        data = load_training_data(checkpoint.manifest, data_dir, train=False)
        number = min(count or len(data), len(data))
        ids = torch.arange(number, device="cpu") * len(data) // number
        chosen = replace(data, images=data.images[ids], labels=data.labels[ids])
        return cls(engine=Engine(checkpoint, device, precision), data=chosen, ids=ids, count=count, seed=seed)

    @property
    def pixels(self) -> Images:
        """The images, uint8[N,S,S] or uint8[N,S,S,3]."""
        return channels_last_pixels(self.data.images)

    def to_dict(self) -> dict[str, Any]:
        """The model and the conditions as plain values for JSON."""
        engine = self.engine
        model = {"model": engine.checkpoint.name, "digest": engine.checkpoint.digest, "seed": self.seed}
        conditions = {"device": str(engine.device), "precision": engine.precision}
        return {**model, **conditions, "dataset": self.data.name, "count": len(self.data)}

    def sheet(
        self, option: str, rows: Sequence[Sequence[int]], titles: list[list[str]], names: Sequence[str], caption: str
    ) -> bytes:
        """A PNG of some images in titled rows; ``option`` of ``evaluate`` draws it again."""
        pixels, checkpoint = self.pixels, self.engine.checkpoint
        grid = labelled_grid([[pixels[k] for k in row] for row in rows], titles, UPSCALE, names, caption)
        shown = self.engine.request([int(self.data.labels[k]) for row in rows for k in row], self.seed, batch_size=1)
        argv = command_line(
            "evaluate", public_name(checkpoint), **{option: True}, count=self.count, seed=self.seed,
            device=self.engine.device.type, precision=self.engine.precision, output=f"{option}.png",
        )  # fmt: skip
        made = build_provenance(shown, "sheet", argv, upscale=UPSCALE)
        # Nothing is sampled.
        made = replace(made, sampler="none", steps=0, guidance=1.0, guidance_interval=(0.0, 1.0))
        return png(grid, made)


@dataclass(frozen=True, slots=True)
class ClassifiedImages:
    """The classes that a model takes test images for."""

    images: EvaluationImages
    result: Classification
    seconds: float

    @property
    def wrong(self) -> list[int]:
        """The images whose class is not their label."""
        return (self.result.labels != self.images.data.labels).nonzero()[:, 0].tolist()

    @property
    def accuracy(self) -> float:
        """Share of images whose class is their label."""
        return 1 - len(self.wrong) / len(self.images.data)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, from the choice of the images."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / len(self.images.data))

    @property
    def nfe(self) -> float:
        """Network function evaluations per image, on average."""
        return float(self.result.evaluations.double().mean())

    @property
    def confusion(self) -> list[list[int]]:
        """Images by label (rows) and predicted class (columns)."""
        classes = len(self.images.data.classes)
        pairs = self.images.data.labels * classes + self.result.labels
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes).tolist()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        data, ids, labels = self.images.data, self.images.ids.tolist(), self.result.labels.tolist()
        by_class = [row[k] / sum(row) if sum(row) else None for k, row in enumerate(self.confusion)]
        wrong = [{"index": ids[k], "label": int(data.labels[k]), "predicted": labels[k]} for k in self.wrong]
        return {
            **self.images.to_dict(),
            "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "accuracy_by_class": by_class,
            "confusion": self.confusion,
            "wrong": wrong,
            "nfe": self.nfe,
            "images_per_second": len(data) / self.seconds,
        }

    def sheet(self) -> bytes | None:
        """A PNG of the images that are classified wrongly, titled with label and class; None if there are none."""
        data, wrong = self.images.data, self.wrong
        shown = wrong[: SHEET_COLUMNS * SHEET_ROWS]
        if not shown:
            return None
        rows = [shown[start : start + SHEET_COLUMNS] for start in range(0, len(shown), SHEET_COLUMNS)]
        labels, classes = self.result.labels.tolist(), data.classes
        titles = [[f"{classes[int(data.labels[k])]} as {classes[labels[k]]}" for k in row] for row in rows]
        more = "" if len(shown) == len(wrong) else f", the first {len(shown)} of them"
        caption = f"{len(wrong):,} of {len(data):,} classified wrongly{more}: label as predicted class"
        return self.images.sheet("classify", rows, titles, (), caption)


@dataclass(frozen=True, slots=True)
class LikelihoodOfImages:
    """How likely test images are, given their labels, under a model."""

    images: EvaluationImages
    result: Likelihood
    seconds: float

    @property
    def pixels(self) -> str:
        """Which pixels the bits are of, as a phrase."""
        data, side = self.images.data, self.images.data.images.shape[-1]
        native = NATIVE_SIZES.get(data.name.partition(":")[0])
        if native == side:
            return f"{side}x{side} pixels as they are in {data.name}"
        known = f"from {native}x{native} " if native else ""
        return f"{side}x{side} pixels, to which {data.name} is resized {known}for this network"

    def order(self) -> list[int]:
        """The images from the least to the most surprising."""
        return self.result.bits.argsort().tolist()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        result, data, ids = self.result, self.images.data, self.images.ids.tolist()
        parts = {name: float(getattr(result, name).mean()) for name in ("prior", "diffusion", "decoder")}
        order = [
            {"index": ids[k], "label": int(data.labels[k]), "bits_per_dim": float(result.bits[k])} for k in self.order()
        ]
        return {
            **self.images.to_dict(),
            "bits_per_dim": result.mean,
            "standard_error": result.standard_error,
            **parts,
            "pixels": list(data.images.shape[1:]),
            "native_size": NATIVE_SIZES.get(data.name.partition(":")[0]),
            "least_surprising": order[:EXTREMES],
            "most_surprising": order[::-1][:EXTREMES],
            "nfe": result.timesteps + 1,
            "images_per_second": len(data) / self.seconds,
        }

    def sheet(self) -> bytes:
        """A PNG of the least and the most surprising images, titled with their bits per dimension."""
        order = self.order()
        ends = (("least surprising", order[:EXTREMES]), ("most surprising", order[::-1][:EXTREMES]))
        rows, titles, names = [], [], []
        for name, shown in ends:
            for start in range(0, len(shown), SHEET_COLUMNS):
                rows.append(shown[start : start + SHEET_COLUMNS])
                titles.append([f"{float(self.result.bits[k]):.2f}" for k in rows[-1]])
                names.append("" if start else name)
        caption = f"bits per dimension of {self.pixels}; mean {self.result.mean:.3f}"
        return self.images.sheet("likelihood", rows, titles, names, caption)


def classify_test_images(images: EvaluationImages, progress: Progress) -> ClassifiedImages:
    """Classify them by the model's own errors, see `diffusion_classifier`."""
    started = time.perf_counter()
    result = classify(
        images.engine,
        images.data.images,
        images.seed,
        progress=lambda done, total: progress("classifying", done, total),
        closed_form=True,
    )
    return ClassifiedImages(images, result, time.perf_counter() - started)


def likelihood_of_test_images(images: EvaluationImages, progress: Progress) -> LikelihoodOfImages:
    """Bound their likelihood, see `likelihood`."""
    started = time.perf_counter()
    result = likelihood(
        images.engine, images.data.images, images.data.labels, images.seed,
        progress=lambda done, total: progress("likelihood", done, total),
    )  # fmt: skip
    return LikelihoodOfImages(images, result, time.perf_counter() - started)
