"""A model as ONNX: the network with inputs x, t and label, and what a sampler needs as metadata."""

import json
import logging
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpmctl import __version__
from ddpmctl.build import build_diffusion
from ddpmctl.config import Config
from ddpmctl.core.gaussian import GaussianResidual
from ddpmctl.errors import DdpmctlError
from ddpmctl.registry import Checkpoint
from ddpmctl.registry.card import NO_LICENCE
from ddpmctl.sampling.editing import chain_timesteps
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.request import public_name

HINT = "in the project's folder: pip install '.[onnx]'"

OPSET = 18

DDIM_STEPS = 50
"""Of the timesteps in the metadata, for a sampler that anyone can write."""


def check_installed() -> None:
    """Raise an error if the packages of the extra ``onnx`` are missing."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise DdpmctlError(f"{' and '.join(missing)} not installed, which ONNX files need", HINT)


def build_onnx(checkpoint: Checkpoint, licence: str | None = None) -> bytes:
    """The network as an ONNX file with one dynamic dimension, the batch.

    Inputs are ``x``: float32[B,C,S,S], ``t``: int64[B] in 0..T-1 and ``label``: int64[B], where the number of classes
    is the null class of a model with guidance. The output is ``output``: float32[B,C,S,S], of the kind in the metadata
    ``parameterization``. The weights are in full precision.
    """
    check_installed()
    import onnx

    engine = Engine(checkpoint, "cpu", "fp32")
    config = checkpoint.manifest.config
    model = config.model
    x = torch.zeros(2, model.channels, model.sample_size, model.sample_size)
    # Two tensors: the exporter takes one that is passed twice for a single input.
    t, label = torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1, max=65536)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                _Output(engine.network, config),
                (x, t, label),
                path,
                input_names=["x", "t", "label"],
                output_names=["output"],
                dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
                opset_version=OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
        exported = onnx.load(path)
    for key, value in _metadata(checkpoint, licence).items():
        exported.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(exported)
    data: bytes = exported.SerializeToString()
    return data


def _metadata(checkpoint: Checkpoint, licence: str | None) -> dict[str, object]:
    config = checkpoint.manifest.config
    diffusion, sampling = config.diffusion, config.sampling
    steps = sampling.steps if config.distillation else min(DDIM_STEPS, config.chain_length)
    return {
        "made_by": f"ddpmctl {__version__}",
        "name": public_name(checkpoint),
        "digest": checkpoint.digest,
        "licence": licence or NO_LICENCE,
        "classes": checkpoint.manifest.classes,
        "parameterization": diffusion.parameterization,
        "clip_x0": diffusion.clip_x0,
        "pixel_range": diffusion.pixel_range,
        "image_size": config.model.image_size,
        "alpha_bar": build_diffusion(diffusion).schedule.alpha_bar.tolist(),
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "guidance_interval": sampling.guidance_interval,
        "ddim_timesteps": chain_timesteps(config, steps),
    }


class _Output(nn.Module):
    """The model output at every timestep: for those that a student begins with, that of the Gaussian denoiser alone."""

    def __init__(self, network: nn.Module, config: Config) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        output: Tensor = self.network(x, t, label)
        closed_form = self.config.closed_form
        if not closed_form or not isinstance(self.network, GaussianResidual):
            return output
        gaussian, relative = self.network.gaussian, t / self.config.diffusion.timesteps
        low, high = closed_form.guidance_interval
        scale = torch.where((relative >= low) & (relative <= high), closed_form.guidance, 1.0)[:, None]
        alone = gaussian.velocity(gaussian.clusters_of(), x, t, label, scale)
        return torch.where((t < self.config.chain_length).view(-1, 1, 1, 1), output, alone)
