"""Versions of the packages that determine the results."""

import platform
from importlib import metadata

PACKAGES = ("ddpmctl", "torch", "torchvision", "numpy")


def versions() -> dict[str, str]:
    """Versions by name, from package metadata."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
