"""Coordination of the processes of a torchrun job through torchrun's key-value store.

The rendezvous, failures and their reporting, and the run that was trained before an elastic restart.
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

from ddpmctl.errors import AlreadyReported, DdpmctlError, ExitCode, Interrupted, Terminated, UsageError, ending_signals
from ddpmctl.ranks import Ranks, ranks

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

REPORT_DELAY = 2.0
"""Seconds that a process which lost another waits for the one that failed to report why."""

FAILED = "/failed"
"""Key after the prefix of a job, set once one of its processes has failed."""

EXIT_DELAY = 5.0
"""Seconds in which a process may end by itself after a failure elsewhere."""

CURRENT_RUN = "ddpmctl/current_run"


class RemoteError(DdpmctlError):
    """Another process failed and reports the error."""


class PeerLost(DdpmctlError):
    """Another process ended without a report."""


def rendezvous(here: Ranks) -> str:
    """A prefix in torchrun's store that the processes started together share, and none before them had.

    torchrun counts its restarts on each machine separately, so the count does not identify a start. Rank 0 generates a
    name and publishes it with the tokens of the processes it is for, until all have read it.
    """
    store, token, rendezvous_key = torchrun_store(), uuid4().hex, "ddpmctl/rendezvous"
    name, everybody = uuid4().hex, range(here.size)
    store.set(f"{rendezvous_key}/{here.rank}", token)
    while True:
        if here.is_main_process:
            tokens = [_read(store, f"{rendezvous_key}/{rank}") for rank in everybody]
            store.set(rendezvous_key, json.dumps({"name": name, "tokens": tokens}))
        published = json.loads(_read(store, rendezvous_key) or '{"tokens": []}')
        if published["tokens"][here.rank : here.rank + 1] == [token]:
            prefix = f"ddpmctl/{published['name']}"
            store.set(f"{prefix}/{here.rank}", "here")
            if not here.is_main_process or store.check([f"{prefix}/{rank}" for rank in everybody]):
                return prefix
        time.sleep(0.05)


def exit_with_peers(prefix: str, left: Event) -> None:
    """End this process soon after another has failed, even if it waits in a collective that never returns."""
    with suppress(DdpmctlError, RuntimeError):
        store = torchrun_store()
        while not left.wait(1):
            if store.check([prefix + FAILED]):
                if not left.wait(EXIT_DELAY):
                    os._exit(ExitCode.FAILED)
                return


def first_line(error: RuntimeError) -> str:
    """The message of an error without torch's source locations."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[\S*/\S*\] ?)+", "", lines[0])[:200]


@contextmanager
def report_once(prefix: str | None = None) -> Iterator[None]:
    """Have each error of a job reported by one process alone: the others raise `AlreadyReported` in its place.

    Args:
        prefix: of the keys in torchrun's store; derived from the number of restarts by default.
    """
    here = ranks()
    try:
        yield
    except BaseException as error:
        if here.size > 1:
            # torchrun ends all processes once one has failed; this one is ending already, and reports first.
            for signum in ending_signals():
                signal.signal(signum, signal.SIG_IGN)
            reported = False
            with suppress(RuntimeError, DdpmctlError):  # two reports are better than none
                reported = _is_reported(error, here, (prefix or f"ddpmctl/{here.restarts}") + FAILED)
            if reported:
                raise AlreadyReported(getattr(error, "exit_code", ExitCode.FAILED)) from error
        raise


def _is_reported(error: BaseException, here: Ranks, failed: str) -> bool:
    """Whether another process reports the error; else publishes that this one failed."""
    if isinstance(error, RemoteError):
        return True
    if isinstance(error, Interrupted | Terminated):
        return not here.is_main_process  # it is the same in all, and no failure
    store = torchrun_store()
    ended = not isinstance(error, Exception)
    until = time.monotonic() + REPORT_DELAY
    while (ended or isinstance(error, PeerLost)) and time.monotonic() < until:
        if store.check([failed]):
            return True
        time.sleep(0.1)
    if ended:
        return not here.is_main_process
    store.add(failed, 1)
    if isinstance(error, UsageError):
        return not here.is_main_process
    digest = sha256(f"{type(error).__name__} {error}".encode()).hexdigest()
    return store.add(f"{failed}/{digest}", 1) > 1


def torchrun_store(seconds: float = 5.0) -> "Store":
    """The key-value store that torchrun keeps for its processes, and that outlives them.

    Args:
        seconds: to wait for it, and for each of its replies.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise DdpmctlError(
            "torchrun does not share its store with the processes", "unset TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
        )
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=seconds))
    except RuntimeError as error:
        raise DdpmctlError(
            f"torchrun cannot be reached at {address}:{port}: {first_line(error)}",
            "check firewalls between the machines",
        ) from error


def store_current_run(**facts: str) -> None:
    """Leave these facts for the processes that torchrun starts in place of this one, if it has to."""
    if ranks().launched:
        torchrun_store().set(CURRENT_RUN, json.dumps(facts))


def stored_run() -> dict[str, str]:
    """The facts that a process before this one left; empty in a job that was not restarted."""
    facts: dict[str, str] = json.loads(_read(torchrun_store(), CURRENT_RUN) or "{}") if ranks().launched else {}
    return facts


def _read(store: "Store", key: str) -> str:
    """The value of a key, empty if it is not set."""
    return store.get(key).decode() if store.check([key]) else ""
