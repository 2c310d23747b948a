"""Data-parallel training with PyTorch's torchrun, DistributedDataParallel, gloo and nccl.

Each process computes the gradients of its shard of every batch and takes the whole step, so all hold the same weights;
rank 0 alone keeps time, writes and prints. The networks here are tens of megabytes and fit on every device, so
sharding them (FSDP) would not save significant memory and would cost a gather of the weights in each layer.

torch is imported when it is needed: commands import this module before torch.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from ddpmctl.distributed.store import (
    PeerLost,
    RemoteError,
    exit_with_peers,
    first_line,
    rendezvous,
    report_once,
    torchrun_store,
)
from ddpmctl.errors import DataError, DdpmctlError, Setting, UsageError
from ddpmctl.ranks import Ranks, ranks

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

TIMEOUT = 1800.0
"""Seconds that one process waits for another to join."""


class ProcessGroup:
    """The processes that train together: here, a single process."""

    rank, size = 0, 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process keeps time, writes and prints for all."""
        return self.rank == 0

    def shard(self, batch: "Tensor") -> "Tensor":
        """This process's part of a whole batch along the first dimension; parts differ by at most one."""
        return batch

    def wrap(self, network: "nn.Module") -> "nn.Module":
        """The network with gradients that are summed over all processes."""
        return network

    def no_sync(self, network: "nn.Module") -> AbstractContextManager[None]:
        """Accumulate gradients locally within; they are summed by the next backward pass outside."""
        return nullcontext()

    def all_reduce_sum(self, values: "Tensor") -> "Tensor":
        """The sum over all processes, the same bits in each."""
        return values

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process."""
        return flags

    def broadcast(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in rank 0, in all processes; `RemoteError` in the others if it raises there."""
        return make()

    def on_rank0(self, make: Callable[[], T]) -> T | None:
        """What ``make`` returns, on rank 0 only; the others wait, and raise if it raises."""
        result: list[T] = []
        self.broadcast(lambda: result.extend([make()]))
        return result[0] if result else None

    def check_equal(self, **facts: object) -> None:
        """Raise a `DataError` that names the first fact in which the processes differ."""


SINGLE_PROCESS = ProcessGroup()

_joined: list[ProcessGroup] = []
"""The group that this process has joined, if any: joining again returns the same one."""


class TorchProcessGroup(ProcessGroup):
    """Several processes, in the initialized default group of torch.distributed."""

    def __init__(self, here: Ranks) -> None:
        self.rank, self.size = here.rank, here.size

    def shard(self, batch: "Tensor") -> "Tensor":
        import torch

        return torch.tensor_split(batch, self.size)[self.rank]

    def wrap(self, network: "nn.Module") -> "DistributedDataParallel":
        # Gradients are sums and not means: each loss is divided by the size of the whole batch already, and dividing
        # once more by three processes would round.
        import torch
        import torch.distributed as dist
        from torch.nn import BatchNorm2d
        from torch.nn.parallel import DistributedDataParallel

        # DDP inspects the annotations, which must be types and not strings.
        def all_reduce_sum(
            state: None,
            bucket: dist.GradBucket,  # type: ignore[name-defined]
        ) -> torch.futures.Future[torch.Tensor]:
            future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
            result: torch.futures.Future[torch.Tensor] = future.then(lambda done: done.value()[0])
            return result

        # Of all buffers only the running statistics of BatchNorm change.
        change = any(isinstance(module, BatchNorm2d) for module in network.modules())
        wrapped = DistributedDataParallel(network, broadcast_buffers=change)
        wrapped.register_comm_hook(None, all_reduce_sum)
        return wrapped

    def no_sync(self, network: "nn.Module") -> AbstractContextManager[None]:
        from torch.nn.parallel import DistributedDataParallel

        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def all_reduce_sum(self, values: "Tensor") -> "Tensor":
        import torch.distributed as dist

        dist.all_reduce(values)
        return values

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        import torch
        import torch.distributed as dist

        # On the host even if the network is on GPUs, so that nothing waits for them.
        raised = torch.tensor(flags, dtype=torch.uint8, device="cpu")
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(map(bool, raised.tolist()))

    def broadcast(self, make: Callable[[], T]) -> T:
        import torch
        import torch.distributed as dist

        cpu = torch.device("cpu")
        result: list[T | None] = [None]
        problem: list[str | None] = [None]
        if self.is_main_process:
            try:
                result = [make()]
            except BaseException as error:
                with suppress(RuntimeError):
                    dist.broadcast_object_list([None, str(error)], src=0, device=cpu)
                raise
        box = [*result, *problem]
        dist.broadcast_object_list(box, src=0, device=cpu)
        if box[1] is not None:
            raise RemoteError(str(box[1]))
        return box[0]  # type: ignore[return-value]

    def check_equal(self, **facts: object) -> None:
        import torch.distributed as dist

        gathered: list[dict[str, object]] = [{}] * self.size
        dist.all_gather_object(gathered, facts)
        for rank, others in enumerate(gathered):
            for name, value in others.items():
                if value != gathered[0][name]:
                    raise DataError(
                        f"{name}: rank {rank} has {value}, rank 0 has {gathered[0][name]}",
                        "use the same versions, data and device type on all machines",
                    )


