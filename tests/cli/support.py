"""Helpers for command-line tests: error messages, folders, images, and a pseudo-terminal."""

import codecs
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpmctl.devices import choose_device, choose_precision
from ddpmctl.registry import Checkpoint, Registry
from tests.builders import rewrite_manifest
from tests.conftest import Result, clean_environment
from tests.forking import ForkedProcess, can_fork


def tiny_checkpoint(home: Path, name: str = "tiny") -> Checkpoint:
    return Registry(home).open(name)


def copy_model(source_home: Path, home: Path, name: str) -> Path:
    """Put the tiny model into another registry under a name, and return the directory of its one best commit."""
    shutil.copytree(source_home / "models" / "tiny", home / "models" / name)
    return tiny_checkpoint(home, name).path


def alter_manifest(commit: Path, **values: Any) -> None:
    """Change top-level fields of a manifest."""
    rewrite_manifest(commit, {**json.loads((commit / "manifest.json").read_text()), **values})


def tell_of_another_run(commit: Path, **run: Any) -> None:
    """Change fields of a manifest's run, and forget the state, which would not fit it."""
    values = json.loads((commit / "manifest.json").read_text())
    files = {name: record for name, record in values["files"].items() if not name.startswith("state")}
    (commit / "state.safetensors").unlink(missing_ok=True)
    alter_manifest(commit, run={**values["run"], **run}, resume=None, files=files)


def tree(folder: Path) -> dict[str, str]:
    """All that lies in a folder, with digests. Lock files say nothing about what was done and are left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
        if path.suffix != ".lock"
    }


def complaint(result: Result, code: int) -> tuple[str, str]:
    """What a refused command says: its error and its hint, after whatever notes; and nothing on stdout."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    match = re.fullmatch(r"(?:.*\n)*?error: (.+)\n\nhint: (.+)\n", result.stderr)
    assert match, result.stderr
    return match[1], match[2]


def reported(result: Result, command: str) -> Any:
    """The result in the JSON that is alone on stdout."""
    assert result.returncode == 0, result.stderr
    envelope = json.loads(result.stdout, parse_constant=_refuse_constant)
    assert list(envelope) == ["version", "command", "result"]
    assert (envelope["version"], envelope["command"]) == (1, command)
    return envelope["result"]


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def frames(path: Path) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """The frames of an animation in grey or colour, and how long each is shown, in milliseconds."""
    pictures, durations = [], []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            pictures.append(np.asarray(image.convert("RGB")))
            durations.append(round(image.info.get("duration", 0)))
    return pictures, durations


OFTEN = (
    sys.executable,
    "-c",
    "from ddpmctl.training import previews; previews.SHARE = 1e9; from ddpmctl.cli.main import main; main()",
)
"""A ddpmctl that draws a preview after each step, however long that takes."""


class Running:
    """A ``ddpmctl`` in the background, whose stderr can be read while it goes on."""

    def __init__(self, home: Path, *arguments: object, **environment: str) -> None:
        # Files, since a pipe that is read line by line and then to its end loses what was buffered in between.
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115  closed on exit
        self.process: subprocess.Popen[bytes] | ForkedProcess
        typed, whole = [*map(str, arguments)], {**clean_environment(home), **environment}
        if can_fork(environment):
            self.process = ForkedProcess(typed, home, whole, [0, self._out.fileno(), self._err.fileno()])
        else:
            command = [sys.executable, "-m", "ddpmctl", *typed]
            self.process = subprocess.Popen(command, cwd=home, env=whole, stdout=self._out, stderr=self._err)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()

    @property
    def said(self) -> str:
        """Its stderr so far."""
        return os.pread(self._err.fileno(), 1_000_000, 0).decode()

    def wait_for(self, words: str, seconds: float = 300) -> None:
        """Wait until its stderr holds these words."""
        end = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.poll() is None or words in self.said, f"never said '{words}':\n{self.said}"
            assert time.monotonic() < end, f"never said '{words}':\n{self.said}"
            time.sleep(0.02)

    def send(self, signal: int) -> None:
        self.process.send_signal(signal)

    def finish(self) -> Result:
        """Wait for the end."""
        code = self.process.wait(timeout=300)
        out = os.pread(self._out.fileno(), 1_000_000, 0).decode()
        return subprocess.CompletedProcess(self.process.args, code, out, self.said)


class Terminal:
    """A ``ddpmctl`` that sits at a real pseudo-terminal, its stdout, stderr and stdin alike."""

    def __init__(
        self,
        home: Path,
        *arguments: object,
        cwd: Path | None = None,
        program: tuple[str, ...] = (),
        lines: int = 40,
        columns: int = 110,
        **environment: str,
    ) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        kept = {k: v for k, v in clean_environment(home).items() if k not in ("TTY_COMPATIBLE", "COLUMNS", "NO_COLOR")}
        typed, whole = [*map(str, arguments)], {**kept, "TERM": "xterm-256color", **environment}
        self.process: subprocess.Popen[bytes] | ForkedProcess
        if not program and can_fork(environment):
            self.process = ForkedProcess(typed, cwd or home, whole, [slave] * 3, terminal=True)
        else:
            self.process = subprocess.Popen(
                [*(program or (sys.executable, "-m", "ddpmctl")), *typed],
                cwd=cwd or home,
                env=whole,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                # The keys of a terminal become signals for the process group that has it as its own.
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            )
        os.close(slave)
        self.screen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self, seconds: float) -> bool:
        """Take what has been drawn; False once nobody draws any more."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            drawn = os.read(self.master, 65536)
        except OSError:  # Linux says EIO where others say end of file
            return False
        self.screen += self._decoder.decode(drawn)
        return bool(drawn)

    def wait_for(self, words: str, seconds: float = 300, *, raw: bool = False) -> None:
        """Read until words have been drawn; with ``raw``, anything that was sent."""
        end = time.monotonic() + seconds
        while words not in (self.screen if raw else self.text):
            alive = self._read(1)
            assert alive or words in (self.screen if raw else self.text), f"never showed '{words}':\n{self.text}"
            assert time.monotonic() < end, f"never showed '{words}':\n{self.text}"

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def finish(self, seconds: float = 300) -> int:
        """Read to the end and return the exit code."""
        end = time.monotonic() + seconds
        while self._read(1):
            assert time.monotonic() < end, f"never ended:\n{self.text}"
        return self.process.wait(timeout=10)

    @property
    def text(self) -> str:
        """All that was drawn, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.screen).replace("\r", "")


def computed() -> dict[str, str]:
    """What is computed on here, and how finely, when nothing is asked for."""
    device = choose_device("auto")
    return {"device": str(device), "precision": choose_precision("auto", device)[0]}
