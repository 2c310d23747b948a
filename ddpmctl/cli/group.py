"""The root command: a group that knows every command and imports none of them until it is called."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ddpmctl.errors import DdpmctlError
from ddpmctl.plugins import COMMANDS, Plugin, available

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
