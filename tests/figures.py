"""Size and structure of the product, beside their limits.

    python -m tests.figures [FOLDER]

prints a table for this checkout, or for another one in FOLDER.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef

OPTION = re.compile(r"(?<![-\w])--[a-z][a-z-]+")
TERMINAL = re.compile(r"(typer|rich)\b")
CLI = re.compile(r"(cli|commands)/|(application|cli|console|failures|streams)\.py$")
"""Modules of the command line, today's and those of 154fc34."""

LIMITS = {
    "lines of the product": "12,500",
    "share of cli/, %": "25",
    "longest file": "400",
    "median file": "125",
    "longest function": "60",
    "median function": "10",
    "most parameters of a function": "8",
    "Any": "50",
    "README.md, bytes": "9,216",
    "options spelled outside cli/": "0",
    "imports of typer or rich outside cli/": "0",
    "commands that import commands": "0",
}

BEFORE = {
    "lines of the product": "18,221",
    "share of cli/, %": "31.6",
    "longest file": "392 (training/trainer.py)",
    "median file": "125",
    "longest function": "65 (engine.py: generate)",
    "median function": "8",
    "most parameters of a function": "13 (training/trainer.py: __init__)",
    "Any": "116",
    "README.md, bytes": "48,085",
    "options spelled outside cli/": "53",
    "imports of typer or rich outside cli/": "8",
    "commands that import commands": "6",
}
"""At commit 154fc34, before the library and the command line were separated."""


class Module:
    """One Python file of the product."""

    def __init__(self, path: Path, root: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.name = str(path.relative_to(root / "ddpmctl"))
        self.lines = len(text.splitlines())
        self.tree = ast.parse(text)
        self.is_cli = CLI.match(self.name) is not None
        self.command = Path(self.name).stem if re.match(r"(cli/)?commands/\w+\.py$", self.name) else None

    def functions(self) -> Iterator[Function]:
        """All of them, methods and nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def strings(self) -> Iterator[str]:
        """String literals that are not docstrings."""
        bodies = (node.body for node in ast.walk(self.tree) if hasattr(node, "body") and isinstance(node.body, list))
        bare = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
                yield node.value

    def imports(self) -> Iterator[str]:
        """Full names of what is imported."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = ["ddpmctl", *Path(self.name).parts[: -node.level]] if node.level else []
                yield from (".".join([*package, *filter(None, [node.module, alias.name])]) for alias in node.names)

    def registered(self) -> Iterator[str]:
        """Functions that it registers as commands: ``@app.command()`` above them, or ``app.command("x")(function)``."""
        for function in self.functions():
            called = (d.func if isinstance(d, ast.Call) else d for d in function.decorator_list)
            if any(isinstance(name, ast.Attribute) and name.attr in ("command", "callback") for name in called):
                yield function.name
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Call) and node.args:
                by, given = node.func.func, node.args[0]
                if isinstance(by, ast.Attribute) and by.attr == "command":
                    yield given.attr if isinstance(given, ast.Attribute) else ast.unparse(given)


def length(function: Function) -> int:
    """Lines from ``def`` to its end, docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """How many it takes, without ``self`` and ``cls``."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def greatest(values: list[tuple[int, str]]) -> str:
    value, name = max(values)
    return f"{value} ({name})"


def figures(root: Path) -> dict[str, str]:
    """All figures of a checkout, by the names of `LIMITS`."""
    modules = [Module(path, root) for path in sorted((root / "ddpmctl").rglob("*.py"))]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["ddpmctl.commands"]
    commands = {target.partition(":")[2] for target in scripts.values()}
    commands.update(name for module in modules for name in module.registered())
    lines = sum(module.lines for module in modules)
    functions = [(module, function) for module in modules for function in module.functions()]
    lengths = [(length(function), f"{module.name}: {function.name}") for module, function in functions]
    library = [module for module in modules if not module.is_cli]
    taken = [
        (parameters(function), f"{module.name}: {function.name}")
        for module, function in functions
        if not (module.is_cli and function.name in commands)
    ]
    modules_of_commands = {target.partition(":")[0] for target in scripts.values()}
    modules_of_commands |= {f"ddpmctl.cli.commands.{module.command}" for module in modules if module.command}
    values = [
        f"{lines:,}",
        f"{100 * sum(module.lines for module in modules if module.is_cli) / lines:.1f}",
        greatest([(module.lines, module.name) for module in modules]),
        f"{median(module.lines for module in modules):g}",
        greatest(lengths),
        f"{median(value for value, _ in lengths):g}",
        greatest(taken),
        str(sum(1 for module in modules for node in ast.walk(module.tree) if is_any(node))),
        f"{(root / 'README.md').stat().st_size:,}",
        str(count(library, Module.strings, OPTION)),
        str(count(library, Module.imports, TERMINAL)),
        str(sum(imported_commands(module, modules_of_commands) for module in modules)),
    ]
    return dict(zip(LIMITS, values, strict=True))


def is_any(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "Any"


def count(modules: list[Module], texts: Callable[[Module], Iterator[str]], pattern: re.Pattern[str]) -> int:
    return sum(1 for module in modules for text in texts(module) if pattern.search(text))


def imported_commands(module: Module, commands: set[str]) -> int:
    """How many other commands one imports; a group (``models``) imports its own (``models_rm``)."""
    found = {name for imported in module.imports() for name in commands if f"{imported}.".startswith(f"{name}.")}
    stems = {name.rpartition(".")[2] for name in found} - {module.command}
    return sum(not stem.startswith(f"{module.command}_") for stem in stems) if module.command else 0


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    table = Table("", "now", "limit", "at 154fc34", box=None)
    for name, value in figures(root).items():
        table.add_row(name, value, LIMITS[name], BEFORE.get(name, ""))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
