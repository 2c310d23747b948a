"""Train small denoising diffusion models from scratch and generate images, in the terminal or from Python."""

import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine

__all__ = ["Engine", "__version__"]

# As a library it prints nothing unless logging is configured; the command line shows the records as notes and warnings.
logging.getLogger("ddpmctl").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Lazily: importing the package must not import torch.
    if name == "Engine":
        from ddpmctl.threads import configure_threads

        configure_threads()
        from ddpmctl.sampling.engine import Engine

        return Engine
    if name == "__version__":
        try:
            return metadata.version("ddpmctl")
        except metadata.PackageNotFoundError:
            return "0+uninstalled"
    raise AttributeError(f"module 'ddpmctl' has no attribute '{name}'")
