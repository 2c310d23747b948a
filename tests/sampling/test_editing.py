"""Edited, mixed and interpolated images against their equations, and against data whose conditionals are known."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from ddpmctl.core.noise import normal
from ddpmctl.core.samplers import SAMPLERS, Noise, PredictX0, Step
from ddpmctl.core.schedule import Schedule, cosine, linear
from ddpmctl.errors import UsageError
from ddpmctl.registry import Registry
from ddpmctl.sampling import editing
from ddpmctl.sampling.editing import chain_timesteps, keep_known, resample, spherical
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import SamplingStep
from ddpmctl.sampling.request import SamplingRequest
from ddpmctl.sampling.variation import Between, Start, Variation, parse_mix
from tests.builders import DIGITS, FakeGraphs, register_random, tiny_config

SHAPE = (1, 32, 32)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    home = tmp_path_factory.mktemp("random")
    register_random(Registry(home), "random", tiny_config(), scale=0.1)
    return Engine(Registry(home).open("random"), "cpu", "fp32")


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """A picture that is taken as it is."""
    pixels = np.zeros((32, 32), np.uint8)
    pixels[6:26, 12:18] = 200
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def started(engine: Engine, drawing: Path, strength: float, mask: Path | None = None) -> Variation:
    return Variation(start=Start.read(engine.checkpoint, drawing, strength, mask=mask))


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# A picture that is noised and denoised (SDEdit)


@pytest.mark.parametrize(
    ("length", "steps", "strength", "expected"),
    [
        (1000, 20, 0.6, [599, 549, 499, 449, 399, 349, 299, 249, 199, 149, 99, 49]),
        (1000, 20, 1.0, [999 - 50 * k for k in range(20)]),
        (1000, 4, 0.6, [499, 249]),
        (1000, 4, 0.1, [249]),
        (1000, 1, 0.3, [999]),
        (10, 10, 0.35, [3, 2, 1, 0]),
        (1000, 1000, 0.002, [1, 0]),
    ],
)
def test_the_chain_begins_at_the_strength(
    engine: Engine, drawing: Path, length: int, steps: int, strength: float, expected: list[int]
) -> None:
    config = tiny_config(diffusion={"timesteps": length}, sampling={"steps": 1})
    assert chain_timesteps(config, steps, started(engine, drawing, strength)) == expected


def test_it_starts_from_the_picture_with_draw_zero_of_each_seed(
    engine: Engine, drawing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def sampler(predict: PredictX0, schedule: Schedule, x: Tensor, times: list[int], noise: Noise) -> Iterator[Step]:
        seen.extend([x, times, noise()])
        yield Step(0, times[0], x, predict(x, times[0]))

    monkeypatch.setitem(SAMPLERS, "ddim", sampler)
    request = engine.request([8, 8, 8], 70, sampler="ddim", steps=20, variation=started(engine, drawing, 0.5))
    list(engine.steps(request))
    x, times, drawn = seen
    assert (times[0], engine.step_count(request)) == (499, 10)
    with Image.open(drawing) as image:
        x0 = torch.from_numpy(np.array(image)).double() / 127.5 - 1
    alpha, sigma = (float(each[499]) for each in (engine.diffusion.schedule.alpha, engine.diffusion.schedule.sigma))
    for k in range(3):
        assert_close(x[k, 0].double(), alpha * x0 + sigma * normal([70 + k], 0, SHAPE)[0, 0], atol=1e-5, rtol=0)
        assert torch.equal(drawn[k], normal([70 + k], 1, SHAPE)[0])


@pytest.mark.parametrize("sampler", ["dpmpp", "ddim", "dpmpp-sde"])
def test_full_strength_leaves_nothing_of_the_picture(engine: Engine, drawing: Path, sampler: str) -> None:
    settings: dict[str, Any] = {"sampler": sampler, "steps": 10}
    edited = engine.generate([8, 3], 5, variation=started(engine, drawing, 1.0), **settings)
    assert apart(edited, engine.generate([8, 3], 5, **settings)) <= 2


def test_little_strength_leaves_the_picture(engine: Engine, drawing: Path) -> None:
    with Image.open(drawing) as image:
        before = np.array(image)
    means = [
        np.abs(engine.generate([8], 5, steps=50, variation=started(engine, drawing, s))[0].astype(int) - before).mean()
        for s in (0.04, 0.3, 0.9)
    ]
    assert means[0] < 8
    assert means == sorted(means)


def test_the_end_of_the_full_ancestral_chain_is_that_of_the_whole_one() -> None:
    schedule, generator = linear(200), torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64) for _ in range(200)]

    def run(x: Tensor, first: int) -> list[Step]:
        left = iter(draws[first + 1 :])
        return list(
            SAMPLERS["ddpm"](lambda x, t: 0.3 * x, schedule, x, list(range(199 - first, -1, -1)), lambda: next(left))
        )

    whole = run(draws[0], 0)
    assert_close(run(whole[119].x, 120)[-1].x, whole[-1].x)


def test_a_student_of_one_step_can_be_edited(engine: Engine, drawing: Path) -> None:
    assert engine.step_count(engine.request([8], steps=1, variation=started(engine, drawing, 0.2))) == 1


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.01, float("nan")])
def test_a_strength_out_of_range_is_an_error(engine: Engine, drawing: Path, strength: float) -> None:
    with pytest.raises(UsageError, match="out of range"):
        started(engine, drawing, strength)


# A picture of which a part is kept (RePaint)


def masked(drawing: Path, engine: Engine, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images of which the left half changes, and the picture."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(drawing.with_name("mask.png"))
    variation = started(engine, drawing, 1.0, drawing.with_name("mask.png"))
    mask_read = variation.start.mask
    assert mask_read is not None
    assert mask_read[:, :16].all()
    assert not mask_read[:, 16:].any()
    return engine.generate([8, 3], 5, variation=variation, **settings), variation.start.drawing.pixels


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_black_is_kept_and_white_changes(engine: Engine, drawing: Path, sampler: str) -> None:
    made, before = masked(drawing, engine, sampler=sampler, steps=10)
    assert np.array_equal(made[:, :, 16:], before[None, :, 16:].repeat(2, 0))
    assert apart(made[:, :, :16], before[None, :, :16]) > 50
    assert apart(made[0, :, :16], made[1, :, :16]) > 20


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_the_known_part_has_the_noise_of_each_level(sampler: str) -> None:
    schedule, generator = cosine(100), torch.Generator().manual_seed(0)
    x0, changes = torch.full((1, 1, 64, 64), 0.7), torch.zeros(64, 64, dtype=torch.bool)

    def noise() -> Tensor:
        return torch.randn(4, 1, 64, 64, generator=generator)

    predict = keep_known(lambda x, t: torch.zeros_like(x), x0, changes)
    times = list(range(99, -1, -10))
    for step, t_next in zip(SAMPLERS[sampler](predict, schedule, noise(), times, noise), [*times[1:], -1], strict=True):
        alpha_bar = schedule.signal(t_next)
        assert float(step.x.mean()) == pytest.approx(0.7 * alpha_bar**0.5, abs=0.03)
        assert float(step.x.std()) == pytest.approx((1 - alpha_bar) ** 0.5, abs=0.03)


def test_resampling_brings_the_new_part_in_agreement_with_the_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pixels, normal with correlation 0.9: given the first is 1.2, the mean of the second is 1.08."""
    schedule, correlation, known = cosine(100), 0.9, 1.2
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(4000, 1, 1, 2, generator=generator, dtype=torch.float64)

    def best(x: Tensor, t: int) -> Tensor:
        alpha, sigma = float(schedule.alpha[t]), float(schedule.sigma[t])
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
        return torch.as_tensor(x @ gain.T)

    predict = keep_known(best, torch.full((1, 1, 1, 2), known, dtype=torch.float64), torch.tensor([[False, True]]))
    times = list(range(99, -1, -2))
    errors = []
    for repeats in (1, 4, 20):
        monkeypatch.setattr(editing, "REPEATS", repeats)
        steps = list(resample(SAMPLERS["ddpm"], predict, schedule, noise(), times, noise))
        assert [step.index for step in steps] == list(range(50 * repeats))
        assert torch.equal(steps[-1].x0[..., 0], torch.full((4000, 1, 1), known, dtype=torch.float64))
        errors.append(abs(float(steps[-1].x0[..., 1].mean()) - correlation * known))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.08 < errors[0]


