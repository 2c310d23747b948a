"""Independence from the defaults of torch, which belong to the program that uses this library."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU = torch.device("cpu")


@contextmanager
def usual_defaults() -> Iterator[None]:
    """Build modules in float32 on the CPU, whatever torch's default dtype and default device are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with CPU:
            yield
    finally:
        torch.set_default_dtype(before)
