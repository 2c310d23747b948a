"""``ddpmctl info``: the information for bug reports."""

import platform
from importlib import metadata
from pathlib import Path

import pytest

from ddpmctl.registry import Registry
from tests.conftest import Cli

from .support import computed, reported
from .test_startup import fake


def test_everything_that_matters_is_told(tiny: Cli, tiny_home: Path) -> None:
    told = reported(tiny("info", "--json", DDPMCTL_DATA_DIR="/data"), "info")
    assert told["python"].startswith(platform.python_version())
    assert told["packages"]["torch"] == metadata.version("torch")
    assert None not in told["packages"].values()
    assert told["computing"]["device"] == computed()["device"]
    assert told["computing"]["precision"] == computed()["precision"]
    assert told["computing"]["why"]
    assert (told["torchvision"], told["opencv"]) == ("compatible", "ok")
    models = told["directories"]["models"]
    size = sum(path.lstat().st_size for path in Registry(tiny_home).models.rglob("*") if path.is_file())
    assert models == {"path": str(tiny_home / "models"), "exists": True, "bytes": size}
    assert told["settings"]["DDPMCTL_DATA_DIR"] == "/data"
    assert set(told["extras"]) == {"eval", "images", "tensorboard", "svhn"}
    assert told["terminal"]["size"] == "no terminal"


def test_a_person_reads_the_same(tiny_here: Cli) -> None:
    said = tiny_here("info").stdout
    for word in ("torch ", "device", "compatible", "models", "environment", "DDPMCTL_OFFLINE=1", "plugins"):
        assert word in said


def test_what_is_broken_is_told_and_does_not_break_the_telling(cli: Cli, tmp_path: Path) -> None:
    broken = fake(tmp_path / "fake", "torchvision", "RuntimeError('operator torchvision::nms does not exist')")
    fake(tmp_path / "fake", "cv2", "ImportError('libGL.so.1: cannot open shared object file')")
    fake(tmp_path / "fake", "torch", "OSError('libtorch_cpu.so: cannot open shared object file')")
    told = reported(cli("info", "--json", PYTHONPATH=broken), "info")
    assert "is not compatible with the installed torch" in told["torchvision"]
    assert "libGL.so.1" in told["opencv"]
    assert told["computing"] == {"problem": "torch cannot be imported: libtorch_cpu.so: cannot open shared object file"}
    assert cli("info", PYTHONPATH=broken).returncode == 0


def test_opencv_of_another_distribution_is_not_missing(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metadata.version

    def version(name: str) -> str:
        if name == "opencv-python":
            raise metadata.PackageNotFoundError(name)
        return "4.9.0" if name == "opencv-python-headless" else whole(name)

    monkeypatch.setattr(metadata, "version", version)
    packages = reported(here("info", "--json"), "info")["packages"]
    assert packages["opencv-python-headless"] == "4.9.0"
    assert "opencv-python" not in packages
    assert "MISSING" not in here("info").stdout