# Mixed classes


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_mix_is_a_weighted_sum_of_predictions_and_then_guided(engine: Engine, scale: float) -> None:
    x, times = normal([1, 2], 0, SHAPE), torch.tensor([500, 500])

    def output(label: int) -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(engine.network(x, times, torch.tensor([label, label])))

    mix, step = ((8, 0.3), (1, 0.2)), engine.sampling_step
    found = step.model_output(x, times, torch.tensor([3, 3]), scale, mix)
    mean = 0.5 * output(3) + 0.3 * output(8) + 0.2 * output(1)
    null = output(10)
    assert_close(found, null + scale * (mean - null), atol=1e-5, rtol=0)


def test_the_whole_weight_is_the_other_class_and_none_is_the_own(engine: Engine) -> None:
    settings: dict[str, Any] = {"steps": 6, "guidance": 60.0}
    eights, threes = engine.generate([8] * 3, 4, **settings), engine.generate([3] * 3, 4, **settings)
    assert apart(engine.generate([3] * 3, 4, variation=Variation(mix=((8, 1.0),)), **settings), eights) <= 1
    assert apart(engine.generate([3] * 3, 4, variation=Variation(mix=((8, 0.0),)), **settings), threes) <= 1
    assert apart(engine.generate([3] * 3, 4, variation=Variation(mix=((8, 0.5),)), **settings), threes) > 5


