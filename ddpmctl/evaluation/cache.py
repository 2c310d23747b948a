"""Classifiers that were trained before, found by the digest of what they learnt."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save

from ddpmctl.data.dataset import Dataset
from ddpmctl.evaluation.classifier import VERSION, Classifier, fit, read
from ddpmctl.paths import user_cache_path


@dataclass(frozen=True, slots=True)
class Trained:
    """A classifier and where it came from.

    Attributes:
        classifier: ready to read.
        digest: sha256 of its weights.
        accuracy: on real test images.
        fresh: whether it was trained just now.
    """

    classifier: Classifier
    digest: str
    accuracy: float
    fresh: bool


def cache_folder() -> Path:
    """Where classifiers are kept."""
    return user_cache_path("ddpmctl", appauthor=False) / "classifiers"


def trained_classifier(
    train: Dataset, test: Dataset, device: torch.device, on_step: Callable[[int, int], None]
) -> Trained:
    """The classifier of a dataset: from the cache where it is whole, else trained and kept there.

    Args:
        train: real training images.
        test: real test images, to tell its accuracy.
        device: where to compute.
        on_step: told the step and the number of steps while it trains.
    """
    folder, digest = cache_folder(), train.digest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest[:16]}-v{VERSION}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        cached = _load(path, digest, train, device)
        if cached:
            return cached
        classifier = fit(train, device, on_step)
        accuracy = read(classifier, test.images).accuracy(test.labels)
        data = save({name: tensor.cpu().contiguous() for name, tensor in classifier.state_dict().items()})
        weights_digest = hashlib.sha256(data).hexdigest()
        record = {"version": VERSION, "dataset": digest, "sha256": weights_digest, "test_accuracy": accuracy}
        _put(path, data)
        _put(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
        return Trained(classifier, weights_digest, accuracy, fresh=True)


def _load(path: Path, digest: str, train: Dataset, device: torch.device) -> Trained | None:
    """What is in the cache, None where it is not whole: it can be made again at any time."""
    try:
        data = path.read_bytes()
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if record["dataset"] != digest or record["sha256"] != hashlib.sha256(data).hexdigest():
            return None
        classifier = Classifier(int(train.images.shape[1]), len(train.classes))
        classifier.load_state_dict(load(data))
        accuracy = float(record["test_accuracy"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None
    moved: Classifier = classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(moved.eval(), record["sha256"], accuracy, fresh=False)


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
