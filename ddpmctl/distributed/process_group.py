"""Several processes that train one model, on PyTorch's own engine: torchrun, DistributedDataParallel, gloo and nccl.

Each process computes the gradients of its part of every batch and takes the whole step, so that all hold the same
weights; the first alone watches the clock, writes and speaks. The networks here are tens of megabytes and fit on every
device many times over: to shard them (FSDP) would save memory that nobody lacks and cost a gather of the weights in
each layer, so it is not done.

torch is imported when it is needed: commands import this room to ask whether they are alone.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from ddpmctl.distributed.store import (
    PeerLost,
    ToldElsewhere,
    end_with_others,
    first_line,
    met,
    spoken_once,
    torchrun_store,
)
from ddpmctl.errors import DataError, DdpmctlError, UsageError
from ddpmctl.ranks import Ranks, ranks

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

PATIENCE = 1800.0
"""Seconds that one process waits for another to come."""


class Team:
    """The processes that train together: here, one alone.

    Attributes:
        rank: the number of this one, from 0.
        size: how many there are.
    """

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this process watches the clock, writes and speaks for all."""
        return self.rank == 0

    def part(self, batch: "Tensor") -> "Tensor":
        """This process's part of what all hold whole, along the first dimension: parts differ by one at most."""
        return batch

    def wrapped(self, network: "nn.Module") -> "nn.Module":
        """The network with gradients that are sums over all processes, where they are not put off."""
        return network

    def put_off(self, network: "nn.Module") -> AbstractContextManager[None]:
        """Sum no gradients within: they add up until a pass that is outside."""
        return nullcontext()

    def summed(self, values: "Tensor") -> "Tensor":
        """The sum over all processes, the same bits in each."""
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether any process raised it."""
        return flags

    def told(self, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them.

        Raises:
            ToldElsewhere: where it failed; in the first process, whatever it failed with.
        """
        return make()

    def check_same(self, **facts: object) -> None:
        """See that all processes agree on what they must agree on.

        Raises:
            DataError: naming what differs.
        """

    def on_first(self, make: Callable[[], T]) -> T | None:
        """What the first process makes, there alone; others wait for it, and hear when it fails."""
        made: list[T] = []
        self.told(lambda: made.extend([make()]))
        return made[0] if made else None


ALONE = Team()


class Processes(Team):
    """Several of them, in a process group that stands.

    Args:
        here: which of them this is.
    """

    def __init__(self, here: Ranks) -> None:
        self.rank, self.size = here.rank, here.size

    def part(self, batch: "Tensor") -> "Tensor":
        """This process's part, along the first dimension."""
        import torch

        return torch.tensor_split(batch, self.size)[self.rank]

    def wrapped(self, network: "nn.Module") -> "DistributedDataParallel":
        """The network in DistributedDataParallel, whose gradients are sums and not means.

        Each loss is divided by the whole batch already; and to divide once more by three processes would round.
        """
        import torch
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        # DDP looks at the types, and wants them as they are and not as strings.
        def summed(
            state: None,
            bucket: dist.GradBucket,  # type: ignore[name-defined]
        ) -> torch.futures.Future[torch.Tensor]:
            future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
            told: torch.futures.Future[torch.Tensor] = future.then(lambda done: done.value()[0])
            return told

        wrapped = DistributedDataParallel(network)
        wrapped.register_comm_hook(None, summed)
        return wrapped

    def put_off(self, network: "nn.Module") -> AbstractContextManager[None]:
        """Sum no gradients within."""
        from torch.nn.parallel import DistributedDataParallel

        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def summed(self, values: "Tensor") -> "Tensor":
        """The sum over all processes; the argument becomes it."""
        import torch.distributed as dist

        dist.all_reduce(values)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether any process raised it."""
        import torch
        import torch.distributed as dist

        # Over the host, also where the network is on GPUs: nothing waits for them by this.
        raised = torch.tensor(flags, dtype=torch.uint8, device="cpu")
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(map(bool, raised.tolist()))

    def told(self, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them."""
        import torch
        import torch.distributed as dist

        box: list[Any] = [None, None]
        cpu = torch.device("cpu")
        if self.is_first:
            try:
                box = [make(), None]
            except BaseException as error:
                with suppress(RuntimeError):
                    dist.broadcast_object_list([None, str(error)], src=0, device=cpu)
                raise
        dist.broadcast_object_list(box, src=0, device=cpu)
        if box[1] is not None:
            raise ToldElsewhere(str(box[1]))
        made: T = box[0]
        return made

    def check_same(self, **facts: object) -> None:
        """See that all processes agree."""
        import torch.distributed as dist

        everybody: list[Any] = [None] * self.size
        dist.all_gather_object(everybody, facts)
        for rank, others in enumerate(everybody):
            for name, value in others.items():
                if value != everybody[0][name]:
                    raise DataError(
                        f"process {rank} has another {name} than process 0: {value} and not {everybody[0][name]}",
                        "give all machines the same ddpmctl, torch, data and kind of device",
                    )


def check_shareable(size: int, norm: str, team: Team) -> None:
    """See that processes can compute a batch together.

    Raises:
        UsageError: where there are more of them than images, or the normalisation looks at the whole batch.
    """
    if team.size > 1 and norm == "batch":
        raise UsageError("BatchNorm by several processes is another BatchNorm", "one process, or --norm group")
    if size < team.size:
        raise UsageError(
            f"a batch of {size} images cannot be divided among {team.size} processes",
            f"--batch-size {team.size} or more, or fewer processes",
        )


@contextmanager
def joined() -> Iterator[Team]:
    """Join the other processes of this job, where torchrun started several, and leave them at the end.

    Raises:
        PeerLost: in place of what the network says when another process is gone.
        DdpmctlError: where the processes do not reach one another.
    """
    here = ranks()
    if here.size == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(here.local % torch.cuda.device_count())
    # Numbers on GPUs go over nccl; wishes and files, which lie in the host's memory, over gloo.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    prefix = met(here)
    over = Event()
    with spoken_once(prefix):
        watcher = Thread(target=end_with_others, args=(prefix, over), daemon=True)
        watcher.start()
        try:
            # Where torchrun starts all anew, its store still holds where those that are gone could be reached.
            store = dist.PrefixStore(f"{prefix}/group", torchrun_store(PATIENCE))  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size)
        except RuntimeError as error:
            raise DdpmctlError(
                f"the processes do not reach one another: {first_line(error)}",
                "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network between the machines",
            ) from error
        team = Processes(here)
        try:
            yield team
            team.any(False)  # nobody leaves while others still listen
        except BaseException as error:
            loss = loss_of_another(error)
            if loss is None:
                raise
            raise PeerLost(
                f"another process of this training ended without a word; what was committed is kept "
                f"({first_line(loss)})",
                "torchrun --max-restarts 3 goes on by itself; or ddpmctl train --resume latest",
            ) from error
        dist.destroy_process_group()
        over.set()
        watcher.join()


def loss_of_another(error: BaseException | None) -> RuntimeError | None:
    """What a collective says of the loss of another process, where that is what ends this one; else None."""
    import torch.distributed as dist

    # torchrun sends SIGTERM as soon as a process is lost, which may come on top of what the collective says.
    while error is not None and not isinstance(error, Exception):
        error = error.__context__
    if not isinstance(error, RuntimeError):
        return None
    words = ("Connection closed", "Connection reset", "Connection refused", "Broken pipe", "gloo", "NCCL", "Socket")
    return error if isinstance(error, dist.DistError) or any(word in str(error) for word in words) else None
