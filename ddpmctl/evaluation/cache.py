"""Trained classifiers, cached by the digest of their training set."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save

from ddpmctl.data.dataset import Dataset
from ddpmctl.durable import replace_file
from ddpmctl.evaluation.classifier import VERSION, Classifier, OnStep, fit, predict
from ddpmctl.paths import user_cache_path

log = logging.getLogger("ddpmctl")


@dataclass(frozen=True, slots=True)
class CachedClassifier:
    """A classifier.

    Attributes:
        digest: sha256 of its weights.
        accuracy: on real test images.
        newly_trained: whether it was not in the cache.
    """

    classifier: Classifier
    digest: str
    accuracy: float
    newly_trained: bool


def cache_folder() -> Path:
    """The folder of the cached classifiers."""
    return user_cache_path("ddpmctl", appauthor=False) / "classifiers"


def cached_classifier(train: Dataset, test: Dataset, device: torch.device, on_step: OnStep) -> CachedClassifier:
    """The classifier of a dataset: from the cache if intact there, otherwise trained and cached."""
    folder, digest = cache_folder(), train.digest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest[:16]}-v{VERSION}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        found = _load(path, digest, train, device) or _train(path, digest, train, test, device, on_step)
    origin = "newly trained" if found.newly_trained else "from the cache"
    log.info("classifier %s (%s): %.2f%% accuracy on real test images", found.digest[:12], origin, 100 * found.accuracy)
    return found


def _train(
    path: Path, digest: str, train: Dataset, test: Dataset, device: torch.device, on_step: OnStep
) -> CachedClassifier:
    classifier = fit(train, device, on_step)
    accuracy = predict(classifier, test.images).accuracy(test.labels)
    data = save({name: tensor.cpu().contiguous() for name, tensor in classifier.state_dict().items()})
    weights_digest = hashlib.sha256(data).hexdigest()
    record = {"version": VERSION, "dataset": digest, "sha256": weights_digest, "test_accuracy": accuracy}
    replace_file(path, data)
    replace_file(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
    return CachedClassifier(classifier, weights_digest, accuracy, newly_trained=True)


def _load(path: Path, digest: str, train: Dataset, device: torch.device) -> CachedClassifier | None:
    """The classifier in the cache; None if missing or damaged, since it can be trained again."""
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
    return CachedClassifier(moved.eval(), record["sha256"], accuracy, newly_trained=False)
