"""What the results hang on: versions of this package and of those below it."""

import platform
from importlib import metadata

PACKAGES = ("ddpmctl", "torch", "torchvision", "numpy")


def versions() -> dict[str, str]:
    """Versions by name; nothing is imported for it."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
