"""The engine: what an image depends on, and what it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ddpmctl
from ddpmctl.config import SEED, load_preset
from ddpmctl.core.samplers import SAMPLERS, Step
from ddpmctl.errors import CheckpointError, DdpmctlError, ExitCode, UsageError
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import to_pixels
from ddpmctl.sampling.probe import probe_denoising
from tests.builders import DIGITS, foreign_defaults, random_weights, register, register_random, tiny_config

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def trained(tiny_home: Path) -> Engine:
    """The tiny model, trained for two epochs."""
    return Engine(Registry(tiny_home).open("tiny"), "cpu")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A model with random weights, far quicker than the tiny one."""
    return made(tmp_path_factory.mktemp("random"))


def made(home: Path, scale: float = 0.1, **tables: dict[str, Any]) -> Engine:
    """An engine over random weights and the tiny settings but for these."""
    registry = Registry(home)
    config = tiny_config(**tables)
    classes = tuple(f"class {i}" for i in range(config.model.num_classes))
    register_random(registry, "random", config, scale=scale, classes=DIGITS if len(classes) == 10 else classes)
    return Engine(registry.open("random"), "cpu")


def grey_levels_apart(one: Images, other: Images) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# What an image depends on


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        ("dpmpp", 8),
        pytest.param("dpmpp-sde", 8, marks=pytest.mark.slow),
        pytest.param("ddim", 8, marks=pytest.mark.slow),
        pytest.param("ddpm", 20, marks=pytest.mark.slow),
    ],
)
def test_an_image_is_the_same_to_a_grey_level_in_batches_of_any_size(trained: Engine, sampler: str, steps: int) -> None:
    trained = Engine(trained.checkpoint, "cpu", "fp32")
    labels = [3, 1, 4, 1, 5, 9]
    settings: dict[str, Any] = {"sampler": sampler, "steps": steps}
    together = trained.generate(labels, seed=7, **settings)
    for size in (1, 2, 4, 5, 100):
        assert grey_levels_apart(trained.generate(labels, seed=7, batch_size=size, **settings), together) <= 1, size
    for k, label in enumerate(labels):
        assert grey_levels_apart(trained.generate([label], seed=7 + k, **settings)[0], together[k]) <= 1, k


@pytest.mark.parametrize(("sampler", "steps"), [("dpmpp", 8), pytest.param("ddpm", 20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [1, 3])
def test_an_image_is_the_same_bit_for_bit_in_batches_of_one_size(
    trained: Engine, sampler: str, steps: int, size: int
) -> None:
    settings: dict[str, Any] = {"sampler": sampler, "steps": steps, "batch_size": size}
    nine = trained.generate([3, 1, 4, 1, 5, 9, 2, 6, 5], seed=7, **settings)
    # From the middle on, in other places of their batches, among others.
    assert np.array_equal(trained.generate([1, 5, 9], seed=10, **settings), nine[3:6])
    assert np.array_equal(trained.generate([0, 9, 2], seed=11, **settings)[1:], nine[5:7])


def test_an_image_depends_on_its_own_seed_alone(trained: Engine) -> None:
    images = trained.generate([8] * 4, seed=20, steps=5)
    others = trained.generate([8, 1, 0, 8], seed=20, steps=5)
    assert grey_levels_apart(images[[0, 3]], others[[0, 3]]) <= 1
    for one in range(4):
        for other in range(one):
            assert grey_levels_apart(images[one], images[other]) > 30
    assert np.array_equal(images, trained.generate([8] * 4, seed=20, steps=5))


def test_the_rest_of_the_process_has_no_say(engine: Engine) -> None:
    torch.manual_seed(1)
    first = engine.generate([8], seed=5, sampler="ddpm", steps=10)
    torch.manual_seed(2)
    assert np.array_equal(engine.generate([8], seed=5, sampler="ddpm", steps=10), first)


@pytest.mark.parametrize(("sampler", "steps"), [("dpmpp", 4), ("dpmpp-sde", 4), ("ddim", 4), ("ddpm", 4)])
def test_the_defaults_of_torch_have_no_say(engine: Engine, sampler: str, steps: int) -> None:
    settings: dict[str, Any] = {"seed": 5, "sampler": sampler, "steps": steps, "guidance": 1.5}
    expected = engine.generate([8, 3], **settings)
    probe = probe_denoising(engine, expected[0], 8, 500)
    with foreign_defaults():
        other = Engine(engine.checkpoint, "cpu", engine.precision)
        for one in (other, engine):
            assert np.array_equal(one.generate([8, 3], **settings), expected)
            seen = probe_denoising(one, expected[0], 8, 500)
            assert seen.pred_x0.dtype == torch.float32
            assert torch.equal(seen.pred_x0, probe.pred_x0)
    assert np.array_equal(other.generate([8, 3], **settings), expected)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"sampler": "ddpm"},
        {"steps": 6},
        {"guidance": 3.0},
    ],
)
def test_every_setting_has_a_say(trained: Engine, change: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"seed": 5, "sampler": "ddim", "steps": 5, "guidance": 1.0}
    assert grey_levels_apart(trained.generate([8], **settings), trained.generate([8], **settings | change)) > 5


