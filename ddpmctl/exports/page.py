"""A model as one self-contained web page that samples, in the browser of whoever opens it."""

import base64
import json
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpmctl import __version__
from ddpmctl.build import build_diffusion
from ddpmctl.config import SAMPLER_STEPS, Config
from ddpmctl.errors import DdpmctlError, UsageError
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.editing import chain_timesteps
from ddpmctl.sampling.request import public_name
from ddpmctl.sampling.settings import resolve_sampling
from ddpmctl.templates import load_template

MAX_BYTES = 25_000_000
"""Larger pages open slowly on a phone, or not at all."""

TEXT_BYTES = 150_000
"""At most, of a page without its weights: code, styles, schedule and class names."""

PART_BYTES = 3 * 2**16
"""Of the weights in one element: a browser reads a large one without a pause, and base64 has no padding inside."""

WORKER = ("noise.js", "kernels.js", "networks.js", "sampling.js", "worker.js")
PAGE = ("elements.js", "calculator.js", "chain.js", "drawing.js", "page.js")
"""Files of the two scripts, which share no names: the worker computes, the page shows."""

CENTRED = ("mnist", "emnist", "kmnist", "qmnist")
"""Datasets whose images are centred by their centre of mass, as drawings for such models are."""


class Halves(NamedTuple):
    """Weights in half precision, which the page and its comparison with the program share."""

    shapes: list[tuple[str, tuple[int, ...]]]
    data: bytes
    """float16 arrays one after another, little-endian."""


def check_page(checkpoint: Checkpoint) -> None:
    """Raise an error for a model whose page would be larger than `MAX_BYTES`."""
    values = sum(int(np.prod(shape)) for shape in checkpoint.shapes().values())
    expected = TEXT_BYTES + 2 * values * 4 // 3
    if expected > MAX_BYTES:
        raise UsageError(
            f"the page of '{checkpoint.name}' would have {expected / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB",
            f"ddpmctl export {public_name(checkpoint)} {checkpoint.name}.onnx",
        )


def build_page(checkpoint: Checkpoint) -> str:
    """The page of a model, as HTML; its weights are rounded to half precision."""
    check_page(checkpoint)
    halves = half_precision(checkpoint)
    settings = _settings(checkpoint, halves)
    kernel = resources.files("ddpmctl.exports") / "web" / "multiply.wasm"
    return load_template("ddpmctl.exports", "web/page.html.j2").render(
        name=public_name(checkpoint),
        dataset=checkpoint.manifest.dataset.name.partition(":")[0],
        version=__version__,
        settings=_embedded(settings),
        guidable=settings["guidable"],
        weights=_parts(halves.data),
        kernel=base64.b64encode(kernel.read_bytes()).decode(),
        worker=_sources(*WORKER),
        script=_sources(*PAGE),
        style=_sources("page.css"),
        parameters=checkpoint.trained_parameters(),
        distillation=checkpoint.manifest.config.distillation,
    )


def _sources(*names: str) -> str:
    folder = resources.files("ddpmctl.exports") / "web"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _parts(data: bytes) -> list[str]:
    return [base64.b64encode(data[at : at + PART_BYTES]).decode() for at in range(0, len(data), PART_BYTES)]


def half_precision(checkpoint: Checkpoint) -> Halves:
    """The weights of a model as float16; raises an error for one that does not fit."""
    shapes, parts = [], []
    # Sorted: the same model always gives the same page.
    for name, array in sorted(checkpoint.weights().items()):
        with np.errstate(over="ignore"):
            rounded: NDArray[np.float16] = array.astype("<f2")
        if not np.isfinite(rounded).all():
            raise DdpmctlError(
                f"the weights '{name}' of '{checkpoint.name}' exceed half precision",
                f"ddpmctl export {public_name(checkpoint)} {checkpoint.name}.onnx",
            )
        shapes.append((name, array.shape))
        parts.append(rounded.tobytes())
    return Halves(shapes, b"".join(parts))


def _settings(checkpoint: Checkpoint, halves: Halves) -> dict[str, object]:
    """The JSON in the page; `PageModel` in ``web/types.d.ts`` describes it."""
    config, classes = checkpoint.manifest.config, checkpoint.manifest.classes
    diffusion, model, sampling = config.diffusion, config.model, config.sampling
    if sampling.sampler not in SAMPLER_STEPS:
        # The sampler of a plugin is Python.
        sampling = resolve_sampling(config, sampler="ddim")
    length = config.chain_length
    samplers = {name: min(steps or length, length) for name, steps in SAMPLER_STEPS.items()}
    return {
        "name": public_name(checkpoint),
        "classes": classes,
        "centred": checkpoint.manifest.dataset.name.partition("-")[0] in CENTRED and model.channels == 1,
        "guidable": model.supports_guidance and config.distillation is None,
        "model": {
            name: getattr(model, name)
            for name in ("network", "image_size", "sample_size", "channels", "num_classes", "widths", "blocks", "patch",
                         "embedding", "norm", "gaussian_rank", "gaussian_clusters")
        },
        "parameterization": diffusion.parameterization,
        "clip_x0": diffusion.clip_x0,
        "pixel_range": diffusion.pixel_range,
        "alpha_bar": build_diffusion(diffusion).schedule.alpha_bar.tolist(),
        "sampling": {name: getattr(sampling, name) for name in ("sampler", "steps", "guidance", "guidance_interval")},
        "samplers": samplers | {sampling.sampler: sampling.steps},
        "chain_length": length,
        "closed_form": _closed_form(config),
        "tensors": halves.shapes,
    }  # fmt: skip


def _closed_form(config: Config) -> dict[str, object] | None:
    """How the chain of a student begins."""
    if not config.closed_form:
        return None
    timesteps = [t for t in chain_timesteps(config, config.sampling.steps) if t >= config.chain_length]
    settings = {name: getattr(config.closed_form, name) for name in ("guidance", "guidance_interval")}
    return {"timesteps": timesteps, **settings}


def _embedded(value: object) -> str:
    """JSON for a script element, which no class name can end."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
