"""Facts about the installation and the machine, for bug reports."""

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ddpmctl import __version__, plugins
from ddpmctl.errors import DdpmctlError
from ddpmctl.paths import user_cache_path
from ddpmctl.registry import Registry
from ddpmctl.threads import usable_cpus, wait_policy

PACKAGES = (
    "torch", "torchvision", "numpy", "typer", "rich", "opencv-python", "pillow", "platformdirs", "safetensors",
    "filelock", "msgspec", "jinja2", "matplotlib",
)  # fmt: skip

OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Distributions that all provide the module cv2."""

EXTRAS = {"eval": "torchmetrics", "images": "textual_image", "tensorboard": "tensorboard", "svhn": "scipy"}
"""The module that each extra installs."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the program; ``path`` is None if it cannot be determined."""

    path: str | None
    exists: bool
    bytes: int
    problem: DdpmctlError | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """Installed packages, compute device and folders."""

    ddpmctl: str
    python: str
    system: str
    packages: dict[str, str | None]
    """Versions by distribution; None for one that is missing."""
    extras: dict[str, bool]
    compute: dict[str, str]
    """The default device and precision, threads and build of torch; or only ``problem`` if torch cannot be imported."""
    torchvision: Exception | None
    """Why it cannot be imported."""
    opencv: Exception | None
    folders: dict[str, Folder]
    variables: dict[str, str]
    """The environment variables that begin with ``DDPMCTL_``."""
    plugins: list[plugins.Plugin]


def inspect_environment() -> Environment:
    """Gather the facts; imports torch, torchvision and OpenCV."""
    from ddpmctl.imports import load_cv2, load_torchvision

    groups = (plugins.COMMANDS, plugins.DATASETS, plugins.SAMPLERS)
    return Environment(
        ddpmctl=__version__,
        python=f"{platform.python_version()} in {sys.prefix}",
        system=platform.platform(),
        packages={found: _version(found) for found in map(_installed, PACKAGES)},
        extras={name: find_spec(module) is not None for name, module in EXTRAS.items()},
        compute=_compute(),
        torchvision=_problem(lambda: load_torchvision("datasets")),
        opencv=_problem(load_cv2),
        folders={
            "models": _folder(lambda: Registry().models),
            "cached data": _folder(lambda: user_cache_path("ddpmctl", appauthor=False) / "datasets"),
            "cached classifiers": _folder(lambda: user_cache_path("ddpmctl", appauthor=False) / "classifiers"),
        },
        variables={name: value for name, value in sorted(os.environ.items()) if name.startswith("DDPMCTL_")},
        plugins=[plugin for group in groups for plugin in plugins.discover(group) if not plugin.builtin],
    )


def _installed(package: str) -> str:
    """The distribution that provides a package: OpenCV comes in several."""
    candidates = OPENCV if package == OPENCV[0] else (package,)
    return next((name for name in candidates if _version(name)), package)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _compute() -> dict[str, str]:
    try:
        import torch

        from ddpmctl.devices import choose_device, choose_precision, describe_device
    except (ImportError, OSError, RuntimeError) as error:
        return {"problem": f"torch cannot be imported: {error}"}
    device = choose_device("auto")
    precision, why = choose_precision("auto", device)
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return {
        "device": str(device),
        "described": describe_device(device),
        "precision": precision,
        "why": why,
        "threads": str(torch.get_num_threads()),
        "cpus": str(usable_cpus()),
        "waiting": wait_policy(),
        "build": f"torch {torch.__version__}, {cuda}, {torch.cuda.device_count()} GPU(s)",
    }


def _problem(load: Callable[[], object]) -> Exception | None:
    try:
        load()
    except (DdpmctlError, ImportError, MemoryError, OSError, RuntimeError) as error:
        return error
    return None


def _folder(find: Callable[[], Path]) -> Folder:
    try:
        path = find()
    except DdpmctlError as error:
        return Folder(None, False, 0, error)
    return Folder(str(path), path.is_dir(), _size(path))


def _size(path: Path) -> int:
    """Bytes below a directory, as far as it can be read."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            try:
                total += (Path(folder) / file).lstat().st_size
            except OSError:
                continue
    return total