def test_the_label_has_a_say_unless_guidance_is_zero(trained: Engine) -> None:
    assert grey_levels_apart(trained.generate([3], steps=5), trained.generate([8], steps=5)) > 1
    three, eight = (trained.generate([label], steps=5, guidance=0.0) for label in (3, 8))
    assert np.array_equal(three, eight)


def test_the_recommendation_of_the_model_is_the_default(engine: Engine) -> None:
    recommended = engine.generate([8], seed=5, sampler="dpmpp", steps=20, guidance=1.3)
    assert np.array_equal(engine.generate([8], seed=5), recommended)


def test_guidance_costs_a_second_evaluation_where_it_acts(engine: Engine) -> None:
    asked: list[int] = []
    hook = engine.network.register_forward_hook(lambda module, inputs, answer: asked.append(len(inputs[0])))
    settings: dict[str, Any] = {"sampler": "ddim", "steps": 10, "guidance": 2.0, "guidance_interval": (0.3, 0.65)}
    engine.generate([8] * 8, seed=0, **settings)
    hook.remove()
    # Timesteps 999, 899, .. 99: those from 300 to 650 are 599, 499, 399.
    assert asked == [8] * 4 + [16] * 3 + [8] * 3
    assert engine.nfe(engine.request([8], **settings).sampling) == 13
    assert engine.nfe(engine.request([8], sampler="ddim", steps=10, guidance=1.0).sampling) == 10


def test_an_interval_that_holds_no_step_is_no_guidance(engine: Engine) -> None:
    nowhere = engine.generate([8], steps=4, guidance=5.0, guidance_interval=(0.01, 0.02))
    assert np.array_equal(nowhere, engine.generate([8], steps=4, guidance=1.0))
    assert not np.array_equal(nowhere, engine.generate([8], steps=4, guidance=5.0))


def test_bf16_makes_nearly_the_same_images(trained: Engine) -> None:
    fine, coarse = (Engine(trained.checkpoint, "cpu", precision) for precision in ("fp32", "bf16"))
    assert (fine.precision, coarse.precision) == ("fp32", "bf16")
    one, other = (one.generate(range(10), steps=10).astype(int) for one in (fine, coarse))
    assert 0 < np.abs(one - other).mean() < 4


# Steps


@pytest.mark.parametrize(("sampler", "steps"), [("dpmpp", 6), ("ddim", 6), ("ddpm", 12)])
def test_a_trajectory_ends_in_the_image(trained: Engine, sampler: str, steps: int) -> None:
    taken = list(trained.trajectory("eight", seed=4, sampler=sampler, steps=steps))
    assert [step.index for step in taken] == list(range(steps))
    assert [step.t for step in taken] == sorted({step.t for step in taken}, reverse=True)
    assert taken[0].t == 999
    side = trained.config.model.sample_size
    for step in taken:
        assert step.x.shape == step.x0.shape == (1, 1, side, side)
        assert step.x.dtype == step.x0.dtype == torch.float32
    image = trained.generate([8], seed=4, sampler=sampler, steps=steps)
    assert np.array_equal(to_pixels(taken[-1].x0, size=32), image)
    assert grey_levels_apart(to_pixels(taken[0].x, size=32), image) > 30


