"""Models of every kind of network, with weights that half precision does not change."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpmctl.config import Config, load_preset
from tests.builders import random_weights, tiny_config, tiny_values

STUDENT = {
    "teacher": "tiny", "digest": "0" * 64, "steps": 4, "substeps": 12, "parameterization": "v", "clip_x0": True,
    "guidance": 1.5, "guidance_interval": [0.0, 1.0],
}  # fmt: skip


CLOSED_FORM = {"end": 0.7, "steps": 3, "guidance": 1.5, "guidance_interval": [0.0, 0.9]}


def student_config(closed_form: bool = False) -> Config:
    values = tiny_values()
    values["sampling"] |= {"sampler": "ddim", "steps": 4, "guidance": 1.0}
    if closed_form:
        values["model"] |= {"gaussian_rank": 8, "gaussian_clusters": 3}
    return Config.from_dict(values | {"distillation": STUDENT | {"closed_form": CLOSED_FORM if closed_form else None}})


def classic_config() -> Config:
    return load_preset("classic").config


CONFIGS = {
    "guided": tiny_config(model={"widths": [16, 32, 32], "patch": 2}),
    "gaussian": tiny_config(
        model={"gaussian_rank": 8, "gaussian_clusters": 3, "blocks": 2},
        diffusion={"parameterization": "epsilon", "schedule": "linear", "clip_x0": False},
    ),
    "batch": tiny_config(
        model={"norm": "batch", "sample_size": 28, "patch": 2, "widths": [16, 16, 16]},
        diffusion={"parameterization": "x0", "pixel_range": [0, 1], "timesteps": 200},
    ),
    "colour": tiny_config(model={"channels": 3, "image_size": 64, "sample_size": 64, "num_classes": 3, "patch": 1}),
    "student": student_config(),
    "beginning": student_config(closed_form=True),
    "classic": classic_config(),
}


def halves(config: Config) -> dict[str, NDArray[Any]]:
    """Random weights that half precision does not change."""
    weights = {name: array.astype(np.float16).astype(np.float32) for name, array in random_weights(config).items()}
    for name, array in weights.items():
        if name.endswith(("running_var", "variance", "rest", "gaussian.weight")):
            weights[name] = np.abs(array) + np.float32(0.25)
            weights[name] = weights[name].astype(np.float16).astype(np.float32)
        if name.endswith(("embedding.label.weight", "label_embedding.weight")):
            weights[name] *= 16  # classes that differ
    return weights
