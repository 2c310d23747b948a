"""Shared fixtures: a clean environment, the command line in a subprocess, and one tiny trained model."""

import os

# Several tests run at once, and threads that wait for a processor are slower than none. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import logging
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forking import ForkedProcess, can_fork

# A shell starts a background job with SIGINT ignored, and so would be every process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
Result = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]


def clean_environment(home: Path) -> dict[str, str]:
    """The process's environment without the user's settings, and with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DDPMCTL_")}
    return {
        **kept,
        "DDPMCTL_HOME": str(home),
        "DDPMCTL_OFFLINE": "1",
        "XDG_CACHE_HOME": str(home / "cache"),
        "TTY_COMPATIBLE": "0",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def run_cli(home: Path, *arguments: object, cwd: Path | None = None, **environment: str) -> Result:
    """Run ``python -m ddpmctl`` as a stranger would, and return what it said."""
    whole = {**clean_environment(home), **environment}
    if can_fork(environment):
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
        ):
            streams = [0, out.fileno(), err.fileno()]
            command = ForkedProcess([*map(str, arguments)], cwd or home, whole, streams)
            try:
                code = command.wait(timeout=300)
            finally:
                command.kill()
            out.seek(0)
            err.seek(0)
            return Result(command.args, code, out.read(), err.read())
    return subprocess.run(
        [sys.executable, "-m", "ddpmctl", *map(str, arguments)],
        cwd=cwd or home,
        env=whole,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What opens a browser is slow."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def clean_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's models, cache or settings, nor the network."""
    for name in list(os.environ):
        if name.startswith("DDPMCTL_"):
            monkeypatch.delenv(name)
    for name, value in clean_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    # A command that ran in this process has left its log handler.
    monkeypatch.setattr(logging.getLogger("ddpmctl"), "handlers", [])


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """``cli("generate", "8")`` in an empty folder that is also the home."""
    return lambda *arguments, **options: run_cli(tmp_path, *arguments, **options)


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one model, ``tiny``: the quick preset, trained for two epochs on 300 strokes. Read only."""
    home = tmp_path_factory.mktemp("tiny")
    done = run_cli(
        home, "train", "--preset", "quick", "--dataset", "strokes:300", "--name", "tiny", "--batch-size", 64,
        "--epochs", 2, "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def tiny(tiny_home: Path, tmp_path: Path) -> Cli:
    """The command line with the tiny model in its registry, run in an empty folder."""
    return lambda *arguments, **options: run_cli(tiny_home, *arguments, **{"cwd": tmp_path, **options})


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder that holds the real MNIST, from ``DDPMCTL_DATA_DIR`` as it was when the tests were started."""
    if REAL_DATA_DIR is None:
        pytest.skip("the real MNIST is not here: set DDPMCTL_DATA_DIR to the folder that holds MNIST/raw")
    return Path(REAL_DATA_DIR)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, which tells what it asked for and what went wrong."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium is not here: Debian's packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


REAL_DATA_DIR = os.environ.get("DDPMCTL_DATA_DIR")