def check_divisible(size: int, norm: str, group: ProcessGroup) -> None:
    """Raise a `UsageError` if the processes cannot compute a batch of ``size`` together."""
    if group.size > 1 and norm == "batch":
        raise UsageError(
            "BatchNorm would use different statistics in several processes",
            "use one process, or ",
            Setting("norm", "group"),
        )
    if size < group.size:
        raise UsageError(
            f"a batch of {size} images cannot be split over {group.size} processes",
            Setting("batch_size", group.size),
            " or more, or fewer processes",
        )


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the other processes of this job if torchrun started several, and leave them at the end.

    A network error caused by the loss of another process is raised as `PeerLost`.
    """
    here = ranks()
    if here.size == 1 or _joined:
        yield _joined[0] if _joined else SINGLE_PROCESS
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(here.local % torch.cuda.device_count())
    # Tensors on GPUs go over nccl; flags and objects, which lie in the host's memory, over gloo.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    prefix = rendezvous(here)
    left = Event()
    with report_once(prefix):
        watcher = Thread(target=exit_with_peers, args=(prefix, left), daemon=True)
        watcher.start()
        try:
            # After an elastic restart torchrun's store still holds the addresses of the processes that are gone.
            store = dist.PrefixStore(f"{prefix}/group", torchrun_store(TIMEOUT))  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size)
        except RuntimeError as error:
            raise DdpmctlError(
                f"the processes cannot connect to one another: {first_line(error)}",
                "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the network interface between the machines",
            ) from error
        group = TorchProcessGroup(here)
        _joined.append(group)
        try:
            yield group
            group.any_rank(False)  # a barrier: nobody leaves while others still wait for a collective
        except BaseException as error:
            loss = peer_failure(error)
            if loss is None:
                raise
            raise PeerLost(
                f"another process of this run ended unexpectedly; the last checkpoint is saved ({first_line(loss)})",
                "torchrun --max-restarts 3 resumes automatically; or: ddpmctl train ",
                Setting("resume", "latest"),
            ) from error
        finally:
            _joined.clear()
        dist.destroy_process_group()
        left.set()
        watcher.join()


def peer_failure(error: BaseException | None) -> RuntimeError | None:
    """The error of a collective about the loss of another process, if that is what ends this one."""
    import torch.distributed as dist

    # torchrun sends SIGTERM as soon as a process is lost, which may be raised while the collective's error is handled.
    while error is not None and not isinstance(error, Exception):
        error = error.__context__
    if not isinstance(error, RuntimeError):
        return None
    signs = ("Connection closed", "Connection reset", "Connection refused", "Broken pipe", "gloo", "NCCL", "Socket")
    return error if isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs) else None
