"""Commands, datasets and samplers found through entry points: our own and other packages', in one way.

Nothing is imported until it is used, and what does not import fails alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .errors import DdpmctlError
from .failures import is_memory_error

COMMANDS = "ddpmctl.commands"
DATASETS = "ddpmctl.datasets"
SAMPLERS = "ddpmctl.samplers"

SUMMARIES = {
    "demo": "From nothing to digits in one go: data, training, pictures.",
    "train": "Train a model and keep it in the registry.",
    "generate": "Make images of the labels you name.",
    "grid": "Make the test sheet: every class, titled.",
    "animate": "Show a digit being carved out of noise.",
    "lessons": "Train three traps beside their fixes, and see what comes of it.",
    "report": "Write all about models into one page to look at.",
    "inspect": "Tell what a model is, or how a picture was made.",
    "evaluate": "Tell how good a model is, against the real images.",
    "models": "List the models in the registry.",
    "data": "List, fetch, check and show the images to learn from.",
    "plugins": "List what other packages add.",
    "info": "Tell what is installed and computed on here: for reports of faults.",
}
"""Help of the built-in commands, known without importing them; in the order of ``--help``."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """Something that a package adds under a name.

    Attributes:
        name: what the user types.
        entry: where the code is.
        distribution: the package that adds it.
        version: of that package.
        summary: one line, from the package's metadata.
    """

    name: str
    entry: metadata.EntryPoint
    distribution: str
    version: str
    summary: str

    @property
    def builtin(self) -> bool:
        """Whether it is one of our own."""
        return self.distribution == "ddpmctl"

    def load(self) -> Any:
        """Import it.

        Raises:
            DdpmctlError: naming the package, when it does not import for whatever reason.
        """
        try:
            return self.entry.load()
        except DdpmctlError:
            raise
        except Exception as error:
            # What is wrong with the machine or with our own installation is no fault of a plugin.
            if self.builtin or is_memory_error(error):
                raise
            raise DdpmctlError(
                f"'{self.name}' from the plugin {self.distribution} {self.version} does not load: "
                f"{type(error).__name__}: {error}",
                f"pip install --upgrade {self.distribution}, or pip uninstall {self.distribution}",
            ) from error


@cache
def discover(group: str) -> tuple[Plugin, ...]:
    """Everything installed in an entry-point group, our own first, each package's once."""
    found: dict[tuple[str, str], Plugin] = {}
    for distribution in metadata.distributions():
        for entry in distribution.entry_points.select(group=group):
            about = distribution.metadata
            plugin = Plugin(entry.name, entry, about["Name"], distribution.version, about["Summary"] or "")
            # A package that is on the path twice counts as Python imports it: the first one.
            found.setdefault((entry.name, plugin.distribution), plugin)
    return tuple(sorted(found.values(), key=lambda plugin: (not plugin.builtin, plugin.name)))


def available(group: str) -> dict[str, Plugin]:
    """What may be used, by name: nobody takes the name of a built-in, nor one that is taken."""
    usable: dict[str, Plugin] = {}
    for plugin in discover(group):
        usable.setdefault(plugin.name, plugin)
    return usable


class LazyCommand(TyperCommand):
    """Stands in the table of commands for one that is imported when it is called."""

    def __init__(self, plugin: Plugin) -> None:
        super().__init__(plugin.name, help=SUMMARIES[plugin.name] if plugin.builtin else plugin.summary)
        self.plugin = plugin

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Load the real command and let it parse; completion keeps silent about one that does not load."""
        try:
            command = as_command(self.plugin.load(), self.plugin.name)
        except DdpmctlError:
            if extra.get("resilient_parsing"):
                return super().make_context(info_name, [], parent=parent, **extra)
            raise
        return command.make_context(info_name, args, parent=parent, **extra)


def as_command(loaded: Any, name: str) -> Any:
    """Turn what an entry point names, a function or a Typer application, into a command."""
    app = loaded
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(loaded)
    return typer.main.get_command(app)


class PluginGroup(TyperGroup):
    """The root command: its table holds a stub for everything installed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        usable = available(COMMANDS)
        ordered = [*(name for name in SUMMARIES if name in usable), *(name for name in usable if name not in SUMMARIES)]
        for name in ordered:
            self.add_command(LazyCommand(usable[name]))


def shadowed(group: str) -> Iterator[Plugin]:
    """What is installed but not usable, since its name is taken."""
    usable = available(group)
    return (plugin for plugin in discover(group) if usable[plugin.name] is not plugin)
