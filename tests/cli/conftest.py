"""Runs commands in the test process, to avoid importing torch again."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpmctl.cli.main import main
from ddpmctl.errors import ending_signals
from tests.conftest import Cli, Result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Like ``cli``, but what it runs can be patched and has torch at hand already."""

    def run(*arguments: object) -> Result:
        typed = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["ddpmctl", *typed])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(typed, code, said.out, said.err)

    monkeypatch.chdir(tmp_path)
    before = {signum: signal.getsignal(signum) for signum in ending_signals()}
    yield run
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def tiny_here(here: Cli, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``here`` in an empty folder, with the tiny model in its registry."""
    monkeypatch.setenv("DDPMCTL_HOME", str(tiny_home))
    return here
