"""Networks at the native resolution of the data: image files keep their size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision_functional

from ddpmctl.build import build_network
from ddpmctl.config import load_preset
from ddpmctl.data import default_sample_size
from ddpmctl.data.dataset import resized
from ddpmctl.registry import Registry, last_of
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import to_pixels
from ddpmctl.sampling.probe import probe_denoising
from tests.builders import register_random, tiny_config
from tests.conftest import Cli


@pytest.mark.parametrize("preset", ["quick", "standard"])
@pytest.mark.parametrize("side", [28, 32, 30, 26, 64])
def test_the_network_takes_any_even_side_and_gives_it_back(preset: str, side: int) -> None:
    config = load_preset(preset).config
    network = build_network(replace(config, model=replace(config.model, image_size=64, sample_size=side))).eval()
    output = network(torch.randn(2, 1, side, side), torch.tensor([3, 999]), torch.tensor([1, 2]))
    assert output.shape == (2, 1, side, side)


def test_an_odd_side_inside_the_network_loses_no_pixel() -> None:
    """28 becomes 14, 7 and 4: a change of any pixel of the image still changes the output, at the far corner too."""
    torch.manual_seed(0)
    config = load_preset("quick").config
    # The Gaussian denoiser would connect all pixels by itself.
    model = replace(config.model, sample_size=28, gaussian_rank=0)
    network = build_network(replace(config, model=model)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 1, 28, 28, requires_grad=True)
    network(x, torch.tensor([500]), torch.tensor([1]))[..., 14:, 14:].square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad[0, 0] != 0).all())


def test_samples_are_resized_as_training_images_are() -> None:
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = torchvision_functional.resize(images, [32, 32], antialias=True)
    assert torch.equal(resized(images, 32), expected)
    made = to_pixels(images.float() / 127.5 - 1, size=32)
    assert np.array_equal(made, expected[:, 0].numpy())


@pytest.mark.parametrize(
    ("preset", "dataset", "side"),
    [
        ("quick", "mnist", 28),
        ("standard", "fashion-mnist", 28),
        ("quick", "strokes:300", 28),
        ("classic", "mnist", 32),
        ("quick", "folder:pictures", 32),
    ],
)
def test_a_gpu_and_float32_compute_at_the_data_set_s_own_side(preset: str, dataset: str, side: int) -> None:
    model = load_preset(preset).config.model
    for kind, precision in (("cuda", "bf16"), ("cuda", "fp32"), ("cpu", "fp32"), ("mps", "fp32")):
        assert default_sample_size(model, dataset, kind, precision) == side
    assert default_sample_size(model, dataset, "cpu", "bf16") == 32


def test_files_and_arrays_are_as_large_as_ever(tmp_path: Path) -> None:
    register_random(Registry(tmp_path), "small", tiny_config(model={"sample_size": 28}))
    engine = Engine(Registry(tmp_path).open("small"), "cpu", "fp32")
    images = engine.generate([3, 4], seed=1, steps=2)
    assert images.shape == (2, 32, 32)
    *_, last = engine.steps(engine.request([3, 4], 1, steps=2))
    assert last.x0.shape == (2, 1, 28, 28)
    assert np.array_equal(to_pixels(last.x0, size=32), images)
    probe = probe_denoising(engine, images[0], 3, 500)
    assert probe.x0.shape == (1, 28, 28)


@pytest.mark.slow
def test_a_training_computes_at_that_side_and_is_resumed_and_evaluated_with_it(here: Cli, tmp_path: Path) -> None:
    small = (
        "--preset",
        "quick",
        "--device",
        "cpu",
        "--dataset",
        "strokes:200",
        "--batch-size",
        50,
        "--sample-size",
        28,
    )
    assert here("train", *small, "--epochs", 2, "--name", "a").returncode == 0
    model = Registry(tmp_path).open("a").manifest.config.model
    assert (model.sample_size, model.image_size) == (28, 32)
    assert here("train", "--resume", "a", "--epochs", 1).returncode == 0
    assert last_of(Registry(tmp_path).open("a")).manifest.run.stopped == "done"
    done = here("evaluate", "a", "-n", 100, "--steps", 2, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "is not the one that this model was trained on" not in done.stderr
    assert here("inspect", "a", "--at", 500, "--label", 3, "--device", "cpu").returncode == 0
    for command in (("generate", 3), ("animate", 3, "--frames", 3, "--steps", 3), ("grid",)):
        assert here(*command, "-m", "a", "--device", "cpu").returncode == 0, command


def test_the_side_can_be_given(here: Cli, tmp_path: Path) -> None:
    small = ("--preset", "quick", "--device", "cpu", "--dataset", "strokes:60", "--max-steps", 1)
    assert here("train", *small, "--sample-size", 32, "--name", "a").returncode == 0
    assert Registry(tmp_path).open("a").manifest.config.model.sample_size == 32
    refused = here("train", *small, "--sample-size", 27)
    assert refused.returncode == 2
    assert "sample_size must be a multiple of 2 in 8..32" in refused.stderr
