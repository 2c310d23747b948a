"""Commands, datasets and samplers found through entry points: our own and other packages', in one way.

Nothing is imported until it is used, and what does not import fails alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from ddpmctl.errors import DdpmctlError, is_memory_error

COMMANDS = "ddpmctl.commands"
DATASETS = "ddpmctl.datasets"
SAMPLERS = "ddpmctl.samplers"


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


def shadowed(group: str) -> Iterator[Plugin]:
    """What is installed but not usable, since its name is taken."""
    usable = available(group)
    return (plugin for plugin in discover(group) if usable[plugin.name] is not plugin)
