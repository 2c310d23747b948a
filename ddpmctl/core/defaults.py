"""Independence from torch's default dtype and device, which the calling program may have changed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU = torch.device("cpu")


@contextmanager
def default_dtype_and_device() -> Iterator[None]:
    """Create tensors in float32 on the CPU."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with CPU:
            yield
    finally:
        torch.set_default_dtype(before)
