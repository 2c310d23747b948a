"""Behaviour common to all commands: help, JSON, quiet mode, stdout and stderr."""

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ddpmctl.cli.group import SUMMARIES
from ddpmctl.cli.output import Output
from tests.conftest import Cli, clean_environment

from .support import Terminal, tree

EXAMPLES = {
    "demo": "ddpmctl demo",
    "train": "ddpmctl train --preset quick",
    "distill": "ddpmctl distill quick --steps 4",
    "generate": "ddpmctl generate 8 --upscale 4 -o eight.png",
    "edit": "ddpmctl edit drawing.png --label 8 --strength 0.6 -o eight.png",
    "grid": "ddpmctl grid -o sheet.png --rows 3",
    "animate": "ddpmctl animate 3 -o three.gif",
    "lessons": "ddpmctl lessons range --budget 30s",
    "inspect": "ddpmctl inspect --schedule",
    "classify": "ddpmctl classify drawing.png",
    "evaluate": "ddpmctl evaluate -n 1000",
    "models": "ddpmctl models",
    "models ls": "ddpmctl models ls --json",
    "models use": "ddpmctl models use mnist-quick-1",
    "models mv": "ddpmctl models mv mnist-quick-1 digits",
    "data": "ddpmctl data",
    "data ls": "ddpmctl data ls --json",
    "data fetch": "ddpmctl data fetch mnist",
    "data verify": "ddpmctl data verify strokes",
    "data show": "ddpmctl data show strokes -o strokes.png",
    "plugins": "ddpmctl plugins",
    "info": "ddpmctl info",
    "report": "ddpmctl report -o report.html",
    "export": "ddpmctl export demo demo.html",
}

LONG = (
    "export", "distill", "edit", "demo", "train", "lessons", "classify", "evaluate",
    "models use", "models mv", "data fetch",
)  # fmt: skip
"""What takes minutes, a network, a picture or a model of that name; its own tests run it in small."""


