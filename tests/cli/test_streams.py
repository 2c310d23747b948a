"""Standard streams that are closed, full or gone, and terminals of no size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli, Result, clean_environment

from .support import Terminal, complaint, copy_model, pixels, tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="a POSIX shell and /dev/full"),
]


@pytest.fixture
def shell(tiny_home: Path, tmp_path: Path) -> Cli:
    """A line for ``sh``, in which ``ddpmctl`` is this one, in an empty folder with the tiny model."""

    def run(line: str, **environment: str) -> Result:
        return subprocess.run(
            ["bash", "-c", f'ddpmctl() {{ "{sys.executable}" -m ddpmctl "$@"; }}; {line}'],
            cwd=tmp_path,
            env={**clean_environment(tiny_home), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_the_work_is_done_though_streams_are_closed(shell: Cli, tmp_path: Path, closed: str) -> None:
    done = shell(f"ddpmctl generate 8 --steps 1 -o x.png {closed}")
    assert done.returncode == 0, done.stderr
    assert pixels(tmp_path / "x.png").shape == (32, 32)
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "x.png\n")


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-"])
def test_nobody_can_be_asked_where_stdin_is_closed(shell: Cli, closed: str) -> None:
    assert complaint(shell(f"ddpmctl models rm tiny {closed}"), 2) == (
        "cannot ask for confirmation without a terminal: remove tiny?",
        "--yes",
    )


def test_what_is_typed_wrong_exits_2_though_stderr_is_closed(shell: Cli) -> None:
    for typed in ("generate 12", "generate --no-such-option", "models rm tiny <&-"):
        done = shell(f"ddpmctl {typed} 2>&-")
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_an_image_for_stdout_is_refused_where_it_is_closed(shell: Cli) -> None:
    assert complaint(shell("ddpmctl generate 8 -o - >&-"), 2) == ("stdout is closed", "write to a file with -o")


@pytest.mark.parametrize("typed", ["models", "models --json", "generate 8 --steps 1 -q", "generate 8 --steps 1 -o -"])
def test_a_full_disk_behind_stdout_is_reported(shell: Cli, typed: str) -> None:
    error, hint = complaint(shell(f"ddpmctl {typed} >/dev/full"), 1)
    assert error == "stdout cannot be written: No space left on device"
    assert hint == "redirect it to another file"


def test_help_into_a_full_disk_fails_without_a_traceback(shell: Cli) -> None:
    done = shell("ddpmctl --help >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


def test_notes_that_cannot_be_written_do_not_end_the_work(shell: Cli, tmp_path: Path) -> None:
    done = shell("ddpmctl generate 8 --steps 1 -o x.png 2>/dev/full")
    assert (done.returncode, done.stdout) == (0, "x.png\n")
    assert shell("ddpmctl generate 12 2>/dev/full").returncode == 2


def test_a_training_outlives_the_reader_of_its_notes(shell: Cli) -> None:
    """As with ``ddpmctl train 2>&1 | head -1``, and with a terminal that was closed."""
    train = "ddpmctl train --preset quick --dataset strokes:20 --max-steps 3 --name piped"
    done = shell(f"export DDPMCTL_HOME=home; {{ {train} 2>&1 >&3; echo $? >code; }} 3>out | head -0; cat code out")
    assert done.stdout == "0\npiped\n"


@pytest.mark.parametrize("typed", ["models", "--help", "models --json"])
def test_a_reader_that_stops_early_gets_no_message(shell: Cli, typed: str) -> None:
    done = shell(f"ddpmctl {typed} | head -0; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("columns", ["0", "-1", "abc", "\u00b2", "1", "99999999999999999999"])
def test_a_terminal_of_no_size_hides_nothing(tiny: Cli, columns: str) -> None:
    sizes = {"COLUMNS": columns, "LINES": columns, "TERMINAL_WIDTH": columns}
    listed = tiny("models", **sizes)
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^ tiny +strokes:300 +quick +2 ", listed.stdout, re.MULTILINE)
    refused = tiny("generate", "12", **sizes)
    assert refused.returncode == 2
    assert "error: unknown label '12'\n\nhint: " in refused.stderr
    assert "unknown command 'generat'" in tiny("generat", **sizes).stderr
    assert "Train a model and save it in the registry." in tiny("--help", **sizes).stdout


def test_off_a_terminal_tables_are_neither_cut_nor_wrapped(shell: Cli, tiny_home: Path, tmp_path: Path) -> None:
    """Though stdin is a terminal of eighty columns, as for ``ddpmctl models | cat`` at a prompt."""
    name = "a" + "-very-long-name" * 4
    copy_model(tiny_home, tmp_path, name)
    line = f'unset COLUMNS; "{sys.executable}" -m ddpmctl models >out'
    with Terminal(tmp_path, "-c", line, program=("bash",), columns=80) as terminal:
        assert terminal.finish() == 0
    head, row = (tmp_path / "out").read_text().splitlines()
    assert head.split() == ["name", "dataset", "preset", "epochs", "best", "MSE", "parameters", "size", "age"]
    assert row.split()[:4] == [name, "strokes:300", "quick", "2"]
    assert "MB" in row
    assert not row.endswith(" " * 100)


def test_on_a_terminal_tables_adapt(tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "a-name-that-leaves-little-room-for-the-rest")
    with Terminal(tmp_path, "models", columns=70) as terminal:
        assert terminal.finish() == 0
        assert max(map(len, terminal.text.splitlines())) <= 70
    assert "models" in "".join(tree(tmp_path))
