"""``ddpmctl inspect --at``: the denoising probe."""

from pathlib import Path

import pytest
import torch

from ddpmctl.data import load_dataset
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import channels_last_pixels
from ddpmctl.sampling.probe import probe_denoising
from tests.builders import register_random, tiny_config
from tests.conftest import Cli

from .support import complaint, pixels, reported

GAP, SIDE, BAND = 6, 32 * 4, 25


def test_a_picture_has_a_row_a_timestep_and_the_figures_beside(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("inspect", "tiny", "--at", 900, "--at", 10, "--label", "eight", "-o", "levels.png", "--json")
    told = reported(done, "inspect")
    assert told["file"] == "levels.png"
    first, second = told["levels"]
    assert (first["t"], second["t"]) == (900, 10)
    assert first["signal"] ** 2 + first["noise"] ** 2 == pytest.approx(1)
    # Near the image the image is nearly told, and near the noise the noise.
    assert second["mse_of_x0"] < first["mse_of_x0"]
    assert first["mse_of_noise"] < second["mse_of_noise"]
    assert pixels(tmp_path / "levels.png").shape == (GAP + 2 * (BAND + SIDE + GAP), GAP + 5 * (SIDE + GAP))


def test_the_same_is_a_table_for_people_and_the_picture_gets_a_name(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("inspect", "tiny", "--at", 500, "--label", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:5] == ["t", "signal", "noise", "mse_of_noise", "mse_of_x0"]
    assert done.stdout.split()[-1] == "at-500.png"
    assert (tmp_path / "at-500.png").is_file()


@pytest.mark.parametrize(
    ("typed", "error", "hint"),
    [
        (("--at", 500), "--at requires --label", "--at 500 --label 8"),
        (("--at", 1000, "--label", 8), "timestep 1000 is out of range: this model has 1000 timesteps", "--at 0..999"),
        (("--at", -1, "--label", 8), "timestep -1 is out of range: this model has 1000 timesteps", "--at 0..999"),
        (("--at", 5, "--label", "ate"), "unknown label 'ate'", None),
    ],
)
def test_what_cannot_be_looked_at_is_said(
    tiny_here: Cli, typed: tuple[object, ...], error: str, hint: str | None
) -> None:
    said = complaint(tiny_here("inspect", "tiny", *typed), 2)
    assert said[0] == error
    assert hint is None or said[1] == hint


@pytest.mark.parametrize("target", ["v", "epsilon", "x0"])
@pytest.mark.parametrize("pixel_range", [[-1, 1], [0, 1]])
def test_the_parts_of_a_probe_fit_together(tmp_path: Path, target: str, pixel_range: list[float]) -> None:
    registry = Registry(tmp_path)
    register_random(registry, "a", tiny_config(diffusion={"parameterization": target, "pixel_range": pixel_range}))
    engine = Engine(registry.open("a"), "cpu", "fp32")
    image = channels_last_pixels(load_dataset("strokes:20", 32).images[:1])[0]
    probe = probe_denoising(engine, image, "three", 400, seed=2)
    low, high = pixel_range
    assert probe.x0.min() == pytest.approx(low)
    assert probe.x0.max() == pytest.approx(high, abs=0.02)
    alpha, sigma = engine.diffusion.schedule.alpha[400].float(), engine.diffusion.schedule.sigma[400].float()
    torch.testing.assert_close(probe.x, alpha * probe.x0 + sigma * probe.epsilon)
    # The predicted image and noise make the same noisy image.
    torch.testing.assert_close(probe.x, alpha * probe.pred_x0 + sigma * probe.pred_epsilon, atol=1e-4, rtol=1e-4)
    assert probe_denoising(engine, image, "three", 400, seed=2).x.equal(probe.x)
    assert not probe_denoising(engine, image, "three", 400, seed=3).x.equal(probe.x)
    assert probe.errors["x0"] == pytest.approx(float((probe.pred_x0 - probe.x0).square().mean()))