def test_labels_and_weights_are_read() -> None:
    assert parse_mix(["8:0.5", "Zero:.25"], DIGITS) == ((8, 0.5), (0, 0.25))
    assert parse_mix(["a:b:0.5"], ("a:b", "c")) == ((0, 0.5),)
    for wrong in ("8", "8:", ":0.5", "8:x", "8:nan"):
        with pytest.raises(UsageError, match=f"'{wrong}' is not a label and a weight"):
            parse_mix([wrong], DIGITS)
    with pytest.raises(UsageError, match="unknown label 'eleven'"):
        parse_mix(["eleven:0.5"], DIGITS)


@pytest.mark.parametrize("mix", [((8, 1.5),), ((8, -0.1),), ((8, 0.6), (1, 0.6)), ((8, float("nan")),)])
def test_weights_beyond_one_are_an_error(mix: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(UsageError, match=r"mix weights must be in 0\.\.1 and sum to at most 1"):
        Variation(mix=mix)


# Noise between two seeds


def test_interpolated_noise_goes_along_the_great_circle() -> None:
    one, other = normal([3] * 5, 0, SHAPE), normal([4] * 5, 0, SHAPE)
    fractions = (0.0, 0.25, 0.5, 0.75, 1.0)
    between = spherical(one, other, fractions)
    assert_close(between[0], one[0])
    assert_close(between[-1], other[-1])

    def angle(a: Tensor, b: Tensor) -> float:
        cosine = torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0)
        return float(torch.arccos(cosine))

    whole = angle(one[0], other[0])
    for k, fraction in enumerate(fractions[1:], 1):
        assert angle(one[0], between[k]) == pytest.approx(fraction * whole, abs=0.01)
        # Unlike on the straight line, where it would be 0.7 in the middle.
        assert float(between[k].std()) == pytest.approx(1, abs=0.05)
    assert_close(spherical(one, one, fractions), one)


def test_the_ends_are_the_images_of_both_seeds(engine: Engine) -> None:
    settings: dict[str, Any] = {"sampler": "dpmpp", "steps": 8}
    between = engine.generate([3] * 9, 70, variation=Variation(between=Between.spread((70, 5), 9)), **settings)
    assert apart(between[0], engine.generate([3], 70, **settings)[0]) <= 1
    assert apart(between[-1], engine.generate([3], 5, **settings)[0]) <= 1
    whole, each = apart(between[0], between[-1]), [apart(a, b) for a, b in pairwise(between)]
    assert max(each) < whole
    # In batches of another size they are the same.
    variation = Variation(between=Between.spread((70, 5), 9))
    assert apart(engine.generate([3] * 9, 70, batch_size=4, variation=variation, **settings), between) <= 1


def test_a_sampler_that_draws_noise_is_replaced_or_refused(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    variation = Variation(between=Between.spread((1, 2), 3))

    def sampler(**settings: Any) -> str:
        return SamplingRequest.resolve(
            engine.checkpoint, [3] * 3, seed=1, variation=variation, **settings
        ).sampling.sampler

    assert (sampler(), sampler(sampler="ddim")) == ("dpmpp", "ddim")
    with pytest.raises(UsageError, match="dpmpp-sde draws noise in each step") as caught:
        sampler(sampler="dpmpp-sde")
    assert caught.value.hint == "sampler='dpmpp' or sampler='ddim'"


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_captured_mix_makes_the_same_images(engine: Engine, guidance: float) -> None:
    captured = Engine(engine.checkpoint, "cpu", "fp32")
    captured.sampling_step = SamplingStep(captured.network, 10, captured.device, "fp32", FakeGraphs())
    for mix in (((8, 0.3),), ((8, 0.6),)):
        settings: dict[str, Any] = {"steps": 8, "guidance": guidance, "variation": Variation(mix=mix)}
        assert np.array_equal(captured.generate([3] * 8, 1, **settings), engine.generate([3] * 8, 1, **settings))
