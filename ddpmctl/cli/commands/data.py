"""``ddpmctl data``: list the datasets; each subcommand has its own file."""

from dataclasses import asdict

import typer
from rich.table import Table

from ddpmctl.cli.commands.data_fetch import fetch
from ddpmctl.cli.commands.data_show import show_sheet
from ddpmctl.cli.commands.data_verify import verify
from ddpmctl.cli.options import DataDir, Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.data.catalogue import list_datasets

app = typer.Typer(
    help="List, download, verify and show datasets.\n\nExample: ddpmctl data",
    invoke_without_command=True,
    add_completion=False,
)


@app.callback()
def data(context: typer.Context, data_dir: DataDir = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the datasets.

    Example: ddpmctl data
    """
    if context.invoked_subcommand is None:
        ls(data_dir, as_json, quiet)


@app.command("ls")
def ls(data_dir: DataDir = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the datasets, with their folders and whether they are complete.

    Example: ddpmctl data ls --json
    """
    out = Output("data", as_json=as_json, quiet=quiet)
    rows = [asdict(status) for status in list_datasets(data_dir)]
    table = Table("name", "location", "status", box=None)
    for row in rows:
        table.add_row(*row.values())
    out.result({"datasets": rows}, table, bare=[row["name"] for row in rows])


for _name, _command in (("fetch", fetch), ("verify", verify), ("show", show_sheet)):
    app.command(_name)(_command)
