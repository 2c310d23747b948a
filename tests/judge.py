"""A small MNIST classifier that tells whether digits are right: 99.6 % on the test images.

``python -m tests.judge DATA_DIR`` trains it anew, in two minutes, and writes ``judge.safetensors`` beside this file.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from ddpmctl.data import load_dataset
from ddpmctl.evaluation.classifier import Classifier, fit, predict

WEIGHTS = Path(__file__).with_name("judge.safetensors")


def judge() -> Classifier:
    """The trained classifier. Its weights are kept in half precision; it computes in float32."""
    model = Classifier(1, 10)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return model.eval()


def read_digits(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What the classifier takes uint8[N,32,32] for: int64[N] in 0..9."""
    return predict(judge(), torch.from_numpy(images)[:, None]).labels.numpy()


def accuracy(images: NDArray[np.uint8], labels: NDArray[np.int64] | list[int]) -> float:
    """Share of images in which the classifier reads the label."""
    return float((read_digits(images) == np.asarray(labels)).mean())


def train(data_dir: Path) -> None:
    """Train on the real training images, say how many test images are read right, and keep the weights."""
    model = fit(load_dataset("mnist", 32, data_dir), torch.device("cpu"), lambda done, total: None)
    test = load_dataset("mnist", 32, data_dir, train=False)
    print(f"{predict(model, test.images).accuracy(test.labels):.2%} of {len(test):,} test images")
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
