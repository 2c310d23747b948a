"""torchvision, or a clear word about why not."""

from typing import Any

from ddpmctl.errors import DdpmctlError


def _explain(error: Exception) -> DdpmctlError:
    return DdpmctlError(
        f"torchvision does not fit the installed torch: {error}",
        "install a matching pair: pip install --force-reinstall torch torchvision",
    )


def transforms() -> Any:
    """``torchvision.transforms.v2.functional``.

    Raises:
        DdpmctlError: when torchvision is of another build than torch.
    """
    try:
        from torchvision.transforms.v2 import functional
    except (ImportError, RuntimeError, AttributeError) as error:
        raise _explain(error) from error
    return functional


def datasets() -> Any:
    """``torchvision.datasets``.

    Raises:
        DdpmctlError: when torchvision is of another build than torch.
    """
    try:
        from torchvision import datasets as module
    except (ImportError, RuntimeError, AttributeError) as error:
        raise _explain(error) from error
    return module
