"""Captured calls: when one captures, what a replay computes, and what becomes of a capture that fails."""

import logging
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
import torch
from torch import Tensor

from ddpmctl.cuda_graphs import EAGER_CALLS, MAX_SIGNATURES, CapturedCall, graphs_of
from ddpmctl.devices import is_out_of_memory
from tests.builders import FakeGraphs

CPU = torch.device("cpu")


def weighted(x: Tensor, weight: Tensor, *, power: int = 1) -> Tensor:
    return x**power * weight


def called(call: CapturedCall, number: float) -> float:
    return float(call(torch.full((3,), float(number)), torch.tensor(10.0))[0])


def test_calls_run_eagerly_then_are_captured_once_and_replayed() -> None:
    graphs = FakeGraphs()
    call = CapturedCall(weighted, graphs)
    assert [called(call, number) for number in range(6)] == [0, 10, 20, 30, 40, 50]
    assert graphs.events == ["run"] * EAGER_CALLS + ["capture"] + ["replay"] * (6 - EAGER_CALLS)


@pytest.mark.parametrize("graphs", [None, FakeGraphs()], ids=["eager", "captured"])
def test_outputs_stay_as_they_are_when_later_calls_overwrite_the_buffers(graphs: FakeGraphs | None) -> None:
    call = CapturedCall(lambda x: x, graphs)
    inputs = [torch.full((2, 2), float(number)) for number in range(6)]
    outputs = [call(value) for value in inputs]
    for value, output in zip(inputs, outputs, strict=True):
        assert torch.equal(output, value)
        assert output.data_ptr() != value.data_ptr()


@pytest.mark.parametrize("graphs", [None, FakeGraphs()], ids=["eager", "captured"])
def test_the_function_sees_the_same_buffers_at_every_call(graphs: FakeGraphs | None) -> None:
    seen: list[tuple[int, int, bool]] = []

    def function(x: Tensor) -> Tensor:
        seen.append((x.data_ptr(), x.stride(-1), x.is_inference()))
        return 2 * x

    call = CapturedCall(function, graphs)
    for number in range(5):
        image = torch.full((2, 3, 4, 4), float(number)).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            assert torch.equal(call(image.clone()), 2 * image)
    assert len(set(seen)) == 1
    assert seen[0][1:] == (3, False)


def test_each_shape_type_and_option_is_captured_apart() -> None:
    graphs = FakeGraphs()
    call = CapturedCall(weighted, graphs)
    for _ in range(EAGER_CALLS + 2):
        two = torch.tensor(2.0)
        assert call(torch.tensor([3.0]), two).tolist() == [6]
        assert call(torch.tensor([3.0, 4.0]), two).tolist() == [6, 8]
        assert call(torch.tensor([3]), two).tolist() == [6]
        assert call(torch.tensor([3.0]), two, power=2).tolist() == [18]
    assert graphs.events.count("capture") == 4


def test_only_the_newest_kinds_are_kept() -> None:
    graphs = FakeGraphs()
    call = CapturedCall(lambda x: x + 1, graphs)

    def capture(count: int) -> int:
        before = graphs.events.count("capture")
        for _ in range(EAGER_CALLS + 1):
            assert torch.equal(call(torch.zeros(count)), torch.ones(count))
        return graphs.events.count("capture") - before

    assert [capture(count) for count in range(1, MAX_SIGNATURES + 2)] == [1] * (MAX_SIGNATURES + 1)
    assert (capture(MAX_SIGNATURES + 1), capture(1)) == (0, 1)


def test_released_calls_are_captured_anew() -> None:
    graphs = FakeGraphs()
    call = CapturedCall(weighted, graphs)
    for _ in range(2):
        assert [called(call, number) for number in range(4)] == [0, 10, 20, 30]
        call.release()
    assert graphs.events.count("capture") == 2


def test_a_capture_that_fails_goes_on_eagerly_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    graphs = FakeGraphs(RuntimeError("operation not permitted when stream is capturing\nmore"))
    call = CapturedCall(weighted, graphs)
    assert [called(call, number) for number in range(6)] == [0, 10, 20, 30, 40, 50]
    assert float(call(torch.tensor([3.0]), torch.tensor(2.0), power=2)) == 18
    assert graphs.events == ["run"] * EAGER_CALLS + ["capture"]
    assert caplog.messages == [
        "CUDA graph capture failed, continuing without it (slower): operation not permitted when stream is capturing"
    ]


def test_a_capture_that_fails_is_logged_where_nobody_is_notified(caplog: pytest.LogCaptureFixture) -> None:
    call = CapturedCall(weighted, FakeGraphs(RuntimeError("no capture")))
    with caplog.at_level(logging.WARNING, "ddpmctl"):
        assert [called(call, number) for number in range(4)] == [0, 10, 20, 30]
    assert caplog.messages == ["CUDA graph capture failed, continuing without it (slower): no capture"]


def hidden() -> Exception:
    """What the end of a failed capture raises on top of what went wrong in it."""
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), hidden()], ids=["plain", "hidden"])
def test_a_capture_without_memory_is_an_error_of_the_caller(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    call = CapturedCall(weighted, FakeGraphs(error))
    for number in range(EAGER_CALLS):
        called(call, number)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        called(call, 1.0)
    assert is_out_of_memory(caught.value)
    assert caplog.messages == []


def test_errors_of_the_function_itself_are_raised() -> None:
    for graphs in (None, FakeGraphs()):
        with pytest.raises(RuntimeError, match="must match"):
            CapturedCall(weighted, graphs)(torch.ones(3), torch.ones(2))


def test_threads_do_not_compute_on_each_other_s_inputs() -> None:
    def slow(x: Tensor) -> Tensor:
        sleep(0.002)
        return x + 1

    call = CapturedCall(slow, None)
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda number: float(call(torch.tensor(float(number)))), range(40)))
    assert outputs == list(range(1, 41))


def test_only_cuda_has_graphs() -> None:
    assert graphs_of(CPU) is None
    assert graphs_of(torch.device("mps")) is None
