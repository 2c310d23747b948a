"""``ddpmctl info``."""

from typing import Any

from rich.console import RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ddpmctl.cli.failures import describe
from ddpmctl.cli.options import Json
from ddpmctl.cli.output import Output, escaped
from ddpmctl.environment import Environment, Folder, inspect_environment


def info(as_json: Json = False) -> None:
    """Show versions, hardware and paths, for bug reports.

    Example: ddpmctl info
    """
    out = Output("info", as_json=as_json)
    found = inspect_environment()
    data = {
        "ddpmctl": found.ddpmctl,
        "python": found.python,
        "system": found.system,
        "packages": found.packages,
        "extras": found.extras,
        "computing": found.compute,
        "torchvision": _reason(found.torchvision) or "compatible",
        "opencv": _reason(found.opencv) or "ok",
        "directories": {name: _directory(folder) for name, folder in found.folders.items()},
        "settings": found.variables,
        "plugins": [
            {"name": plugin.name, "package": plugin.distribution, "version": plugin.version} for plugin in found.plugins
        ],
        "terminal": {
            "colours": out.stderr.color_system or "none",
            "encoding": out.stderr.encoding,
            "size": f"{out.stderr.width}x{out.stderr.height}" if out.stderr.is_terminal else "no terminal",
        },
    }
    out.result(data, _table(found, data))


def _reason(problem: Exception | None) -> str | None:
    if problem is None:
        return None
    failure = describe(problem)
    return f"{failure.message}; {failure.hint}"


def _directory(folder: Folder) -> dict[str, object]:
    record: dict[str, object] = {"path": folder.path, "exists": folder.exists, "bytes": folder.bytes}
    return record | ({"problem": _reason(folder.problem)} if folder.problem else {})


def _table(found: Environment, data: dict[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))

    def row(name: str, value: str) -> None:
        table.add_row(Text(name, style="bold"), Text(escaped(value)))

    for name in ("ddpmctl", "python", "system"):
        row(name, data[name])
    row("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in found.packages.items()))
    row("extras", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found.extras.items()))
    compute = found.compute
    if "problem" in compute:
        row("device", compute["problem"])
    else:
        row("device", f"{compute['described']}, {compute['precision']} ({compute['why']})")
        row("threads", f"{compute['threads']} threads ({compute['cpus']}), {compute['waiting']}")
        row("torch", compute["build"])
    row("torchvision", data["torchvision"])
    row("OpenCV", data["opencv"])
    for name, folder in found.folders.items():
        state = decimal(folder.bytes) if folder.exists else "not created yet"
        row(name, _reason(folder.problem) or f"{folder.path}, {state}")
    row("environment", ", ".join(f"{name}={value}" for name, value in found.variables.items()) or "none")
    row("plugins", ", ".join(f"{p.name} from {p.distribution} {p.version}" for p in found.plugins) or "none")
    terminal = data["terminal"]
    row("terminal", f"{terminal['size']}, colours {terminal['colours']}, {terminal['encoding']}")
    return table
