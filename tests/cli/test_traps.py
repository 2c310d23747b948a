"""The mistakes of the three lessons are settings: a model trained with one is an ordinary model."""

import json
from pathlib import Path
from typing import Any

import pytest

from ddpmctl.registry import Registry
from tests.conftest import Cli

from .support import complaint, frames, pixels

SMALL = ("--preset", "quick", "--device", "cpu", "--dataset", "strokes:60", "--epochs", 2, "--batch-size", 27)

TRAPS = {
    ("--target", "x0"): ("diffusion.parameterization", "v", "x0"),
    ("--pixel-range", "0..1"): ("diffusion.pixel_range", [-1.0, 1.0], [0.0, 1.0]),
    ("--norm", "batch"): ("model.norm", "group", "batch"),
}


def flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested tables as dotted names."""
    found = {}
    for name, value in values.items():
        found.update(flat(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value})
    return found


@pytest.mark.parametrize("trap", TRAPS, ids=" ".join)
def test_a_trap_is_one_setting_and_its_model_loads_generates_animates_and_inspects(
    here: Cli, tmp_path: Path, trap: tuple[str, str]
) -> None:
    for name, options in (("fix", ()), ("trap", trap)):
        assert here("train", *SMALL, *options, "--name", name).returncode == 0
    configs = [flat(json.loads(Registry(tmp_path).open(name).manifest.to_json())["config"]) for name in ("fix", "trap")]
    different = [
        (field, configs[0][field], configs[1][field]) for field in configs[0] if configs[0][field] != configs[1][field]
    ]
    assert different == [TRAPS[trap]]

    for sampler in ("ddpm", "ddim", "dpmpp", "dpmpp-sde"):
        done = here("generate", 3, "-m", "trap", "--sampler", sampler, "--steps", 5, "--seed", 1, "-o", "three.png")
        assert done.returncode == 0, done.stderr
        assert pixels(tmp_path / "three.png").shape == (32, 32)
    assert here("animate", 3, "-m", "trap", "--frames", 4, "--show", "both", "-o", "three.gif").returncode == 0
    assert len(frames(tmp_path / "three.gif")[0]) == 4
    described = here("inspect", "trap").stdout
    assert {"x0": "x0-prediction", "0..1": "pixels from 0 to 1", "batch": "BatchNorm"}[trap[1]] in described
    assert here("models", "verify", "trap").returncode == 0
    assert here("train", "--resume", "trap", "--epochs", 1).returncode == 0


def test_an_image_from_a_chain_with_pixels_in_0_to_1_uses_the_whole_range_of_grey(here: Cli, tmp_path: Path) -> None:
    assert here("train", *SMALL, "--pixel-range", "0..1", "--epochs", 30, "--name", "a").returncode == 0
    assert here("generate", 3, "-m", "a", "--seed", 1, "-o", "three.png").returncode == 0
    image = pixels(tmp_path / "three.png")
    # The background is black and not the grey that 0 means between -1 and 1.
    assert (image < 64).mean() > 0.5
    assert image.max() > 128


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--target", "noise"), "unknown target 'noise'"),
        (("--pixel-range", "0..255"), "unknown pixel range '0..255'"),
        (("--norm", "layer"), "unknown norm 'layer'"),
        (
            ("--norm", "batch", "--preset", "classic"),
            "invalid settings: the classic network supports only GroupNorm",
        ),
        (("--norm", "batch", "--accumulate", 2), "BatchNorm would use different statistics with gradient accumulation"),
    ],
)
def test_what_is_no_such_setting_is_refused(here: Cli, options: tuple[object, ...], error: str) -> None:
    assert complaint(here("train", *SMALL, *options), 2)[0] == error
