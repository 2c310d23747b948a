"""What earlier versions wrote is read, and makes the same images."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ddpmctl.errors import CheckpointError
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine

RELEASED = Path(__file__).parent / "released"
"""A folder per format, as the version of that day wrote it: a tiny model, and a three and an eight of seed 5.

That version sampled them from the noise of `ddpmctl.core.noise`, which is newer."""


@pytest.mark.parametrize("form", sorted(path.name for path in RELEASED.iterdir()))
def test_a_model_of_an_earlier_format_makes_the_images_that_it_made_then(registry: Registry, form: str) -> None:
    shutil.copytree(RELEASED / form / "released", registry.models / "released")
    opened = registry.open("released")
    opened.verify()
    images = Engine(opened, "cpu", "fp32").generate([3, 8], seed=5, steps=5)
    then = np.load(RELEASED / form / "three-and-eight.npy")
    assert images.shape == then.shape == (2, 32, 32)
    assert np.abs(images.astype(int) - then.astype(int)).max() <= 1


def test_what_the_first_format_holds_cannot_be_resumed_and_says_so(registry: Registry) -> None:
    shutil.copytree(RELEASED / "schema-1" / "released", registry.models / "released")
    writer, last = registry.resume("released")
    with writer:
        assert last.manifest.resume is None
        assert last.manifest.run.segments == ()
        with pytest.raises(CheckpointError, match="holds a model and not the state of its training"):
            last.state()
