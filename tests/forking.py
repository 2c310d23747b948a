"""Command lines in forks of one process that has imported the libraries: starting Python and importing torch takes
longer than most commands that are tested.

Each command still runs in a process of its own, with its own arguments, environment, folder, streams and signals, and
imports ddpmctl itself afresh. What is read before Python or a library is loaded cannot differ from the server's: where
a test sets such a variable, `can_fork` says no, and the command is started as usual.
"""

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

CHANGEABLE = ("DDPMCTL_", "XDG_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_", "TERM", "COLORTERM", "HOME",
              "JPY_", "_DDPMCTL_")  # fmt: skip
"""Beginnings of variables that are read when a command runs, not when a library is loaded."""

LIBRARIES = (
    "typer", "rich.console", "rich.live", "rich.progress", "rich.table", "typer.rich_utils", "platformdirs", "filelock",
    "numpy", "PIL.Image", "PIL.PngImagePlugin", "PIL.GifImagePlugin", "PIL.WebPImagePlugin", "cv2", "jinja2", "torch",
    "torch.distributed", "torchvision", "safetensors.torch", "safetensors.numpy", "importlib.metadata",
)  # fmt: skip


INHERITED = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that a command ignores where the process that starts it does."""


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether a command with these variables beside the tests' own can run in a fork."""
    return hasattr(os, "fork") and all(name.startswith(CHANGEABLE) for name in environment)


class ForkedProcess:
    """A command that runs in a fork of the server; its interface is that of `subprocess.Popen` as far as needed.

    Args:
        arguments: of ``python -m ddpmctl``.
        cwd: the folder it runs in.
        environment: all of its variables.
        streams: file descriptors of stdin, stdout and stderr.
        terminal: whether stdin is the terminal that controls it.
    """

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        environment: dict[str, str],
        streams: list[int],
        *,
        terminal: bool = False,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        reading, writing = os.pipe()
        ignored = [number for number in INHERITED if signal.getsignal(number) is signal.SIG_IGN]
        request = {
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": environment,
            "terminal": terminal,
            "ignored": ignored,
        }
        _send(_server(), request, [*streams, writing])
        os.close(writing)
        self._report = os.fdopen(reading)
        self.pid = int(self._report.readline())

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
            self.returncode = int(self._report.readline())
            self._report.close()
        return self.returncode


@cache
def _server() -> socket.socket:
    """A connection to this process's server, which ends with it."""
    here, there = socket.socketpair()
    subprocess.Popen(
        [sys.executable, "-m", "tests.forking", str(there.fileno())],
        pass_fds=[there.fileno()], cwd=Path(__file__).parent.parent, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    there.close()
    return here


def _send(connection: socket.socket, request: object, descriptors: list[int]) -> None:
    text = json.dumps(request).encode()
    socket.send_fds(connection, [array.array("I", [len(text)]).tobytes()], descriptors)
    connection.sendall(text)


def _serve(connection: socket.socket) -> None:
    """Fork for each request until the tests are over."""
    from importlib import import_module

    for name in LIBRARIES:
        import_module(name)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        length, descriptors, _, _ = socket.recv_fds(connection, 4, 4)
        if not length:
            return
        text, size = b"", array.array("I", length)[0]
        while len(text) < size:
            text += connection.recv(size - len(text))
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch(json.loads(text), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request: dict[str, object], descriptors: list[int]) -> NoReturn:
    """Fork the command, and report its number and its exit code."""
    *streams, report = descriptors
    command = os.fork()
    if command == 0:
        os.close(report)
        _run(request, streams)
    for descriptor in streams:
        os.close(descriptor)
    os.write(report, f"{command}\n".encode())
    _, status = os.waitpid(command, 0)
    os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(request: dict[str, object], streams: list[int]) -> NoReturn:
    """Become ``python -m ddpmctl``."""
    import atexit
    import random
    import runpy
    import traceback

    if request["terminal"]:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    for number in INHERITED:
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else signal.SIG_DFL)  # type: ignore[operator]
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    os.chdir(str(request["cwd"]))
    sys.argv = ["ddpmctl", *request["arguments"]]  # type: ignore[misc]
    sys.stdin = open(0, errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    random.seed()
    code = 0
    try:
        runpy.run_module("ddpmctl", run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finishes: Callable[[], None] = atexit._run_exitfuncs
    finishes()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