def test_a_trajectory_is_computed_as_it_is_read(engine: Engine) -> None:
    trajectory: Iterator[Step] = engine.trajectory(8, sampler="ddpm", steps=1000)
    assert next(trajectory).index == 0


def test_progress_is_told_for_every_image_and_step(engine: Engine) -> None:
    told: list[int] = []
    engine.generate([1, 2, 3, 4, 5], steps=3, batch_size=2, on_step=told.append)
    assert told == [2, 2, 2, 2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_a_single_step(engine: Engine, sampler: str) -> None:
    assert engine.generate([8], sampler=sampler, steps=1).shape == (1, 32, 32)


# Shapes, classes, colours


def test_images_are_bytes(engine: Engine) -> None:
    images = engine.generate([8, "three", "EIGHT", "3"], steps=4)
    assert images.shape == (4, 32, 32)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous


def test_labels_are_indices_or_names_in_any_case(engine: Engine) -> None:
    assert engine.classes == DIGITS
    by_index = engine.generate([8, 3, "0"], steps=2)
    assert np.array_equal(by_index, engine.generate(["Eight", "three", "ZERO"], steps=2))


@pytest.mark.parametrize("size", [16, 64])
def test_a_colour_model_makes_colour_images_of_its_size(tmp_path: Path, size: int) -> None:
    engine = made(tmp_path, model={"channels": 3, "image_size": size, "sample_size": size, "num_classes": 4})
    images = engine.generate([0, 3, "class 2"], steps=3)
    assert images.shape == (3, size, size, 3)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    assert any(grey_levels_apart(images[..., 0], images[..., channel]) for channel in (1, 2))
    *_, last = engine.trajectory(0, steps=3)
    assert last.x0.shape == (1, 3, size, size)
    assert np.array_equal(to_pixels(last.x0), engine.generate([0], steps=3))


def test_pixels_are_rounded_and_cut_off() -> None:
    x = torch.tensor([-7.0, -1.0, -0.999, 0.0, 0.5, 1.0, 3.0]).view(1, 1, 1, 7)
    assert to_pixels(x).tolist() == [[[0, 0, 0, 128, 191, 255, 255]]]


@pytest.mark.parametrize(("clip", "inside"), [(True, True), (False, False)])
def test_clipping_inside_the_chain_comes_with_the_model(tmp_path: Path, clip: bool, inside: bool) -> None:
    engine = made(tmp_path, scale=0.3, diffusion={"clip_x0": clip})
    farthest = max(float(step.x0.abs().max()) for step in engine.trajectory(8, sampler="ddim", steps=10))
    assert (farthest <= 1) is inside


def test_classic_samples_its_full_chain_unguided_and_unclipped(tmp_path: Path) -> None:
    preset = load_preset("classic").config
    registry = Registry(tmp_path)
    register(registry, "classic", weights=random_weights(preset, 0.02), config=preset)
    engine = Engine(registry.open("classic"), "cpu")
    recommended = engine.request([8]).sampling
    assert (recommended.sampler, recommended.steps, recommended.guidance) == ("ddpm", 1000, 1.0)
    assert engine.generate([8], sampler="ddim", steps=2).shape == (1, 32, 32)
    with pytest.raises(UsageError, match="this model has no null class and does not support guidance"):
        engine.generate([8], guidance=1.5)


# Loading


def test_the_package_offers_the_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    home = engine.checkpoint.path.parents[2]
    monkeypatch.setenv("DDPMCTL_HOME", str(home))
    for reference in ("random", "latest", None, str(engine.checkpoint.path)):
        loaded = ddpmctl.Engine.load(reference)
        assert isinstance(loaded, Engine)
        assert loaded.checkpoint.manifest == engine.checkpoint.manifest
    assert ddpmctl.__version__


def test_no_model_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="no models yet"):
        Engine.load()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    wide = tiny_config(model={"widths": [32, 32]})
    path = register(registry, "mixed", weights=random_weights(tiny_config()), config=wide)
    with pytest.raises(CheckpointError) as caught:
        Engine(registry.open("mixed"), "cpu")
    assert caught.value.message == f"damaged checkpoint: the weights in {path} do not match the manifest"


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path).checkpoint.path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="its sha256 is not the one in the manifest"):
        Engine(Registry(tmp_path).open("random"), "cpu")


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([], {}, "no labels"),
        ([12], {}, "unknown label '12'"),
        ([-1], {}, "unknown label '-1'"),
        (["eigth"], {}, "unknown label 'eigth'"),
        ([3.5], {}, "unknown label '3.5'"),
        ([8], {"sampler": "euler"}, "unknown sampler 'euler'"),
        ([8], {"steps": 0}, "0 steps are too few"),
        ([8], {"steps": 1001}, "1001 steps exceed the 1000 timesteps of this model"),
        ([8], {"guidance": 101.0}, "guidance 101 is out of range"),
        (
            [8],
            {"guidance_interval": (0.5, 0.2)},
            "invalid guidance interval: guidance_interval must be two numbers in 0..1, the lower one first",
        ),
        ([8], {"seed": -1}, "the seed -1 is out of range"),
        ([8, 8], {"seed": SEED.high}, f"the seed {SEED.high} is out of range"),
    ],
)
def test_what_cannot_be_made_is_refused(
    engine: Engine, labels: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        engine.generate(labels, **settings)
    assert caught.value.message == message
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_trajectory_refuses_before_it_is_read(engine: Engine) -> None:
    with pytest.raises(UsageError, match="unknown label '12'"):
        engine.trajectory(12)
    with pytest.raises(UsageError, match="the seed -1 is out of range"):
        engine.trajectory(8, seed=-1)


def test_the_largest_seeds_work(engine: Engine) -> None:
    assert engine.generate([8, 8], seed=SEED.high - 1, steps=1).shape == (2, 32, 32)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_at_least_one_image(engine: Engine, size: int) -> None:
    with pytest.raises(UsageError, match="batch"):
        engine.generate([8, 8], batch_size=size)


@pytest.mark.parametrize(
    ("device", "kind", "message"),
    [
        ("gpu", UsageError, "unknown device 'gpu'"),
        ("cuda:x", UsageError, "unknown device 'cuda:x'"),
        ("cpu:1", UsageError, "unknown device 'cpu:1'"),
        ("cuda", DdpmctlError, "CUDA is not available: torch "),
        ("cuda:3", DdpmctlError, "CUDA is not available: torch "),
        ("mps", DdpmctlError, "MPS is not available on this machine or in this build of torch"),
    ],
)
def test_a_device_that_is_not_here_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, device: str, kind: type[DdpmctlError], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(kind) as caught:
        Engine(engine.checkpoint, device)
    assert caught.value.message.startswith(message)
    assert type(caught.value) is kind


def test_auto_is_the_cpu_where_there_is_no_gpu(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert Engine(engine.checkpoint).device == torch.device("cpu")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["torch", "python"]
)
def test_where_memory_is_short_the_same_images_are_made_in_smaller_batches(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(made(tmp_path).checkpoint, "cpu", "fp32")
    labels = [k % 10 for k in range(40)]
    whole = engine.generate(labels, batch_size=64, steps=3)

    def limited(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 20:  # ten images, each with and without its label
            raise error

    handle = engine.network.register_forward_pre_hook(limited)
    parts = engine.generate(labels, batch_size=64, steps=3)
    assert np.abs(parts.astype(int) - whole.astype(int)).max() <= 1
    assert caplog.messages == [
        "a batch of 40 images does not fit in memory: continuing with batches of 20",
        "a batch of 20 images does not fit in memory: continuing with batches of 10",
    ]
    handle.remove()
    engine.network.register_forward_pre_hook(lambda module, inputs: (_ for _ in ()).throw(error))
    with pytest.raises(DdpmctlError, match=r"^not enough memory for a batch of 8 images$"):
        engine.generate(labels, steps=3)
