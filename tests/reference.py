"""The README's command reference, from what the commands say of themselves with --help.

    python -m tests.reference

writes it; a test sees that it is up to date.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddpmctl import plugins
from ddpmctl.cli import group

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- reference: python -m tests.reference -->", "<!-- end of reference -->"


def commands() -> Iterator[tuple[str, Any]]:
    """Every built-in command and its subcommands, by what is typed for them, in the order of --help."""
    usable = plugins.available(plugins.COMMANDS)
    for name in group.SUMMARIES:
        command = group.as_command(usable[name].load(), name)
        yield name, command
        for below, subcommand in sorted(getattr(command, "commands", {}).items()):
            yield f"{name} {below}", subcommand


def paragraphs(command: Any) -> list[str]:
    """What its help says before the options."""
    text = inspect.cleandoc(command.help or "")
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def reference() -> str:
    """All of it, as Markdown that folds."""
    parts = []
    for typed, command in commands():
        summary, *more = paragraphs(command)
        lines = [f"<details><summary><code>ddpmctl {typed}</code>: {summary}</summary>", ""]
        lines += [f"{_marked(paragraph)}\n" for paragraph in more]
        rows = [row for parameter in command.params if (row := _row(parameter))]
        if rows:
            lines += ["| | | default |", "|---|---|---|", *rows, ""]
        parts.append("\n".join([*lines, "</details>"]))
    return "\n".join(parts)


def _marked(paragraph: str) -> str:
    """A paragraph with the command in it, if there is one, as code."""
    before, colon, after = paragraph.partition(": ddpmctl ")
    return f"{before}: `ddpmctl {after}`" if colon and ";" not in after else paragraph


def _row(parameter: Any) -> str | None:
    if parameter.name == "help" or getattr(parameter, "hidden", False):
        return None
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        shown, told = f"`{metavar or parameter.name.upper()}`", getattr(parameter, "help", "") or ""
    else:
        names = ", ".join(parameter.opts) + "".join(f"/{name}" for name in parameter.secondary_opts)
        # is_flag and the like are of Typer's own classes; what an option is called is not.
        kind = "" if _is_flag(parameter) else metavar or parameter.name.upper()
        shown, told = f"`{names} {kind}".rstrip() + "`", parameter.help or ""
        if parameter.envvar:
            told += f" Or `{parameter.envvar}`."
    default = parameter.default
    usual = "" if default is None or isinstance(default, bool) or callable(default) else f"`{default}`"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (shown, told, usual)) + " |"


def _is_flag(parameter: Any) -> bool:
    return bool(parameter.is_flag or parameter.secondary_opts or isinstance(parameter.default, bool))


def with_reference(readme: str) -> str:
    """The README with today's reference in its place."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("the README has no place for the reference")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_reference(README.read_text(encoding="utf-8")), encoding="utf-8")
