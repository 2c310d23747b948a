"""A labelled set of images in memory."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled images."""

    name: str
    """As in `RunSpec.dataset`."""
    images: Tensor
    """uint8[N,C,S,S], 0 black."""
    labels: Tensor
    """int64[N], indices into ``classes``."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Self:
        """The same set on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def at_size(self, size: int) -> Self:
        """The same images at a different side, in pixels."""
        return replace(self, images=resized(self.images, size))

    def digest(self) -> str:
        """sha256 of shape, pixels, labels and class names, hexadecimal."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        digest.update(self.images.cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def split(self, validation_images: int) -> tuple[Self, Self]:
        """Split into training and validation images: at most ``validation_images`` and at most a tenth.

        The split is the same for every run. A class that would have no training images gets one back in exchange for
        one of another class, as long as other classes have more than one.
        """
        count = min(validation_images, len(self) // 10)
        generator = torch.Generator("cpu").manual_seed(0)
        order = torch.randperm(len(self), generator=generator, device="cpu").to(self.images.device)
        labels = self.labels[order].tolist()
        left = Counter(labels[count:])
        spare = (place for place in range(count, len(labels)) if left[labels[place]] > 1)
        for label in sorted(set(labels[:count]) - set(left)):
            place, other = labels.index(label), next(spare, None)
            if other is None:
                break
            left[labels[other]] -= 1
            order[[place, other]] = order[[other, place]]
        return self._pick(order[count:]), self._pick(order[:count])

    def proportional_labels(self, count: int) -> list[int]:
        """Class indices in the proportions of this set, each class spread evenly over the list.

        What is compared with all images of a set needs its proportions: a class that is rarer in the samples is a
        difference of the two distributions, however good each sample is.
        """
        due = []
        shares = torch.bincount(self.labels.cpu(), minlength=len(self.classes)).double() / max(1, len(self)) * count
        whole = shares.floor().long()
        remainders = (shares - whole).argsort(descending=True, stable=True)
        whole[remainders[: count - int(whole.sum())]] += 1
        for label, images in enumerate(whole.tolist()):
            due += [((place + 0.5) / images, label) for place in range(images)]
        return [label for _, label in sorted(due)]

    def _pick(self, ids: Tensor) -> Self:
        return replace(self, images=self.images[ids], labels=self.labels[ids])


def to_model_range(images: Tensor, pixel_range: tuple[float, ...] = (-1.0, 1.0)) -> Tensor:
    """uint8 pixels 0..255 as float32 in a range."""
    low, high = pixel_range
    return images.float() / (255 / (high - low)) + low


def resized(images: Tensor, size: int) -> Tensor:
    """uint8[N,C,H,W] to uint8[N,C,size,size] on the CPU, bilinearly, as torchvision's ``Resize`` does."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images.cpu(), size=(size, size), mode="bilinear", antialias=True)
