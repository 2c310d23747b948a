"""Real runs of a tiny network."""

import csv
import itertools
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import DdpmctlError
from ddpmctl.registry import Registry
from ddpmctl.training.history import to_csv
from ddpmctl.training.trainer import Trainer
from tests.builders import DIGITS, foreign_defaults, tiny_config

from .support import Train, Trained, Watcher

NEVER_LEARNS = {"lr": 1e-30, "optimizer": "adamw", "ema_lag": 0.0}
"""Steps too small for float32: the weights stay as they began."""


def validation_mse(trained: Trained) -> list[float]:
    values = [row.validation_mse for row, _ in trained.watcher.epochs]
    assert None not in values
    return values  # type: ignore[return-value]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("target", ["v", "epsilon"])
def test_the_network_learns(train: Train, optimizer: str, target: str) -> None:
    diffusion = {"parameterization": target}
    trained = train(config=tiny_config(training={"epochs": 9, "optimizer": optimizer}, diffusion=diffusion))
    untrained = train(config=tiny_config(training={"epochs": 1, **NEVER_LEARNS}, diffusion=diffusion))
    values = validation_mse(trained)
    assert trained.stopped == "done"
    assert values[-1] < values[0] < validation_mse(untrained)[0]
    assert values[-1] < 0.7 * validation_mse(untrained)[0]
    assert trained.best.manifest.metric.value == min(values)


def test_the_record_of_a_run_is_complete(train: Train, digits: Dataset) -> None:
    trained = train(epochs=2, batch_size=32, seed=5)
    manifest = trained.last.manifest
    run = manifest.run
    # 270 images to train on make eight batches of 32.
    assert (run.step, run.planned_steps, run.epochs, run.images) == (16, 16, 2, 512)
    assert (run.seed, run.precision, run.stopped, run.max_time) == (5, "fp32", "done", 0.0)
    assert run.threads == torch.get_num_threads()
    assert run.device.startswith("cpu")
    assert run.seconds > 0
    assert (manifest.preset, manifest.classes) == ("quick", DIGITS)
    assert manifest.config == tiny_config(training={"epochs": 2, "batch_size": 32})
    assert manifest.dataset.digest == digits.digest()
    assert (manifest.dataset.name, manifest.dataset.count) == ("strokes:300", 300)
    assert manifest.parameters == sum(array.size for array in trained.weights().values())
    assert (manifest.metric.name, manifest.metric.parameterization) == ("validation_mse", "v")
    assert (manifest.metric.epoch, manifest.metric.step) == (2, 16)
    assert manifest.versions.keys() == {"python", "ddpmctl", "torch", "torchvision", "numpy"}
    assert trained.watcher.steps == list(range(1, 17))
    assert trained.watcher.plan is not None
    assert trained.watcher.plan.steps == 16


def test_the_history_has_every_epoch(train: Train) -> None:
    trained = train(epochs=4)
    shown = [row for row, _ in trained.watcher.epochs]
    assert [row.epoch for row in shown] == [1, 2, 3, 4]
    assert [row.step for row in shown] == [8, 16, 24, 32]
    assert trained.last.history == list(csv.DictReader(to_csv(shown).splitlines()))
    assert [row["epoch"] for row in trained.last.history] == ["1", "2", "3", "4"]
    best = min(shown, key=lambda row: row.validation_mse or 1)
    assert best.best
    assert trained.best.manifest.metric.epoch == trained.last.manifest.best.epoch == best.epoch
    assert all(a.seconds < b.seconds for a, b in itertools.pairwise(shown))


