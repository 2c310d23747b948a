"""Train small denoising diffusion models from scratch and generate images, in the terminal or from Python."""

import importlib
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpmctl.evaluation.api import evaluate
    from ddpmctl.sampling.engine import Engine
    from ddpmctl.sampling.request import SamplingRequest

    load = Engine.load

__all__ = ["Engine", "SamplingRequest", "__version__", "evaluate", "load"]

_MODULES = {
    "Engine": "ddpmctl.sampling.engine",
    "SamplingRequest": "ddpmctl.sampling.request",
    "evaluate": "ddpmctl.evaluation.api",
}

# As a library it prints nothing unless logging is configured; the command line shows the records as notes and warnings.
logging.getLogger("ddpmctl").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Lazily: importing the package must not import torch.
    if name in _MODULES:
        from ddpmctl.threads import configure_threads

        configure_threads()
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name == "load":
        return __getattr__("Engine").load
    if name == "__version__":
        try:
            return metadata.version("ddpmctl")
        except metadata.PackageNotFoundError:
            return "0+uninstalled"
    raise AttributeError(f"module 'ddpmctl' has no attribute '{name}'")
