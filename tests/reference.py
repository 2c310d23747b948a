"""The command reference, generated from what the commands print with --help, and the README files that tests check.

    python -m tests.reference

writes the reference into `ddpmctl/cli/commands/README.md`; a test checks that it is up to date.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ddpmctl import plugins
from ddpmctl.cli import group

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
REFERENCE = ROOT / "ddpmctl" / "cli" / "commands" / "README.md"
READMES = [README, *sorted((ROOT / "ddpmctl").rglob("README.md")), *sorted((ROOT / "tests").glob("*/README.md"))]
BEGIN, END = "<!-- reference: python -m tests.reference -->", "<!-- end of reference -->"


def commands() -> Iterator[tuple[str, Any]]:
    """Every built-in command and its subcommands with the words that call it, in the order of --help."""
    usable = plugins.available(plugins.COMMANDS)
    for name in group.SUMMARIES:
        command = group.as_command(usable[name].load(), name)
        yield name, command
        for below, subcommand in sorted(getattr(command, "commands", {}).items()):
            yield f"{name} {below}", subcommand


def paragraphs(command: Any) -> list[str]:
    """The help text before the options."""
    text = inspect.cleandoc(command.help or "")
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def reference() -> str:
    """All commands, as Markdown that folds."""
    parts = []
    for typed, command in commands():
        summary, *more = paragraphs(command)
        lines = [f"<details><summary><code>ddpmctl {typed}</code>: {summary}</summary>", ""]
        lines += [f"{_marked(paragraph)}\n" for paragraph in more]
        context = typer.Context(command)
        rows = [_row(parameter, context) for parameter in command.get_params(context) if parameter.name != "help"]
        if rows:
            lines += ["| | |", "|---|---|", *rows, ""]
        parts.append("\n".join([*lines, "</details>"]))
    return "\n".join(parts)


def _marked(paragraph: str) -> str:
    """A paragraph with the command in it, if there is one, as code."""
    before, colon, after = paragraph.partition(": ddpmctl ")
    return f"{before}: `ddpmctl {after}`" if colon and ";" not in after else paragraph


def _row(parameter: Any, context: typer.Context) -> str:
    name, text = parameter.get_help_record(context)
    cells = (f"`{name.strip()}`", " ".join(text.split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def with_reference(readme: str) -> str:
    """A README with today's reference in its place."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("the README has no place for the reference")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


if __name__ == "__main__":
    REFERENCE.write_text(with_reference(REFERENCE.read_text(encoding="utf-8")), encoding="utf-8")
