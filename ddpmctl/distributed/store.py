"""What the processes of one torchrun tell one another beside their tensors, through the store that it keeps for them.

Who is there, who failed, who says why, and what was begun before all were started again.
"""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from threading import Event
from typing import TYPE_CHECKING
from uuid import uuid4

from ddpmctl.errors import DdpmctlError, ExitCode, Interrupted, SpokenElsewhere, Terminated, UsageError, ending_signals
from ddpmctl.ranks import Ranks, ranks

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

WORD_OF_OTHERS = 2.0
"""Seconds in which a process that fails says why, while those that miss it wait."""

FAILED = "/failed"
"""What stands behind the prefix of a job once one of its processes has failed."""

LAST_SECONDS = 5.0
"""Given to a process that hears of a failure elsewhere, to end by itself."""


class ToldElsewhere(DdpmctlError):
    """Another process failed, and says why."""


class PeerLost(DdpmctlError):
    """Another process ended without a word."""


def met(here: Ranks) -> str:
    """A prefix in torchrun's store that the processes which were started together share, and none before them had.

    torchrun counts its restarts on each machine by itself, so the count will not do. The first process makes a name up
    and says for which processes it is, each of which has left a word, until all have heard it.
    """
    store, mine, meeting = torchrun_store(), uuid4().hex, "ddpmctl/meeting"
    name, everybody = uuid4().hex, range(here.size)
    store.set(f"{meeting}/{here.rank}", mine)
    while True:
        if here.is_first:
            words = [_read(store, f"{meeting}/{rank}") for rank in everybody]
            store.set(meeting, json.dumps({"name": name, "words": words}))
        told = json.loads(_read(store, meeting) or '{"words": []}')
        if told["words"][here.rank : here.rank + 1] == [mine]:
            prefix = f"ddpmctl/{told['name']}"
            store.set(f"{prefix}/{here.rank}", "here")
            if not here.is_first or store.check([f"{prefix}/{rank}" for rank in everybody]):
                return prefix
        time.sleep(0.05)


def _read(store: "Store", key: str) -> str:
    """What the store holds under a key; nothing where it is not there yet."""
    return store.get(key).decode() if store.check([key]) else ""


def end_with_others(prefix: str, over: Event) -> None:
    """End this process soon after another has failed, also where it waits for an answer that never comes."""
    with suppress(DdpmctlError, RuntimeError):
        store = torchrun_store()
        while not over.wait(1):
            if store.check([prefix + FAILED]):
                if not over.wait(LAST_SECONDS):
                    os._exit(ExitCode.FAILED)
                return


def first_line(error: RuntimeError) -> str:
    """What an error says, without where in torch it says so."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[\S*/\S*\] ?)+", "", lines[0])[:200]


@contextmanager
def spoken_once(prefix: str | None = None) -> Iterator[None]:
    """Of what the processes of a job fail with, have each thing said by one of them.

    Args:
        prefix: of what they write into torchrun's store; made from the number of restarts when not given.

    Raises:
        SpokenElsewhere: in place of an error that another process says, or that follows from one.
    """
    here = ranks()
    try:
        yield
    except BaseException as error:
        if here.size > 1:
            # torchrun ends all when one has failed. This one is on its way, and has something to say before.
            for signum in ending_signals():
                signal.signal(signum, signal.SIG_IGN)
            spoken = False
            with suppress(RuntimeError, DdpmctlError):  # better said twice than not at all
                spoken = _is_spoken(error, here, (prefix or f"ddpmctl/{here.restarts}") + FAILED)
            if spoken:
                raise SpokenElsewhere(getattr(error, "exit_code", ExitCode.FAILED)) from error
        raise


def _is_spoken(error: BaseException, here: Ranks, failed: str) -> bool:
    """Whether another process says it; else all others hear, by a key in the store, that this one failed."""
    if isinstance(error, ToldElsewhere):
        return True
    if isinstance(error, Interrupted | Terminated):
        return not here.is_first  # it is the same in all, and no failure
    store = torchrun_store()
    ended = not isinstance(error, Exception)
    until = time.monotonic() + WORD_OF_OTHERS
    while (ended or isinstance(error, PeerLost)) and time.monotonic() < until:
        if store.check([failed]):
            return True
        time.sleep(0.1)
    if ended:
        return not here.is_first
    store.add(failed, 1)
    if isinstance(error, UsageError):
        return not here.is_first
    what = sha256(f"{type(error).__name__} {error}".encode()).hexdigest()
    return store.add(f"{failed}/{what}", 1) > 1


def torchrun_store(seconds: float = 5.0) -> "Store":
    """The table that torchrun keeps for its processes, which outlives them.

    Args:
        seconds: to wait for it, and for each of its answers.

    Raises:
        DdpmctlError: where there is none, or it does not answer.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise DdpmctlError("this torchrun keeps no store for its processes", "unset TORCH_DISABLE_SHARE_RDZV_TCP_STORE")
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=seconds))
    except RuntimeError as error:
        raise DdpmctlError(
            f"torchrun is not reached at {address}:{port}: {first_line(error)}", "see that no firewall is between"
        ) from error


BEGUN = "ddpmctl/begun"


def remember(**facts: str) -> None:
    """Have torchrun keep these for the processes that it starts in place of this one, should it come to that."""
    if ranks().launched:
        torchrun_store().set(BEGUN, json.dumps(facts))


def remembered() -> dict[str, str]:
    """What a process before this one had kept; nothing in a job that was not restarted."""
    facts: dict[str, str] = json.loads(_read(torchrun_store(), BEGUN) or "{}") if ranks().launched else {}
    return facts
