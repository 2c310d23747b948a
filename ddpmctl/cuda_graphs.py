"""Functions of tensors that a GPU replays as CUDA graphs; elsewhere the same path runs them eagerly."""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from ddpmctl.devices import is_out_of_memory

EAGER_CALLS = 2
"""Eager calls before one is captured: they create handles and workspaces, which a capture must not."""

MAX_SIGNATURES = 8
"""Signatures of calls (shapes, types and options) kept at a time; the oldest is dropped first."""

log = logging.getLogger("ddpmctl")

Work = Callable[[], Tensor]


class Graphs(Protocol):
    """Captures and replays the work of a device."""

    def run(self, work: Work) -> Tensor:
        """Run it eagerly on the stream of the captures."""

    def capture(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        """Capture it; returns a function that replays it, and the tensor that only a replay fills."""


class CudaGraphs:
    """CUDA graphs of one device, with one side stream and one memory pool.

    Graphs of one pool overwrite each other's intermediate results and outputs: replay them one at a time, and copy an
    output before the next replay.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._captured: WeakSet[Any] = WeakSet()

    def run(self, work: Work) -> Tensor:
        """Run it on the side stream, ordered with the current stream."""
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                output = work()
            current.wait_stream(self._stream)
        return output

    def capture(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        """Capture it on the side stream, with memory from the pool."""
        graph: Any = torch.cuda.CUDAGraph()
        # The outer stream context is not redundant: torch.cuda.graph does not leave its own if a capture fails.
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            # A pool cannot be shared any more when its last graph is gone.
            other = next(iter(self._captured), None)
            pool = other.pool() if other is not None else torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                output = work()
        self._captured.add(graph)
        return graph.replay, output


def graphs_of(device: torch.device) -> Graphs | None:
    """The graphs of a CUDA device; None for any other, which captures nothing."""
    return CudaGraphs(device) if device.type == "cuda" else None


@dataclass(slots=True)
class _Captured:
    """Calls of the same shapes, types and options."""

    inputs: tuple[Tensor, ...]
    eager: int = 0
    replay: Callable[[], None] | None = None
    output: Tensor | None = None


class CapturedCall:
    """A function of tensors, run on buffers with fixed addresses so that it can be captured.

    Each call copies its inputs into the buffers, runs the function on them and returns a copy of the output. The first
    calls of each kind run eagerly, then one is captured, and later ones are replayed. After a failed capture, or with
    ``graphs`` None, every call is eager.

    The function takes the inputs in order and the options by name. It must return one tensor, depend on nothing else
    but tensors with fixed addresses (such as parameters that are updated in place), and neither wait for the device nor
    compute gradients.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        graphs: Graphs | None,
    ) -> None:
        self._function = function
        self._graphs = graphs
        self._kinds: dict[Hashable, _Captured] = {}
        # Two threads would otherwise overwrite each other's inputs between copy and computation.
        self._lock = Lock()

    def __call__(self, *inputs: Tensor, **options: Hashable) -> Tensor:
        """A copy of the function's output; an error `is_out_of_memory` recognises is raised, also from a capture."""
        key = (tuple((value.shape, value.dtype) for value in inputs), tuple(sorted(options.items())))
        # Not in inference mode, even if the caller is: a capture creates the generator's state on the device, and as an
        # inference tensor no later capture outside of inference mode could update it.
        with self._lock, torch.inference_mode(False), torch.no_grad():
            kind = self._kinds.get(key) or self._added(key, inputs)
            for buffer, value in zip(kind.inputs, inputs, strict=True):
                buffer.copy_(value)
            return self._run(kind, lambda: self._function(*kind.inputs, **options)).clone()

    def release(self) -> None:
        """Drop buffers and graphs, and with them their memory."""
        with self._lock:
            self._kinds.clear()

    def _added(self, key: Hashable, inputs: tuple[Tensor, ...]) -> _Captured:
        if len(self._kinds) == MAX_SIGNATURES:
            del self._kinds[next(iter(self._kinds))]
        kind = self._kinds[key] = _Captured(tuple(torch.empty_like(value) for value in inputs))
        return kind

    def _run(self, kind: _Captured, work: Work) -> Tensor:
        if self._graphs is None:
            return work()
        if kind.output is None and kind.eager < EAGER_CALLS:
            kind.eager += 1
            return self._graphs.run(work)
        if kind.output is None:
            try:
                kind.replay, kind.output = self._graphs.capture(work)
            except Exception as error:
                self._fall_back_to_eager(error)
                return work()
        assert kind.replay is not None
        kind.replay()
        return kind.output

    def _fall_back_to_eager(self, error: Exception) -> None:
        """Continue without captures; out-of-memory errors are raised for the caller to handle."""
        cause: BaseException | None = error
        while cause is not None:  # the end of a failed capture fails as well, and hides why
            if is_out_of_memory(cause):
                raise cause
            cause = cause.__cause__ or cause.__context__
        self._graphs = None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log.warning(f"CUDA graph capture failed, continuing without it (slower): {reason}")
