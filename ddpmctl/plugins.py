"""Commands, datasets and samplers found through entry points, of this package and of plugins alike.

Nothing is imported until it is used, and a plugin that cannot be imported does not affect the others.
"""

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from ddpmctl.errors import DdpmctlError, is_memory_error

COMMANDS = "ddpmctl.commands"
DATASETS = "ddpmctl.datasets"
SAMPLERS = "ddpmctl.samplers"


KINDS = {COMMANDS: "command", DATASETS: "dataset", SAMPLERS: "sampler"}


@dataclass(frozen=True, slots=True)
class Plugin:
    """A command, dataset or sampler that a package adds under a name; the summary is the package's."""

    name: str
    entry: metadata.EntryPoint
    distribution: str
    version: str
    summary: str

    @property
    def builtin(self) -> bool:
        """Whether it is part of ddpmctl itself."""
        return self.distribution == "ddpmctl"

    def load(self) -> Any:
        """Import it; raises DdpmctlError naming the package if that fails."""
        try:
            return self.entry.load()
        except DdpmctlError:
            raise
        except Exception as error:
            # A problem of the machine or of our own installation is not the plugin's fault.
            if self.builtin or is_memory_error(error):
                raise
            raise DdpmctlError(
                f"'{self.name}' from the plugin {self.distribution} {self.version} cannot be imported: "
                f"{type(error).__name__}: {error}",
                f"pip install --upgrade {self.distribution}, or pip uninstall {self.distribution}",
            ) from error


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """A plugin of another package, and why it cannot be used; None if it can."""

    kind: str
    name: str
    package: str
    version: str
    problem: str | None


@cache
def discover(group: str) -> tuple[Plugin, ...]:
    """Everything installed in an entry-point group, once per package, the built-in ones first."""
    found: dict[tuple[str, str], Plugin] = {}
    for distribution in metadata.distributions():
        for entry in distribution.entry_points.select(group=group):
            about = distribution.metadata
            plugin = Plugin(entry.name, entry, about["Name"], distribution.version, about["Summary"] or "")
            # A package that is on the path twice counts as Python imports it: the first one.
            found.setdefault((entry.name, plugin.distribution), plugin)
    return tuple(sorted(found.values(), key=lambda plugin: (not plugin.builtin, plugin.name)))


def available(group: str) -> dict[str, Plugin]:
    """What can be used, by name: a plugin cannot take the name of a built-in one or of another plugin."""
    usable: dict[str, Plugin] = {}
    for plugin in discover(group):
        usable.setdefault(plugin.name, plugin)
    return usable


def check_plugins() -> list[PluginStatus]:
    """Import every plugin of other packages."""
    found = []
    for group, kind in KINDS.items():
        usable = available(group)
        for plugin in discover(group):
            if not plugin.builtin:
                problem = _problem(plugin, is_usable=usable[plugin.name] is plugin)
                found.append(PluginStatus(kind, plugin.name, plugin.distribution, plugin.version, problem))
    return found


def _problem(plugin: Plugin, *, is_usable: bool) -> str | None:
    if not is_usable:
        return f"ignored: the name '{plugin.name}' is already in use"
    try:
        plugin.load()
    except DdpmctlError as error:
        return error.message
    return None