def paragraphs(page: str) -> list[str]:
    """What a help page says before its options."""
    head, *_ = page.split("╭")
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", head) if part.strip()]


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_says_what_a_command_does_then_gives_an_example(cli: Cli, tmp_path: Path, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    usage, what, example, *_ = paragraphs(done.stdout)
    assert usage.startswith(f"Usage: ddpmctl {command} [OPTIONS]")
    assert re.fullmatch(r"[A-Z].+\.", what)
    assert example == f"Example: {EXAMPLES[command]}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [name for name in EXAMPLES if name not in LONG])
def test_the_example_of_the_help_works(tiny_here: Cli, command: str) -> None:
    done = tiny_here(*shlex.split(EXAMPLES[command])[1:])
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_root_s_help_lists_every_command_with_its_summary(cli: Cli) -> None:
    done = cli("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert paragraphs(done.stdout)[:3] == [
        "Usage: ddpmctl [OPTIONS] COMMAND [ARGS]...",
        "Train a small denoising diffusion model from scratch and generate images.",
        "Start with: ddpmctl demo",
    ]
    assert set(SUMMARIES) <= set(EXAMPLES)
    commands = done.stdout.partition("─ Commands ─")[2].partition("╰")[0]
    assert re.findall(r"^│ (\S+) +(\S.*?) *│$", commands, re.MULTILINE) == list(SUMMARIES.items())
    codes = "Exit codes: 0 done, 1 failed, 2 usage error, 129 hangup (SIGHUP), 130 Ctrl-C, 143 terminated."
    assert codes in " ".join(done.stdout.split())
    assert cli("-h").stdout == done.stdout
    # What is typed without a command is answered with the same page.
    assert cli().stdout.rstrip() == done.stdout.rstrip()


REPORTING = [
    "generate 8 --steps 1",
    "grid --steps 1",
    "animate 3 --frames 2",
    "inspect --layers --history --schedule",
    "models",
    "models ls",
    "plugins",
    "info",
    "report",
]


@pytest.mark.parametrize("typed", REPORTING)
def test_json_is_one_envelope_alone_on_stdout(tiny_here: Cli, typed: str) -> None:
    done = tiny_here(*typed.split(), "--json")
    assert done.returncode == 0, done.stderr
    envelope = json.loads(done.stdout)
    assert list(envelope) == ["version", "command", "result"]
    assert (envelope["version"], envelope["command"]) == (1, typed.partition(" ")[0])
    assert isinstance(envelope["result"], dict)


@pytest.mark.parametrize(
    ("typed", "bare"),
    [
        ("generate 8 3 --steps 1", "images-1.png\nimages-2.png\n"),
        ("grid --steps 1", "test_results.png\n"),
        ("animate 3 --frames 2", "three.gif\n"),
        ("models", "tiny\n"),
    ],
)
def test_quiet_prints_bare_names_and_nothing_else(tiny_here: Cli, typed: str, bare: str) -> None:
    done = tiny_here(*typed.split(), "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, bare, "")


@pytest.mark.parametrize("typed", ["generate 8 --sampler ddim --steps 60", "grid", "animate 3 --frames 20"])
def test_off_a_terminal_nothing_is_drawn_or_coloured(tiny_here: Cli, typed: str) -> None:
    done = tiny_here(*typed.split(), "--seed", 0)
    assert done.stderr == "model tiny (the newest)\n"
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", [":smile:.png", "[bold]x.png", "a  b.png", "ä-ß-8.png", "x" * 150 + ".png"])
def test_paths_are_printed_as_they_are(tiny_here: Cli, tmp_path: Path, name: str) -> None:
    """Neither taken for markup or emoji, nor broken into lines."""
    assert tiny_here("generate", "8", "--steps", 1, "-o", name).stdout == f"{name}\n"
    assert list(tree(tmp_path)) == [name]
    assert tiny_here("grid", "--steps", 1, "-o", name).stdout == f"{name}\n"


@pytest.mark.parametrize("label", [":smile:", "[red]x", "[/]", "8" * 200])
def test_what_was_typed_is_repeated_as_it_is(tiny_here: Cli, label: str) -> None:
    done = tiny_here("generate", label)
    assert done.returncode == 2
    assert f"\nerror: unknown label '{label}'\n\nhint: " in done.stderr


def test_a_terminal_gets_colours_and_no_color_takes_them_away(tmp_path: Path) -> None:
    screens = {}
    for no_color in ("", "1"):
        with Terminal(tmp_path, "inspect", NO_COLOR=no_color) as terminal:
            assert terminal.finish() == 1
            screens[no_color] = terminal.screen
            assert "error: no models yet" in terminal.text
    assert "\x1b[1;31m" in screens[""]
    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", screens["1"])


@pytest.mark.parametrize("typed", ["models", "inspect --layers --json", "generate 8 --steps 1 -o -"])
def test_a_reader_that_has_gone_away_is_no_disaster(tiny_home: Path, tmp_path: Path, typed: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ddpmctl", *typed.split()],
        cwd=tmp_path,
        env=clean_environment(tiny_home),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode != 0
    for words in ("Traceback", "unexpected error", "Exception ignored"):
        assert words not in done.stderr


def test_json_never_holds_nan(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"level": [{"mse": float("nan"), "best": (1.5, float("inf"))}], "name": "nan"}
    Output("inspect", as_json=True).result(found)
    printed = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert printed["result"] == {"level": [{"mse": None, "best": [1.5, None]}], "name": "nan"}


@pytest.mark.parametrize(("quiet", "notes"), [(False, "fewer images at once\n"), (True, "")])
def test_log_records_of_the_library_are_notes_and_warnings(
    capsys: pytest.CaptureFixture[str], quiet: bool, notes: str
) -> None:
    Output("train")
    Output("generate", quiet=quiet)
    log = logging.getLogger("ddpmctl")
    log.debug("not shown")
    log.info("%s images at once", "fewer")
    logging.getLogger("ddpmctl.sampling").warning("damaged: \x1b[2J")
    assert capsys.readouterr() == ("", f"{notes}warning: damaged: \\x1b[2J\n")


@pytest.mark.parametrize(
    ("configure", "printed"), [("", ""), ("logging.basicConfig(level=logging.INFO);", "INFO:ddpmctl:a\n")]
)
def test_the_library_prints_log_records_only_where_logging_is_configured(configure: str, printed: str) -> None:
    code = f"import ddpmctl, logging; {configure} log = logging.getLogger('ddpmctl'); log.info('a'); log.warning('b')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", printed and f"{printed}WARNING:ddpmctl:b\n")
