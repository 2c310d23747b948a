"""Test images."""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Images:
    made: Images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return made
