"""Imports that can fail although the package is installed."""

from importlib import import_module
from typing import Any

from ddpmctl.errors import DdpmctlError, is_memory_error


def load_cv2() -> Any:
    """OpenCV."""
    try:
        return import_module("cv2")
    except ImportError as error:
        if is_memory_error(error) or (isinstance(error, ModuleNotFoundError) and error.name == "cv2"):
            raise
        raise DdpmctlError(
            f"OpenCV cannot be loaded: {error}",
            "it links system libraries; on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0",
        ) from error


def load_torchvision(module: str) -> Any:
    """The module ``torchvision.<module>``."""
    try:
        return import_module(f"torchvision.{module}")
    except (ImportError, RuntimeError, AttributeError) as error:
        if is_memory_error(error) or (isinstance(error, ModuleNotFoundError) and error.name == "torchvision"):
            raise
        raise DdpmctlError(
            f"torchvision is not compatible with the installed torch: {error}",
            "install a matching pair: pip install --force-reinstall torch torchvision",
        ) from error


def load_scipy_io() -> Any:
    """``scipy.io``, which reads MATLAB's files."""
    try:
        return import_module("scipy.io")
    except ModuleNotFoundError as error:
        raise DdpmctlError(
            "SVHN's files are MATLAB's, and SciPy, which reads them, is not installed",
            "in the project's folder: pip install '.[svhn]'",
        ) from error
