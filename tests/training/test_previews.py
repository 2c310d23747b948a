"""What a training draws of its way: within its share of the time, spread over the run, and changing nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddpmctl.core.noise import normal
from ddpmctl.data.dataset import Dataset
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import to_pixels
from ddpmctl.sampling.settings import preview_sampling
from ddpmctl.training import previews
from ddpmctl.training.execution import Execution
from ddpmctl.training.previews import COUNT, SHARE, Previews, draw_preview, preview_noise
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.train_step import TrainStep
from tests.builders import tiny_config

from .support import Train

PREVIEW = np.zeros((COUNT, 32, 32), np.uint8)


def drawn_over(seconds: float, cost: float, step: float = 0.1, rate: float = 640.0) -> tuple[Previews, list[float]]:
    """A run of so many seconds on a clock that only steps and previews move; and when its previews were drawn."""
    now, when = 0.0, []

    def draw() -> NDArray[np.uint8]:
        nonlocal now
        now += cost
        return PREVIEW

    kept = Previews(draw, lambda: None, lambda: now, lambda number, images: when.append(trained))
    trained, count = 0.0, round(seconds / step)
    kept.add(0, PREVIEW)
    for number in range(1, count + 1):
        trained = number * step
        kept.maybe_draw(number, trained, rate, round((count - number) * step * rate))
    kept.maybe_draw(count, trained, rate, 0)
    return kept, when


@pytest.mark.parametrize(("seconds", "cost"), [(40, 0.05), (90, 0.1), (600, 0.1), (3600, 2.0)])
def test_previews_take_no_more_than_their_share(seconds: float, cost: float) -> None:
    _, when = drawn_over(seconds, cost)
    drawn = len(when) - 1
    assert drawn * cost <= SHARE * seconds + 1e-9
    assert drawn >= 0.8 * SHARE * seconds / cost - 1


def test_where_they_cost_too_much_none_is_drawn() -> None:
    kept, _ = drawn_over(60, 5.0, step=5.0, rate=12.8)
    assert kept.steps == [0]


def test_more_are_drawn_early_when_more_changes_and_one_at_the_end() -> None:
    kept, when = drawn_over(300, 0.1)
    assert kept.steps[0] == 0
    assert kept.steps[-1] == 3000
    assert [step for step in kept.steps if 0 < step < 100][:4] == [8, 12, 17, 24]
    gaps = np.diff(when[10:])
    assert np.median(gaps) == pytest.approx(0.1 / SHARE, rel=0.1)
    assert gaps.max() < 15


def test_of_very_many_every_second_goes_and_the_ends_stay() -> None:
    kept, _ = drawn_over(36_000, 0.1, step=1.0)
    assert previews.MAX_PREVIEWS / 2 <= len(kept.steps) <= previews.MAX_PREVIEWS
    assert (kept.steps[0], kept.steps[-1]) == (0, 36_000)
    assert kept.steps == sorted(set(kept.steps))


def test_large_images_leave_room_for_fewer() -> None:
    kept = Previews(lambda: PREVIEW, lambda: None, lambda: 0.0, lambda step, images: None)
    large = np.zeros((COUNT, 64, 64, 3), np.uint8)
    for step in range(300):
        kept.add(step, large)
    assert sum(images.nbytes for images in kept.images) <= previews.MAX_BYTES


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if previews cost nothing."""
    monkeypatch.setattr(previews, "SHARE", 1e9)


def test_a_run_keeps_previews_of_every_step_and_tells_whoever_watches(train: Train, often: None) -> None:
    trained = train(epochs=2, batch_size=90)
    images, steps = trained.last.previews()
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    assert (images.shape, images.dtype) == ((7, COUNT, 32, 32), np.uint8)
    assert [step for step, _ in trained.watcher.previews] == steps
    assert all(np.array_equal(told, kept) for (_, told), kept in zip(trained.watcher.previews, images, strict=True))
    assert len({images[k].tobytes() for k in range(7)}) == 7


def test_the_last_preview_is_what_the_model_makes_of_the_same_seeds(train: Train, often: None) -> None:
    trained = train(epochs=1, batch_size=90)
    images, _ = trained.last.previews()
    way = preview_sampling(trained.last.manifest.config)
    engine = Engine(trained.last, "cpu", "fp32")
    again = engine.generate(list(range(10)), 0, sampler=way.sampler, steps=way.steps, guidance=way.guidance)
    assert np.abs(again.astype(int) - images[-1].astype(int)).max() <= 1
    assert np.array_equal(images[0], noise())


def noise() -> NDArray[np.uint8]:
    return to_pixels(normal(range(COUNT), 0, (1, 32, 32)))


def test_previews_change_nothing_of_what_is_learnt(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "SHARE", -1.0)
    without = train(epochs=2, batch_size=90)
    monkeypatch.setattr(previews, "SHARE", 1e9)
    drawn = train(epochs=2, batch_size=90)
    assert (len(without.last.previews()[1]), len(drawn.last.previews()[1])) == (1, 7)
    first, second = ({**run.state, **run.weights()} for run in (without, drawn))
    assert first.keys() == second.keys()
    assert [name for name in first if first[name].tobytes() != second[name].tobytes()] == []


def test_a_resumed_run_goes_on_with_the_previews_that_it_had(train: Train, often: None) -> None:
    done = 0

    def stop() -> bool:
        nonlocal done
        done += 1
        return done >= 4

    cut = train(epochs=2, batch_size=90, stop=stop)
    before = cut.last.previews()
    resumed = train(epochs=2, batch_size=90, resume=cut.name)
    images, steps = resumed.last.previews()
    assert steps[: len(before[1])] == before[1]
    assert steps[-1] == 6
    assert np.array_equal(images[: len(before[0])], before[0])


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ({"channels": 3}, (COUNT, 32, 32, 3)),
        ({"image_size": 64, "sample_size": 64, "widths": [16, 32, 32]}, (COUNT, 64, 64)),
        ({"num_classes": 3}, (COUNT, 32, 32)),
    ],
    ids=str,
)
def test_previews_have_the_model_s_colours_and_size(model: dict[str, Any], shape: tuple[int, ...]) -> None:
    config = tiny_config(model=model)
    side, channels = config.model.image_size, config.model.channels
    pixels = torch.zeros(4, channels, side, side, dtype=torch.uint8)
    names = tuple(f"class {k}" for k in range(config.model.num_classes))
    data = Dataset("made up", pixels, torch.zeros(4, dtype=torch.int64), names)
    step = TrainStep(config, data, RunSpec(), Execution(device=torch.device("cpu"), precision="fp32"))
    for preview in (draw_preview(step), preview_noise(config, step.diffusion.pixel_range)):
        assert (preview.shape, preview.dtype) == (shape, np.uint8)


def test_a_short_chain_makes_previews_in_as_many_steps_as_it_has() -> None:
    assert preview_sampling(tiny_config()).steps == 12
    assert preview_sampling(tiny_config(diffusion={"timesteps": 5}, sampling={"steps": 5})).steps == 5


def test_a_roll_back_grants_no_time_anew() -> None:
    kept, _ = drawn_over(100, 0.1)
    state, before = kept.arrays(), kept.steps[-1]
    kept.restore(state, 50.0)
    assert kept.maybe_draw(before + 1, 100.1, 640.0, 64) == 0.0
