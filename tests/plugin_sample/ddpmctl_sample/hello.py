"""Commands: functions whose parameters Typer understands."""

from typing import Annotated

import typer


def hello(
    name: Annotated[str, typer.Argument(help="Whom to greet.")] = "world",
    loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False,
) -> None:
    """Greet somebody.

    Example: ddpmctl hello you --loud
    """
    greeting = f"hello {name}"
    typer.echo(greeting.upper() if loud else greeting)


def train() -> None:
    """Would take the place of a built-in command, if it could."""
    typer.echo("not the real train")
