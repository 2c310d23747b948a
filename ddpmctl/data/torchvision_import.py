"""torchvision, or a clear word about why not."""

from importlib import import_module
from typing import Any

from ddpmctl.errors import DdpmctlError


def torchvision(module: str) -> Any:
    """The module ``torchvision.<module>``.

    Raises:
        DdpmctlError: when torchvision is missing or of another build than torch.
    """
    try:
        return import_module(f"torchvision.{module}")
    except (ImportError, RuntimeError, AttributeError) as error:
        raise DdpmctlError(
            f"torchvision does not fit the installed torch: {error}",
            "install a matching pair: pip install --force-reinstall torch torchvision",
        ) from error
