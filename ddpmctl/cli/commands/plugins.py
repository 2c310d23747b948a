"""``ddpmctl plugins``."""

from dataclasses import asdict

from rich.table import Table

from ddpmctl.cli.options import Json
from ddpmctl.cli.output import Output, escaped
from ddpmctl.plugins import check_plugins


def list_plugins(as_json: Json = False) -> None:
    """List the plugins of other packages, and the errors of broken ones.

    Example: ddpmctl plugins
    """
    out = Output("plugins", as_json=as_json)
    found = check_plugins()
    table = Table("kind", "name", "package", "version", "status", box=None)
    for plugin in found:
        table.add_row(plugin.kind, plugin.name, plugin.package, plugin.version, escaped(plugin.problem or "ok"))
    empty = "no plugins are installed; the built-in commands are in ddpmctl --help"
    out.result({"plugins": [asdict(plugin) for plugin in found]}, table if found else empty)
