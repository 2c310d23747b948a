"""Jobs of several processes, started like torchrun does."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, Result, clean_environment

HERE = Path(__file__).parent

QUICK = ("--preset", "quick", "--dataset", "strokes:300", "--batch-size", 30, "--precision", "fp32", "--device", "cpu")
"""Nine steps an epoch, of some tenths of a second."""


class Job:
    """A torchrun in the background, with its processes.

    Args:
        home: of the tool, and where it runs.
        processes: how many it starts.
        what: the script or the module and its arguments.
        options: of torchrun.
    """

    def __init__(self, home: Path, processes: int, *what: object, options: tuple[object, ...] = ()) -> None:
        handle, path = tempfile.mkstemp(".log", dir=home)
        self.log = Path(path)
        placed = {"--master-port", "--rdzv-endpoint"} & set(options)
        where = options if placed else ("--standalone", *options)
        command = [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", processes, *what]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=home,
            env={**clean_environment(home), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=handle,
        )
        os.close(handle)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        left = self.workers() if self.process.poll() is None else {}
        self.process.kill()
        self.process.wait()
        for pid in left.values():  # each leads a session of its own and outlives torchrun
            os.kill(pid, 9)

    @property
    def said(self) -> str:
        """What torchrun and all of its processes said so far."""
        return self.log.read_text(errors="replace")

    def errors(self) -> list[str]:
        """What the tool complained of, and not torchrun, which has a summary of its own."""
        return re.findall(r"^error: (.*)$", self.said, re.MULTILINE)

    def workers(self) -> dict[int, int]:
        """The processes by rank."""
        agent = self.process.pid
        found = {}
        for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            values = dict(entry.split(b"=", 1) for entry in environment if b"=" in entry)
            if b"RANK" in values:
                found[int(values[b"RANK"])] = int(pid)
        return found

    def wait_for(self, words: str, seconds: float = 120) -> None:
        """Wait until these words were said."""
        end = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.poll() is None and time.monotonic() < end, f"never said '{words}':\n{self.said}"
            time.sleep(0.02)

    def finish(self, seconds: float = 200) -> int:
        """Wait for the end; returns how torchrun ended."""
        return self.process.wait(timeout=seconds)


def ddpmctl(home: Path, processes: int, *arguments: object, options: tuple[object, ...] = ()) -> Job:
    """``torchrun -m ddpmctl ..``."""
    return Job(home, processes, "-m", "ddpmctl", *arguments, options=options)


def run(home: Path, processes: int, *arguments: object, options: tuple[object, ...] = ()) -> str:
    """The same to its end, which must be a good one; returns what it said."""
    with ddpmctl(home, processes, *arguments, options=options) as job:
        assert job.finish() == 0, job.said
        return job.said


def lone(home: Path, *arguments: object, **environment: Any) -> Result:
    """One process, without torchrun."""
    from tests.conftest import run_cli

    done = run_cli(home, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done


def in_job(rank: int, size: int) -> dict[str, Any]:
    """What torchrun would write into the environment of one of its processes."""
    return {
        "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "RANK": str(rank), "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
    }  # fmt: skip
