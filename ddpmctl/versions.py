"""Versions of the packages that determine the results."""

import platform
from functools import cache
from importlib import metadata

PACKAGES = ("ddpmctl", "torch", "torchvision", "numpy")


@cache
def version(name: str) -> str:
    """The version of an installed package. Reading its metadata takes milliseconds, so it is read once."""
    return metadata.version(name)


def versions() -> dict[str, str]:
    """Versions by name, from package metadata."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
