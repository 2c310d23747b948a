"""Several processes that train one model, on PyTorch's own engine: torchrun, DistributedDataParallel, gloo and nccl.

Each process computes the gradients of its part of every batch and takes the whole step, so that all hold the same
weights; the first alone watches the clock, writes and speaks. The networks here are tens of megabytes and fit on every
device many times over: to shard them (FSDP) would save memory that nobody lacks and cost a gather of the weights in
each layer, so it is not done.

torch is imported when it is needed: commands import this room to ask whether they are alone.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from hashlib import sha256
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import DataError, DdpmctlError, ExitCode, Interrupted, SpokenElsewhere, Terminated, UsageError
from .ranks import Ranks, ranks

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import Store  # type: ignore[attr-defined]
    from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

WORD_OF_OTHERS = 2.0
"""Seconds in which a process that fails says why, while those that miss it wait."""


LAST_SECONDS = 5.0
"""Given to a process that hears of a failure elsewhere, to end by itself."""


class ToldElsewhere(DdpmctlError):
    """Another process failed, and says why."""


class PeerLost(DdpmctlError):
    """Another process ended without a word."""


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
        raised = torch.tensor(flags, dtype=torch.uint8)
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
    """
    here = ranks()
    if here.size == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    with spoken_once():
        if torch.cuda.is_available():
            torch.cuda.set_device(here.local % torch.cuda.device_count())
        # Numbers on GPUs go over nccl; wishes and files, which lie in the host's memory, over gloo.
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        backend, store = "cpu:gloo,cuda:nccl" if gpus else "gloo", torchrun_store()
        over, watcher = Event(), None
        try:
            if store is None:
                dist.init_process_group(backend)
            else:
                watcher = Thread(target=_end_with_others, args=(here, over), daemon=True)
                watcher.start()
                # Where torchrun starts all anew, the store still holds where those that are gone could be reached.
                attempt = dist.PrefixStore(f"ddpmctl/{here.restarts}/group", store)  # type: ignore[attr-defined]
                dist.init_process_group(backend, store=attempt, rank=here.rank, world_size=here.size)
            team = Processes(here)
            yield team
            team.any(False)  # nobody leaves while others still listen
            dist.destroy_process_group()
            over.set()
            if watcher:
                watcher.join()
        except RuntimeError as error:
            if not _is_of_the_network(error):
                raise
            raise PeerLost(
                "another process of this training ended without a word; the last commit is kept",
                "torchrun --max-restarts 3 goes on by itself; or ddpmctl train --resume latest",
            ) from error


def _end_with_others(here: Ranks, over: Event) -> None:
    """End this process soon after another has failed, also where it waits for an answer that never comes."""
    store = torchrun_store()
    with suppress(RuntimeError):
        while store and not over.wait(1):
            if store.check([_failed(here)]):
                over.wait(LAST_SECONDS)
                os._exit(ExitCode.FAILED)


def _failed(here: Ranks) -> str:
    return f"ddpmctl/{here.restarts}/failed"


def _is_of_the_network(error: RuntimeError) -> bool:
    """Whether it is the loss of another process that a collective complains of."""
    import torch.distributed as dist

    words = ("Connection closed", "Connection reset", "Connection refused", "Broken pipe", "gloo", "NCCL", "Socket")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


@contextmanager
def spoken_once() -> Iterator[None]:
    """Of what the processes of a job fail with, have each thing said by one of them.

    Raises:
        SpokenElsewhere: in place of an error that another process says, or that follows from one.
    """
    here = ranks()
    try:
        yield
    except BaseException as error:
        if here.size > 1:
            # torchrun ends all when one has failed. This one is on its way, and has something to say before.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if _is_spoken(error, here):
                raise SpokenElsewhere(getattr(error, "exit_code", ExitCode.FAILED)) from error
        raise


def _is_spoken(error: BaseException, here: Ranks) -> bool:
    """Whether another process says it; else all others hear that this one failed."""
    if isinstance(error, ToldElsewhere):
        return True
    same_in_all = isinstance(error, UsageError | Interrupted | Terminated)
    store = torchrun_store()
    if store is None or isinstance(error, Interrupted | Terminated):
        return same_in_all and not here.is_first
    follows = isinstance(error, PeerLost) or not isinstance(error, Exception)
    until = time.monotonic() + WORD_OF_OTHERS
    while follows and time.monotonic() < until:
        if store.check([_failed(here)]):
            return True
        time.sleep(0.1)
    store.add(_failed(here), 1)
    if same_in_all:
        return not here.is_first
    what = sha256(f"{type(error).__name__} {error}".encode()).hexdigest()
    return store.add(f"{_failed(here)}/{what}", 1) > 1


def torchrun_store() -> "Store | None":
    """The table that torchrun keeps for its processes, which outlives them; None without torchrun."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    with suppress(RuntimeError):
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
    return None


BEGUN = "ddpmctl/begun"


def remember(**facts: str) -> None:
    """Have torchrun keep these for the processes that it starts in place of this one, should it come to that."""
    store = torchrun_store() if ranks().launched else None
    if store:
        store.set(BEGUN, json.dumps(facts))


def remembered() -> dict[str, str]:
    """What a process before this one had kept; nothing in a job that was not restarted."""
    if not ranks().restarts:
        return {}
    store = torchrun_store()
    if store is None or not store.check([BEGUN]):
        return {}
    facts: dict[str, str] = json.loads(store.get(BEGUN))
    return facts
