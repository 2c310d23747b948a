"""Train small denoising diffusion models from scratch and generate images, in the terminal or from Python."""

import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine, load
    from ddpmctl.sampling.request import SamplingRequest

__all__ = ["Engine", "SamplingRequest", "__version__", "load"]

# As a library it prints nothing unless logging is configured; the command line shows the records as notes and warnings.
logging.getLogger("ddpmctl").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Lazily: importing the package must not import torch.
    if name in ("Engine", "load"):
        from ddpmctl.threads import configure_threads

        configure_threads()
        from ddpmctl.sampling import engine

        return getattr(engine, name)
    if name == "SamplingRequest":
        from ddpmctl.sampling.request import SamplingRequest

        return SamplingRequest
    if name == "__version__":
        try:
            return metadata.version("ddpmctl")
        except metadata.PackageNotFoundError:
            return "0+uninstalled"
    raise AttributeError(f"module 'ddpmctl' has no attribute '{name}'")
