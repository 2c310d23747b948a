"""A dataset: small colour images of three classes."""

import torch

from ddpmctl.data import Request
from ddpmctl.data.dataset import Dataset

CLASSES = ("Red", "Green", "Blue")


def load(request: Request) -> Dataset:
    """As many flags as the argument says, each of the colour of its class."""
    labels = torch.arange(int(request.argument or 60)) % 3
    generator = torch.Generator().manual_seed(0 if request.train else 1)
    shape = (len(labels), 3, request.image_size, request.image_size)
    images = torch.randint(0, 60, shape, generator=generator, dtype=torch.uint8)
    images[torch.arange(len(labels)), labels] += 180
    return Dataset("flags", images, labels, CLASSES)
