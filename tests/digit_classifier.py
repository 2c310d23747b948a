"""A small MNIST classifier: 99.6 % accuracy on the test images.

``python -m tests.digit_classifier DATA_DIR`` trains it again in two minutes and writes
``digit_classifier.safetensors`` next to this file.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from ddpmctl.data import load_dataset
from ddpmctl.evaluation.classifier import Classifier, fit, predict

WEIGHTS = Path(__file__).with_name("digit_classifier.safetensors")


def load_classifier() -> Classifier:
    """The trained classifier. Its weights are stored in half precision; it computes in float32."""
    model = Classifier(1, 10)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return model.eval()


def classify(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The predicted digits of uint8[N,32,32]: int64[N] in 0..9."""
    return predict(load_classifier(), torch.from_numpy(images)[:, None]).labels.numpy()


def accuracy(images: NDArray[np.uint8], labels: NDArray[np.int64] | list[int]) -> float:
    """Share of images classified as the label."""
    return float((classify(images) == np.asarray(labels)).mean())


def train(data_dir: Path) -> None:
    """Train on the real training images, print the accuracy on the test images, and save the weights."""
    model = fit(load_dataset("mnist", 32, data_dir), torch.device("cpu"), lambda done, total: None)
    test = load_dataset("mnist", 32, data_dir, train=False)
    print(f"{predict(model, test.images).accuracy(test.labels):.2%} of {len(test):,} test images")
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
