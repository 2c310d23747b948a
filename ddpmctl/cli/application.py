"""The root command, and checks that precede every command."""

from typing import Annotated

import typer

from ddpmctl import __version__
from ddpmctl.cli.group import PluginGroup
from ddpmctl.errors import ExitCode, UsageError
from ddpmctl.ranks import ranks

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage error, 129 hangup (SIGHUP), 130 Ctrl-C, 143 terminated. "
    "Models are stored in DDPMCTL_HOME or the user's data directory; DDPMCTL_OFFLINE=1 disables network access; "
    "DDPMCTL_DEBUG=1 shows tracebacks."
)

app = typer.Typer(
    cls=PluginGroup,
    help="Train a small denoising diffusion model from scratch and generate images.\n\nStart with: ddpmctl demo",
    epilog=EPILOG,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"ddpmctl {__version__}")
        raise typer.Exit


WITH_TORCHRUN = ("train", "generate")
"""Commands that run in several processes."""


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Refuse several processes for a command that runs in one."""
    command = context.invoked_subcommand
    if command is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(ExitCode.USAGE)
    if ranks().size > 1 and command not in WITH_TORCHRUN:
        raise UsageError(f"ddpmctl {command} runs in one process", f"without torchrun: ddpmctl {command}")
