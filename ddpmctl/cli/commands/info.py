"""``ddpmctl info``."""

import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ddpmctl import __version__, plugins
from ddpmctl.cli.failures import describe
from ddpmctl.cli.options import Json
from ddpmctl.cli.output import Output, escaped
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

EXTRAS = {"eval": "torchmetrics", "images": "textual_image", "tensorboard": "tensorboard"}
"""What each extra brings, as it is imported."""


def info(as_json: Json = False) -> None:
    """Show versions, hardware and paths, for bug reports.

    Example: ddpmctl info
    """
    out = Output("info", as_json=as_json)
    data = {
        "ddpmctl": __version__,
        "python": f"{platform.python_version()} in {sys.prefix}",
        "system": platform.platform(),
        "packages": {found: _version(found) for found in map(_installed, PACKAGES)},
        "extras": {name: find_spec(module) is not None for name, module in EXTRAS.items()},
        "computing": _computing(),
        "torchvision": _torchvision(),
        "opencv": _opencv(),
        "directories": _directories(),
        "settings": {name: value for name, value in sorted(os.environ.items()) if name.startswith("DDPMCTL_")},
        "plugins": [
            {"name": plugin.name, "package": plugin.distribution, "version": plugin.version}
            for group in (plugins.COMMANDS, plugins.DATASETS, plugins.SAMPLERS)
            for plugin in plugins.discover(group)
            if not plugin.builtin
        ],
        "terminal": {
            "colours": out.stderr.color_system or "none",
            "encoding": out.stderr.encoding,
            "size": f"{out.stderr.width}x{out.stderr.height}" if out.stderr.is_terminal else "no terminal",
        },
    }
    out.result(data, _table(data))


def _installed(package: str) -> str:
    """The distribution that provides a package: OpenCV comes in several."""
    candidates = OPENCV if package == OPENCV[0] else (package,)
    return next((name for name in candidates if _version(name)), package)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _computing() -> dict[str, str]:
    """What is computed on unless told otherwise, and how finely; or why nothing can be."""
    try:
        import torch

        from ddpmctl.devices import choose_device, choose_precision, describe_device
    except (ImportError, OSError, RuntimeError) as error:
        return {"problem": f"torch does not load: {error}"}
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
        "build": f"torch {torch.__version__}, {cuda}, {torch.cuda.device_count()} GPUs seen",
    }


def _torchvision() -> str:
    from ddpmctl.imports import load_torchvision

    return _problem(lambda: load_torchvision("datasets")) or "fits torch"


def _opencv() -> str:
    from ddpmctl.imports import load_cv2

    return _problem(load_cv2) or "loads"


def _problem(load: Callable[[], object]) -> str | None:
    """Why something cannot be imported, and what to do; None where it can be."""
    try:
        load()
    except (DdpmctlError, ImportError, MemoryError, OSError, RuntimeError) as error:
        failure = describe(error)
        return f"{failure.message}; {failure.hint}"
    return None


def _directories() -> dict[str, dict[str, Any]]:
    def cache(part: str) -> Path:
        return user_cache_path("ddpmctl", appauthor=False) / part

    places: dict[str, Callable[[], Path]] = {
        "models": lambda: Registry().models,
        "cached data": lambda: cache("datasets"),
        "cached classifiers": lambda: cache("classifiers"),
    }
    return {name: _directory(find) for name, find in places.items()}


def _directory(find: Callable[[], Path]) -> dict[str, Any]:
    try:
        path = find()
    except DdpmctlError as error:
        return {"path": None, "exists": False, "bytes": 0, "problem": f"{error.message}; {error.hint}"}
    return {"path": str(path), "exists": path.is_dir(), "bytes": _size(path)}


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


def _table(data: dict[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))

    def row(name: str, value: str) -> None:
        table.add_row(Text(name, style="bold"), Text(escaped(value)))

    for name in ("ddpmctl", "python", "system"):
        row(name, data[name])
    row("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in data["packages"].items()))
    row("extras", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in data["extras"].items()))
    computing = data["computing"]
    if "problem" in computing:
        row("computing", computing["problem"])
    else:
        row("computing", f"{computing['described']}, in {computing['precision']}: {computing['why']}")
        row("threads", f"{computing['threads']}, on {computing['cpus']}; {computing['waiting']}")
        row("torch", computing["build"])
    row("torchvision", data["torchvision"])
    row("OpenCV", data["opencv"])
    for name, place in data["directories"].items():
        state = f"{place['bytes'] / 1e6:,.1f} MB" if place["exists"] else "empty"
        row(name, place.get("problem") or f"{place['path']}, {state}")
    row("settings", ", ".join(f"{name}={value}" for name, value in data["settings"].items()) or "none")
    row("plugins", ", ".join(f"{p['name']} from {p['package']} {p['version']}" for p in data["plugins"]) or "none")
    terminal = data["terminal"]
    row("terminal", f"{terminal['size']}, colours {terminal['colours']}, {terminal['encoding']}")
    return table
