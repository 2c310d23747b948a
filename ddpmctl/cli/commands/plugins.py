"""``ddpmctl plugins``."""

from dataclasses import dataclass

from rich.table import Table

from ddpmctl import plugins
from ddpmctl.cli.options import Json
from ddpmctl.cli.output import Output, escaped
from ddpmctl.errors import DdpmctlError

KINDS = {plugins.COMMANDS: "command", plugins.DATASETS: "dataset", plugins.SAMPLERS: "sampler"}


@dataclass(frozen=True, slots=True)
class Row:
    """What the list says of one plugin."""

    kind: str
    name: str
    package: str
    version: str
    problem: str | None


def list_plugins(as_json: Json = False) -> None:
    """List the plugins of other packages, and the errors of broken ones.

    Example: ddpmctl plugins
    """
    out = Output("plugins", as_json=as_json)
    rows = [_row(kind, plugin) for group, kind in KINDS.items() for plugin in _foreign(group)]
    table = Table("kind", "name", "package", "version", "state", box=None)
    for row in rows:
        table.add_row(row.kind, row.name, row.package, row.version, escaped(row.problem or "ok"))
    data = {"plugins": [{name: getattr(row, name) for name in Row.__slots__} for row in rows]}
    out.result(data, table if rows else "no plugins are installed; the built-in commands are in ddpmctl --help")


def _foreign(group: str) -> list[plugins.Plugin]:
    return [plugin for plugin in plugins.discover(group) if not plugin.builtin]


def _row(kind: str, plugin: plugins.Plugin) -> Row:
    problem = None
    if plugin in plugins.shadowed(plugin.entry.group):
        problem = f"ignored: the name '{plugin.name}' is taken"
    else:
        try:
            plugin.load()
        except DdpmctlError as error:
            problem = error.message
    return Row(kind, plugin.name, plugin.distribution, plugin.version, problem)
