"""The training step: the same whether it reads its inputs from fixed tensors, as a captured one does, or not."""

from typing import Any

import pytest
import torch

from ddpmctl.data.dataset import Dataset
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec
from ddpmctl.training.train_step import TrainStep
from tests.builders import tiny_config

from .support import Train

STEPS = 4


def make(digits: Dataset, *, static: bool, accumulate: int = 1, **training: Any) -> TrainStep:
    config = tiny_config(training={"optimizer": "muon", "label_dropout": 0.3, **training})
    execution = Execution(device=torch.device("cpu"), precision="fp32")
    return TrainStep(config, digits, RunSpec(seed=7, accumulate=accumulate), execution, static=static)


def learn(step: TrainStep, first: int = 0) -> list[list[float]]:
    """The loss and the gradient norm of some steps, at a rate that changes."""
    order = torch.arange(32 * (STEPS + first)).view(-1, 32) % 300
    return [step(order[number], number, 1e-3 / (number + 1)).tolist() for number in range(first, first + STEPS)]


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulate": 3}, {"optimizer": "adam", "clip_norm": 0.0, "ema_lag": 0.0}, {"flip": True}],
    ids=str,
)
def test_a_static_step_is_the_usual_one(digits: Dataset, settings: dict[str, Any]) -> None:
    usual, static = (make(digits, static=static, **settings) for static in (False, True))
    torch.testing.assert_close(learn(static), learn(usual), rtol=1e-4, atol=1e-5)
    for name, array in {**usual.weights(), **usual.state()}.items():
        found = {**static.weights(), **static.state()}[name]
        torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(array), rtol=1e-3, atol=1e-5, msg=name)


def test_a_static_step_keeps_its_tensors_and_reads_new_values_from_them(digits: Dataset) -> None:
    """What a graph was captured with must stay in place: only the values may change."""
    step = make(digits, static=True)
    learn(step)
    before = [tensor.data_ptr() for tensor in [step._ids, step._ema_weight, step._metrics, *step._changed()]]
    first = step._metrics.clone()
    learn(step, STEPS)
    after = [tensor.data_ptr() for tensor in [step._ids, step._ema_weight, step._metrics, *step._changed()]]
    assert before == after
    assert not torch.equal(first, step._metrics)
    assert all(isinstance(group["lr"], torch.Tensor) for made in step.optimizers for group in made.param_groups)


def test_a_restored_static_step_goes_on_bit_for_bit(digits: Dataset) -> None:
    uncut = make(digits, static=True)
    learn(uncut)
    weights, state = uncut.weights(), uncut.state()
    expected = learn(uncut, STEPS)
    again = make(digits, static=True)
    learn(again)  # it has captured its tensors by then: the state goes into them
    again.load_state(weights, state, STEPS)
    assert learn(again, STEPS) == expected


class FakeGraph:
    """Stands for a CUDA graph: records that it was captured with the generator, and replays the step by running it."""

    replays = 0

    def __init__(self, step: TrainStep) -> None:
        self.step = step

    def replay(self) -> None:
        FakeGraph.replays += 1
        self.step._metrics.copy_(self.step._optimize(self.step._ids, self.step._ema_weight))


def test_what_the_warm_up_of_a_capture_changes_is_undone(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, captured = (make(digits, static=True) for _ in range(2))

    def capture(self: TrainStep) -> FakeGraph:
        for _ in range(3):
            self._metrics.copy_(self._optimize(self._ids, self._ema_weight))
        return FakeGraph(self)

    expected = learn(usual)
    monkeypatch.setattr(TrainStep, "_capture", capture)
    monkeypatch.setattr(TrainStep, "_can_capture", lambda self: True)
    FakeGraph.replays = 0
    assert learn(captured) == expected
    assert FakeGraph.replays == STEPS
    assert captured.captured


def test_a_capture_that_fails_leaves_eager_steps_and_one_line(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual, failing = (make(digits, static=True) for _ in range(2))

    def capture(self: TrainStep) -> FakeGraph:
        self._metrics.copy_(self._optimize(self._ids, self._ema_weight))
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be ..")

    expected = learn(usual)
    monkeypatch.setattr(TrainStep, "_capture", capture)
    monkeypatch.setattr(TrainStep, "_can_capture", lambda self: True)
    assert learn(failing) == expected
    assert not failing.captured
    assert [record.getMessage() for record in caplog.records] == [
        "CUDA graph capture failed, training eagerly: operation not permitted when stream is capturing"
    ]


def test_a_run_by_static_steps_ends_as_the_usual_run(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = train(epochs=2, optimizer="muon")
    inner = TrainStep.__init__

    def static(self: TrainStep, *arguments: Any, **options: Any) -> None:
        inner(self, *arguments, **{**options, "static": True})

    monkeypatch.setattr(TrainStep, "__init__", static)
    trained = train(epochs=2, optimizer="muon")
    assert trained.trainer.train_step.static
    # Rounding grows from step to step in single weights; what they predict stays the same.
    for mine, other in zip(trained.last.history, usual.last.history, strict=True):
        assert float(mine["validation_mse"]) == pytest.approx(float(other["validation_mse"]), rel=2e-3)
        assert float(mine["train_mse"]) == pytest.approx(float(other["train_mse"]), rel=2e-3)