def test_each_epoch_shows_every_training_image_once_and_no_held_out_one(train: Train, digits: Dataset) -> None:
    shown: list[torch.Tensor] = []

    def watch(trainer: Trainer) -> None:
        step = trainer.train_step
        inner = step.objective.loss

        def loss(model: nn.Module, x0: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            if model is step.model:
                shown.append(x0)
            return inner(model, x0, *rest)

        trainer.previews.maybe_draw = lambda *_, **__: 0.0  # type: ignore[method-assign]
        step.objective = type("Watched", (), {"loss": staticmethod(loss)})()

    train(epochs=2, batch_size=27, on_trainer=watch)
    assert [len(batch) for batch in shown] == [27] * 20
    training = {image.numpy().tobytes() for image in digits.split(5000)[0].images.float() / 127.5 - 1}
    for epoch in (shown[:10], shown[10:]):
        images = [image.contiguous().numpy().tobytes() for batch in epoch for image in batch]
        assert set(images) == training
        assert len(images) == len(training) == 270
    assert not torch.equal(shown[0], shown[10])


def test_a_run_is_on_disk_before_its_first_step_and_a_model_from_the_first_epoch_on(
    train: Train, registry: Registry
) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def look(step: int) -> None:
        folders = [path for path in registry.models.glob("run-0/*") if path.is_dir()]
        seen.append((sorted(path.name for path in folders), registry.names()))

    train(epochs=4, watcher=Watcher(after_step=look), every="1epoch")
    assert seen[:8] == [(["00000000"], [])] * 8
    assert all(1 <= len(commits) <= 3 and models == ["run-0"] for commits, models in seen[8:])
    assert "00000024" in seen[-1][0]
    # What is left at the end is what the pointers name.
    left = {path.name for path in registry.models.glob("run-0/*") if path.is_dir()}
    assert left == {(registry.models / "run-0" / pointer).read_text().split()[0] for pointer in ("best", "last")}


def test_a_run_that_gets_no_better_stops_when_patience_ends(train: Train) -> None:
    trained = train(epochs=50, patience=2, **NEVER_LEARNS)
    assert trained.stopped == "early"
    assert [left for _, left in trained.watcher.epochs] == [2, 1, 0]
    assert [row.best for row, _ in trained.watcher.epochs] == [True, False, False]
    assert trained.best.manifest.metric.epoch == 1
    last = trained.last.manifest
    assert (last.metric.epoch, last.best.epoch, last.run.stopped) == (3, 1, "early")


def scripted(values: list[float]) -> Callable[[Trainer], None]:
    """A trainer that measures these validation errors, one an epoch."""

    def on_trainer(trainer: Trainer) -> None:
        rest: Iterator[float] = iter(values)
        trainer._validation_mse = lambda: next(rest)  # type: ignore[method-assign]

    return on_trainer


def test_every_better_epoch_renews_patience(train: Train) -> None:
    trained = train(epochs=50, patience=2, on_trainer=scripted([0.5, 0.4, 0.45, 0.3, 0.35, 0.3, 0.1]))
    # As good as the best is not better.
    assert [left for _, left in trained.watcher.epochs] == [2, 2, 1, 2, 1, 0]
    assert [row.best for row, _ in trained.watcher.epochs] == [True, True, False, True, False, False]
    assert trained.stopped == "early"
    assert trained.best.manifest.metric.value == 0.3
    assert (trained.best.manifest.run.step, trained.last.manifest.run.step) == (32, 48)
    assert trained.last.manifest.best == trained.best.manifest.metric


def test_the_last_epoch_is_not_an_early_stop(train: Train) -> None:
    assert train(epochs=3, patience=2, on_trainer=scripted([0.1, 0.2, 0.3])).stopped == "done"


def test_nothing_held_out_is_judged_by_the_training_error(train: Train) -> None:
    trained = train(epochs=2, validation_images=0, batch_size=30)
    assert [row.validation_mse for row, _ in trained.watcher.epochs] == [None, None]
    metric = trained.best.manifest.metric
    assert metric.name == "train_mse"
    assert metric.value == min(row.train_mse for row, _ in trained.watcher.epochs)
    assert [row["validation_mse"] for row in trained.last.history] == ["", ""]
    # All 300 images are trained on.
    assert trained.last.manifest.run.images == 600


def test_the_held_out_error_is_measured_at_fixed_noise_on_the_averaged_weights(train: Train) -> None:
    still = train(epochs=3, patience=15, **NEVER_LEARNS)
    assert len(set(validation_mse(still))) == 1
    assert len({row.train_mse for row, _ in still.watcher.epochs}) == 3
    other = train(epochs=1, seed=0, **NEVER_LEARNS)
    assert validation_mse(other) == validation_mse(still)[:1]


def test_the_committed_weights_are_the_averaged_ones(train: Train) -> None:
    trained = train(epochs=2, ema_lag=0.3)
    averaged, raw = (
        trained.trainer.train_step.ema.module.state_dict(),
        trained.trainer.train_step.model.state_dict(),
    )
    for name, array in trained.weights().items():
        assert array.dtype == np.float32
        assert np.array_equal(array, averaged[name].numpy()), name
    assert any(not torch.equal(averaged[name], raw[name]) for name in raw)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(train: Train, optimizer: str) -> None:
    first = train(epochs=2, seed=3, optimizer=optimizer).weights()
    torch.manual_seed(123)
    torch.randn(100)
    second = train(epochs=2, seed=3, optimizer=optimizer).weights()
    other = train(epochs=2, seed=4, optimizer=optimizer).weights()
    assert first.keys() == second.keys() == other.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []
    assert [name for name in first if np.array_equal(first[name], other[name])] == []


def test_a_batch_in_parts_takes_the_same_steps(train: Train) -> None:
    sizes: list[int] = []

    def watch(trainer: Trainer) -> None:
        trainer.train_step.model.register_forward_hook(lambda module, inputs, answer: sizes.append(len(inputs[0])))

    whole = train(epochs=1, batch_size=32)
    parts = train(epochs=1, batch_size=32, accumulate=3, on_trainer=watch)
    assert sizes == [11, 11, 10] * 8
    (one, _), (other, _) = whole.watcher.epochs[0], parts.watcher.epochs[0]
    assert other.train_mse == pytest.approx(one.train_mse, rel=1e-5)
    # Adam makes a step of full size out of a gradient that is nothing but rounding: single weights may differ.
    apart = [np.abs(parts.weights()[name] - weight).mean() for name, weight in whole.weights().items()]
    assert max(apart) < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU: there is no g++")
def test_a_compiled_network_takes_the_same_steps(train: Train) -> None:
    plain, compiled = (train(epochs=1, compiled=compiled) for compiled in (False, True))
    assert compiled.best.manifest.run.compiled
    assert compiled.weights().keys() == plain.weights().keys()
    (one, _), (other, _) = plain.watcher.epochs[0], compiled.watcher.epochs[0]
    assert other.train_mse == pytest.approx(one.train_mse, rel=1e-3)


def test_where_nothing_can_be_compiled_the_run_does_not_begin(
    train: Train, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*inputs: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand so on")

    monkeypatch.setattr(nn.Module, "compile", lambda model: setattr(model, "_compiled_call_impl", broken))
    with pytest.raises(DdpmctlError) as caught:
        train(compiled=True)
    assert caught.value.message == "torch.compile failed: No working C++ compiler found"
    assert caught.value.hint == "compile=False"
    assert registry.names() == []


@pytest.mark.parametrize("step", [1, 5, 8, 12])
def test_an_interrupted_run_keeps_a_model(train: Train, step: int) -> None:
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done = number

    trained = train(epochs=9, watcher=Watcher(after_step=count), stop=lambda: done >= step)
    last = trained.last.manifest
    assert trained.stopped == last.run.stopped == "interrupted"
    assert last.run.step == step
    assert last.run.planned_steps == 72
    # The first epoch has eight steps: what is cut in it is the best there is, later the whole epoch is.
    best = trained.best.manifest
    assert best.run.step == (step if step <= 8 else 8)
    assert last.best == best.metric
    assert best.metric is not None
    assert best.metric.name == ("train_mse" if step <= 8 else "validation_mse")
    assert [int(row["step"]) for row in trained.last.history] == ([] if step <= 8 else [8])
    assert all(np.isfinite(array).all() for array in trained.weights().values())


def breaking(trainers: list[Trainer], at: int, bad: float, times: int) -> Watcher:
    """A watcher that spoils a weight after a step, so many times."""
    left = times

    def spoil(step: int) -> None:
        nonlocal left
        if step == at and left:
            left -= 1
            with torch.no_grad():
                next(trainers[0].train_step.model.parameters()).fill_(bad)

    return Watcher(spoil)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_sends_the_run_back_with_half_the_rate(train: Train, bad: float) -> None:
    trainers: list[Trainer] = []
    watcher = breaking(trainers, 11, bad, times=2)
    settings = {"epochs": 2, "lr": 4e-3, "decay": 0.0, "warmup": 0.0}
    trained = train(watcher=watcher, on_trainer=trainers.append, every="5steps", **settings)
    assert trained.stopped == "done"
    said = [f"the loss is not finite at step 12, with a learning rate of {rate}" for rate in (0.004, 0.002)]
    # The commit of the first epoch, step 8, was the last before.
    assert watcher.rollbacks == [(said[0], 0.002, 8), (said[1], 0.001, 8)]
    assert watcher.steps == [*range(1, 12), 9, 10, 11, *range(9, 17)]
    run = trained.last.manifest.run
    assert (run.step, run.stopped) == (16, "done")
    assert [(part.why, part.step, part.peak_lr) for part in run.segments] == [
        ("begun", 0, 0.004), ("rolled back", 8, 0.002), ("rolled back", 8, 0.001),
    ]  # fmt: skip
    assert all(np.isfinite(array).all() for array in trained.weights().values())


def spoil_a_gradient(trainer: Trainer) -> None:
    """Make the gradient of the fourth step infinite, once."""
    left = [1]

    def spoil(gradient: torch.Tensor) -> torch.Tensor | None:
        if trainer.state.step == 3 and left:
            left.pop()
            return gradient * torch.inf
        return None

    next(trainer.train_step.model.parameters()).register_hook(spoil)


def test_a_gradient_that_is_not_finite_sends_the_run_back_too(train: Train) -> None:
    trained = train(epochs=1, on_trainer=spoil_a_gradient)
    assert [(why.partition(",")[0], step) for why, _, step in trained.watcher.rollbacks] == [
        ("the gradient is not finite at step 4", 0)
    ]
    assert trained.stopped == "done"


def test_a_state_that_is_not_finite_is_not_committed_though_nobody_looked_yet(train: Train) -> None:
    """As on a GPU, where the losses are looked at every now and then."""

    def watch(trainer: Trainer) -> None:
        spoil_a_gradient(trainer)
        inner, looked_at = trainer.check_finite, set[int]()

        def seldom() -> None:
            # The second look at a step is the one before it is committed.
            if trainer.state.step in looked_at:
                inner()
            looked_at.add(trainer.state.step)

        trainer.check_finite = seldom  # type: ignore[method-assign]

    trained = train(epochs=1, on_trainer=watch, every="6steps")
    assert trained.stopped == "done"
    assert len(trained.watcher.rollbacks) == 1
    assert np.isfinite(trained.last.state()["progress"]).all()


def test_a_run_that_never_is_finite_gives_up_and_keeps_the_last_good_model(train: Train, registry: Registry) -> None:
    trainers: list[Trainer] = []
    watcher = breaking(trainers, 11, float("nan"), times=99)
    with pytest.raises(DdpmctlError) as caught:
        train(epochs=4, lr=4e-3, decay=0.0, warmup=0.0, watcher=watcher, on_trainer=trainers.append)
    assert caught.value.message == (
        "the loss is not finite at step 12, with a learning rate of 0.0005; "
        "still not finite after 3 roll-backs with halved learning rate"
    )
    assert caught.value.hint == "train again with a lower learning rate, such as lr=0.0001"
    assert len(watcher.rollbacks) == 3
    assert registry.open("run-0").manifest.run.step == 8
    assert all(np.isfinite(array).all() for array in registry.open("run-0").weights().values())


def test_weights_that_are_not_finite_are_never_committed(train: Train, registry: Registry) -> None:
    def break_at_once(trainer: Trainer) -> None:
        with torch.no_grad():
            next(trainer.train_step.model.parameters()).fill_(float("nan"))

    with pytest.raises(DdpmctlError, match="a weight is not finite at step 1, with a learning rate of"):
        train(on_trainer=break_at_once)
    assert registry.names() == []
    assert not (registry.models / "run-0").exists()


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail at alloc_cpu.cpp:113] can't allocate memory"), MemoryError()]
)
def test_a_batch_that_does_not_fit_in_memory_is_answered_with_one_that_does(train: Train, error: Exception) -> None:
    def watch(trainer: Trainer) -> None:
        def limited(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if len(inputs[0]) > 10:
                raise error

        trainer.train_step.model.register_forward_pre_hook(limited)

    with pytest.raises(DdpmctlError) as caught:
        train(batch_size=32, on_trainer=watch)
    assert caught.value.message == "a batch of 32 does not fit in memory; one of 8 does"
    assert caught.value.hint == "batch_size=8, or accumulate=4 for gradient accumulation"


def test_where_not_even_one_image_fits_that_is_said(train: Train) -> None:
    def watch(trainer: Trainer) -> None:
        def never(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            raise torch.OutOfMemoryError("out")

        trainer.train_step.model.register_forward_pre_hook(never)

    with pytest.raises(DdpmctlError, match=r"^there is not enough memory for a single image$"):
        train(on_trainer=watch)


@pytest.mark.parametrize(("settings", "different"), [({"one_timestep": True, "stratified": False}, {1}), ({}, {32})])
def test_a_batch_may_share_one_timestep(train: Train, settings: dict[str, bool], different: set[int]) -> None:
    seen: list[torch.Tensor] = []

    def watch(trainer: Trainer) -> None:
        trainer.train_step.model.register_forward_hook(lambda module, inputs, answer: seen.append(inputs[1]))

    train(epochs=1, batch_size=32, on_trainer=watch, **settings)
    assert {len(t.unique()) for t in seen} == different
    assert len({int(t[0]) for t in seen}) > 4


def test_a_set_smaller_than_the_batch_is_one_batch(train: Train) -> None:
    trained = train(load_dataset("strokes:20", 32), epochs=3, batch_size=64)
    assert trained.stopped == "done"
    run = trained.last.manifest.run
    # A tenth is held out.
    assert (run.step, run.images) == (3, 54)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_defaults_of_torch_change_nothing_in_a_run(train: Train, digits: Dataset, optimizer: str) -> None:
    settings = {"epochs": 1, "optimizer": optimizer, "label_dropout": 0.2, "flip": True}
    expected = train(**settings)
    with foreign_defaults():
        loaded = load_dataset("strokes:300", 32)
        run = train(data=loaded, **settings)
        found = {**run.weights(), **run.state}
        resumed = train(data=loaded, resume=run.name, more_epochs=1, **settings)
    assert loaded.digest() == digits.digest()
    for name, array in {**expected.weights(), **expected.state}.items():
        assert np.array_equal(found[name], array), name
    assert resumed.stopped == "done"
