"""The root command: a group that lists every command and imports one only when it is called."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ddpmctl.errors import DdpmctlError, UsageError
from ddpmctl.plugins import COMMANDS, Plugin, available

SUMMARIES = {
    "demo": "Train a small model, generate its first images and write a page to play with it.",
    "train": "Train a model and save it in the registry.",
    "distill": "Train a copy of a model that samples in a few steps.",
    "generate": "Generate images of the classes you name.",
    "edit": "Turn a drawing or a photograph of one into images of a class.",
    "grid": "Generate a grid with titled samples of every class.",
    "animate": "Animate the denoising of an image, or a model's training.",
    "lessons": "Reproduce three classic mistakes and compare them with their fixes.",
    "report": "Write an HTML page about one or more models.",
    "inspect": "Describe a model, or show how an image was generated.",
    "classify": "Classify pictures by how well a model denoises them as each class.",
    "evaluate": "Measure the quality of a model against real images.",
    "export": "Export a model to a file: a web page, ONNX, an archive or weights.",
    "models": "List and manage the models in the registry.",
    "data": "List, download, verify and show datasets.",
    "plugins": "List the plugins of other packages.",
    "info": "Show versions, hardware and paths, for bug reports.",
}
"""Help of the built-in commands, known without importing them; in the order of ``--help``."""

MOVED = {"models export": "ddpmctl export MODEL FILE.zip"}
"""Commands of earlier versions, and what replaces them."""

FEW_OPTIONS = 8
"""Up to this many options are listed without panels."""


class _Help:
    """Help without a type column for flags, with panels if there are many options, and ``--help`` at the end."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        options = [parameter for parameter in params if parameter.param_type_name == "option"]
        for option in options:
            if option.is_flag:
                option.metavar = ""  # Typer writes <bool>
                if option.default is None and not option.secondary_opts:
                    option.default = False  # to parse None, Typer imports pydantic, which takes a tenth of a second
            if len(options) <= FEW_OPTIONS:
                option.rich_help_panel = None
            elif option.name == "help" and len(options) > 1:
                option.rich_help_panel = options[-2].rich_help_panel
        return params


class Command(_Help, TyperCommand):
    """A command whose options are shown as in all others."""


class Group(_Help, TyperGroup):
    """A group of commands whose options are shown as in all others."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was typed.

        Raises:
            UsageError: for an unknown one, with the one that was probably meant.
        """
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            from ddpmctl.config import choose

            typed = f"{ctx.info_name} {args[0]}"
            if typed in MOVED:
                raise UsageError(f"ddpmctl {typed} is another command now", MOVED[typed])

            choose("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


class LazyCommand(TyperCommand):
    """Placeholder for a command that is imported when it is called."""

    def __init__(self, plugin: Plugin) -> None:
        super().__init__(plugin.name, help=SUMMARIES[plugin.name] if plugin.builtin else plugin.summary)
        self.plugin = plugin

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Load the real command and let it parse; completion ignores commands that fail to load."""
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
    elif not isinstance(app.info.cls, type):  # not set, which Typer marks by an object of its own
        app.info.cls = Group
    for command in app.registered_commands:
        if command.cls in (None, TyperCommand):
            command.cls = Command
    return typer.main.get_command(app)


class PluginGroup(Group):
    """The root command: registers a placeholder for every installed command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        usable = available(COMMANDS)
        ordered = [*(name for name in SUMMARIES if name in usable), *(name for name in usable if name not in SUMMARIES)]
        for name in ordered:
            self.add_command(LazyCommand(usable[name]))
