"""One batch along the chain: which noise it draws, and the same images where its steps are captured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ddpmctl.build import build_diffusion, build_network
from ddpmctl.config import SamplingConfig, load_preset
from ddpmctl.core.noise import normal, normal_from_key
from ddpmctl.core.samplers import SAMPLERS, Noise, PredictX0, Step
from ddpmctl.core.schedule import Schedule
from ddpmctl.cuda_graphs import EAGER_CALLS
from ddpmctl.errors import DdpmctlError
from ddpmctl.lessons.batchnorm import batch_statistics
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import SMALLEST_BATCH, SamplingStep, sample_trajectory
from ddpmctl.sampling.probe import probe_denoising
from tests.builders import FakeGraphs, register_random, tiny_config

SHAPE = (1, 32, 32)
GUIDED = {"guidance": 2.0, "guidance_interval": (0.2, 0.7)}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def eager(registry: Registry) -> Engine:
    register_random(registry, "random", tiny_config(), scale=0.1)
    return Engine(registry.open("random"), "cpu", "fp32")


def with_graphs(engine: Engine, graphs: FakeGraphs) -> Engine:
    """The same model on a CPU that captures."""
    captured = Engine(engine.checkpoint, "cpu", engine.precision)
    captured.sampling_step = SamplingStep(
        captured.network, captured.config.model.num_classes, captured.device, captured.precision, graphs,
    )  # fmt: skip
    return captured


# Noise


@pytest.mark.parametrize("graphs", [None, FakeGraphs()], ids=["eager", "captured"])
@pytest.mark.parametrize("per_step", [0, 1, 3])
@pytest.mark.parametrize("images", [1, SMALLEST_BATCH + 3])
def test_every_draw_of_a_sampler_is_the_next_one_of_each_seed(
    eager: Engine, monkeypatch: pytest.MonkeyPatch, graphs: FakeGraphs | None, per_step: int, images: int
) -> None:
    drawn: list[Tensor] = []

    def sampler(
        predict_x0: PredictX0, schedule: Schedule, x: Tensor, timesteps: list[int], noise: Noise
    ) -> Iterator[Step]:
        drawn.append(x)
        for index, t in enumerate(timesteps):
            drawn.extend(noise() for _ in range(per_step))
            yield Step(index, t, x, predict_x0(x, t))

    monkeypatch.setitem(SAMPLERS, "plugin", sampler)
    step = SamplingStep(eager.network, 10, eager.device, "fp32", graphs)
    sampling = SamplingConfig(sampler="plugin", steps=4, guidance=1.0, guidance_interval=(0.0, 1.0))
    seeds = range(70, 70 + images)
    *_, last = sample_trajectory(step, eager.diffusion, eager.config, sampling, [8] * images, seeds)
    assert last.x.shape == last.x0.shape == (images, *SHAPE)
    assert len(drawn) == 1 + 4 * per_step
    for number, noise in enumerate(drawn):
        assert noise.shape == drawn[0].shape
        assert torch.equal(noise[:images], normal(seeds, number, SHAPE))


def test_step_k_of_ancestral_sampling_adds_draw_k_plus_one(eager: Engine) -> None:
    with torch.no_grad():
        for parameter in eager.network.parameters():
            parameter.zero_()
    steps = list(eager.trajectory(8, seed=9, sampler="ddpm", steps=4))
    schedule, x = eager.diffusion.schedule, normal([9], 0, SHAPE).double()
    # Ho et al. 2020, algorithm 2, with v = 0: x0 = sqrt(alpha_bar) x, clipped.
    for k, (t, t_next) in enumerate([(999, 749), (749, 499), (499, 249)]):
        alpha_bar, alpha_bar_next = schedule.signal(t), schedule.signal(t_next)
        alpha = alpha_bar / alpha_bar_next
        x0 = (alpha_bar**0.5 * x).clamp(-1, 1)
        mean = (alpha_bar_next**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - alpha_bar_next) * x) / (1 - alpha_bar)
        variance = (1 - alpha) * (1 - alpha_bar_next) / (1 - alpha_bar)
        x = mean + variance**0.5 * normal([9], k + 1, SHAPE).double()
        torch.testing.assert_close(steps[k].x.double(), x, atol=1e-5, rtol=0)


def test_a_probe_adds_the_noise_that_a_chain_of_this_seed_starts_from(eager: Engine) -> None:
    probe = probe_denoising(eager, np.zeros((32, 32), np.uint8), 8, 500, seed=2**40)
    assert torch.equal(probe.epsilon, normal([2**40], 0, SHAPE)[0])


# Captured steps


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_captured_steps_make_the_same_images_bit_for_bit(eager: Engine, sampler: str) -> None:
    graphs = FakeGraphs()
    captured = with_graphs(eager, graphs)
    labels = [k % 10 for k in range(24)]
    settings: dict[str, Any] = {"sampler": sampler, "steps": 10, **GUIDED}
    for seed in (0, 1000):
        images = captured.generate(labels, seed, batch_size=8, **settings)
        assert np.array_equal(images, eager.generate(labels, seed, batch_size=8, **settings))
    # The guided output, the plain one and the noise, once each however many steps and batches.
    assert graphs.events.count("capture") == 3


def test_a_chain_that_ends_before_a_capture_would_pay_captures_nothing(eager: Engine) -> None:
    graphs = FakeGraphs()
    with_graphs(eager, graphs).generate([8], sampler="ddim", steps=EAGER_CALLS, guidance=1.0)
    assert "capture" not in graphs.events


def test_a_smaller_last_batch_takes_the_graph_of_those_before_it(eager: Engine) -> None:
    graphs, told = FakeGraphs(), list[int]()
    captured = with_graphs(eager, graphs)
    sizes: set[int] = set()
    captured.network.register_forward_hook(lambda module, inputs, output: sizes.add(len(inputs[0])))
    settings: dict[str, Any] = {"sampler": "ddim", "steps": 5, "guidance": 1.0}
    labels = [k % 10 for k in range(37)]
    images = captured.generate(labels, 3, batch_size=16, on_step=told.append, **settings)
    assert sizes == {16}
    assert graphs.events.count("capture") == 1
    assert told == [16] * 10 + [5] * 5
    assert np.array_equal(images[:32], eager.generate(labels[:32], 3, batch_size=16, **settings))
    rest = eager.generate(labels[32:], 35, **settings)
    assert np.abs(images[32:].astype(int) - rest.astype(int)).max() <= 1


def test_a_capture_that_fails_makes_the_same_images_and_says_so(
    eager: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    captured = with_graphs(eager, FakeGraphs(RuntimeError("not while capturing")))
    images = captured.generate([8, 3], 5, sampler="ddim", steps=6, guidance=1.0)
    assert np.array_equal(images, eager.generate([8, 3], 5, sampler="ddim", steps=6, guidance=1.0))
    assert caplog.messages == ["CUDA graph capture failed, continuing without it (slower): not while capturing"]


def test_a_capture_without_memory_makes_smaller_batches(eager: Engine, caplog: pytest.LogCaptureFixture) -> None:
    graphs = FakeGraphs(torch.OutOfMemoryError("CUDA out of memory"))
    captured = with_graphs(eager, graphs)
    whole = eager.generate([8] * 20, 5, sampler="ddim", steps=6, guidance=1.0)
    small: dict[str, Any] = {"batch_size": 16, "sampler": "ddim", "steps": 6, "guidance": 1.0}

    def fits(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        graphs.error = graphs.error if len(inputs[0]) > 8 else None

    captured.network.register_forward_pre_hook(fits)
    images = captured.generate([8] * 20, 5, **small)
    assert np.abs(images.astype(int) - whole.astype(int)).max() <= 1
    assert caplog.messages == ["a batch of 16 images does not fit in memory: continuing with batches of 8"]
    assert graphs.events.count("capture") == 2
    graphs.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(DdpmctlError, match=r"^a batch of 17 images does not fit in memory$"):
        with_graphs(eager, graphs).generate([8] * 17, 5, fixed=True, sampler="ddim", steps=6, guidance=1.0)


def test_a_graph_of_running_statistics_is_not_replayed_for_those_of_the_batch(registry: Registry) -> None:
    register_random(registry, "batch", tiny_config(model={"norm": "batch"}))
    eager = Engine(registry.open("batch"), "cpu", "fp32")
    for module in eager.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.abs_()
    captured = with_graphs(eager, FakeGraphs())
    captured.network.load_state_dict(eager.network.state_dict())
    labels = list(range(10))
    settings: dict[str, Any] = {"sampler": "ddim", "steps": 5, "guidance": 1.0}
    running = [engine.generate(labels, **settings) for engine in (eager, captured)]
    with batch_statistics(eager), batch_statistics(captured):
        of_batch = [engine.generate(labels, **settings) for engine in (eager, captured)]
    assert np.array_equal(running[0], running[1])
    assert np.array_equal(of_batch[0], of_batch[1])
    assert not np.array_equal(running[0], of_batch[0])


def test_weights_that_are_updated_in_place_are_those_of_the_next_replay(eager: Engine) -> None:
    captured = with_graphs(eager, FakeGraphs())
    settings: dict[str, Any] = {"sampler": "ddim", "steps": 6, "guidance": 1.0}
    before = captured.generate([8], **settings)
    with torch.no_grad():
        for network in (eager.network, captured.network):
            for parameter in network.parameters():
                parameter.mul_(1.5)
    after = captured.generate([8], **settings)
    assert np.array_equal(after, eager.generate([8], **settings))
    assert not np.array_equal(after, before)


@pytest.mark.parametrize("preset", ["quick", "classic"])
def test_no_step_waits_for_a_gpu_or_reads_from_it(preset: str) -> None:
    # Tensors without data, said to be on a GPU: what reads a value or mixes devices is an error.
    config, device = load_preset(preset).config, torch.device("cuda")
    with FakeTensorMode():
        with mock.patch("ddpmctl.core.defaults.CPU", device):
            network = build_network(config).eval()
        diffusion = build_diffusion(config.diffusion).to(device)
        step = SamplingStep(network, config.model.num_classes, device, "fp32")
        x, label = torch.empty(16, *SHAPE, device=device), torch.zeros(16, dtype=torch.int64, device=device)
        times = torch.full((16,), 500, device=device)
        for scale in (1.0, 2.0):
            x0 = diffusion.predict_x0(x, times, step.model_output(x, times, label, scale))
            assert (x0.device.type, x0.dtype, x0.shape) == ("cuda", torch.float32, x.shape)
        if preset == "quick":
            for precision in ("fp32", "bf16"):
                closed_form = SamplingStep(network, config.model.num_classes, device, precision).closed_form
                velocity = closed_form(x, times, label, 1.5)
                assert (velocity.device.type, velocity.dtype, velocity.shape) == ("cuda", torch.float32, x.shape)
        key, draw = (torch.zeros(size, dtype=torch.int32, device=device) for size in ((2, 16), ()))
        noise = normal_from_key(key, draw, shape=SHAPE)
        assert (noise.device.type, noise.dtype, noise.shape) == ("cuda", torch.float32, x.shape)
