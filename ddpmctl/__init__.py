"""Train small denoising diffusion models from scratch and generate images, in the terminal or from Python."""

import importlib
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpmctl.errors import DdpmctlError
    from ddpmctl.evaluation.api import evaluate
    from ddpmctl.exports.api import export
    from ddpmctl.sampling.engine import Engine
    from ddpmctl.sampling.request import SamplingRequest
    from ddpmctl.training.callbacks import Callback
    from ddpmctl.training.run_spec import RunSpec
    from ddpmctl.training.runs import TrainedModel, distill, resume, train

    load = Engine.load

__all__ = [
    "Callback",
    "DdpmctlError",
    "Engine",
    "RunSpec",
    "SamplingRequest",
    "TrainedModel",
    "__version__",
    "distill",
    "evaluate",
    "export",
    "load",
    "resume",
    "train",
]

_MODULES = {
    "Callback": "ddpmctl.training.callbacks",
    "DdpmctlError": "ddpmctl.errors",
    "Engine": "ddpmctl.sampling.engine",
    "RunSpec": "ddpmctl.training.run_spec",
    "SamplingRequest": "ddpmctl.sampling.request",
    "TrainedModel": "ddpmctl.training.runs",
    "distill": "ddpmctl.training.runs",
    "evaluate": "ddpmctl.evaluation.api",
    "export": "ddpmctl.exports.api",
    "resume": "ddpmctl.training.runs",
    "train": "ddpmctl.training.runs",
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
