"""Completion in bash, zsh and fish: the candidates, and that torch is not imported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

PROBE = """
import json, os, runpy, sys
sys.argv = ["ddpmctl"]
try:
    runpy.run_module("ddpmctl", run_name="__main__")
except SystemExit:
    pass
sys.stdout.flush()
sys.stderr.write(json.dumps(sorted({"torch", "cv2", "numpy", "jinja2"}.intersection(sys.modules))))
"""

SHELLS = ("bash", "zsh", "fish")


def completed(home: Path, shell: str, typed: str) -> tuple[set[str], list[str]]:
    """What is offered after this, and which slow packages were imported."""
    asked = {"_DDPMCTL_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env={**clean_environment(home), **asked}, cwd=home, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    words = done.stdout.replace('"', " ").replace("\\n", " ").replace(":", " ").replace("(", " ").split()
    return set(words), json.loads(done.stderr)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ddpmctl gr", {"grid"}),
        ("ddpmctl re", {"report"}),
        ("ddpmctl train --pre", {"--preset", "--precision"}),
        ("ddpmctl grid --model t", {"tiny"}),
        ("ddpmctl inspect t", {"tiny"}),
        ("ddpmctl report t", {"tiny"}),
        ("ddpmctl animate --training t", {"tiny"}),
        ("ddpmctl models ver", {"verify"}),
    ],
)
def test_commands_options_and_models_are_offered_without_torch(
    tiny_home: Path, shell: str, typed: str, offered: set[str]
) -> None:
    words, imported = completed(tiny_home, shell, typed)
    assert offered <= words
    assert imported == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_given_its_script(tiny_home: Path, shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ddpmctl", "--show-completion", shell], cwd=tiny_home, capture_output=True, text=True,
        env={**clean_environment(tiny_home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}, check=True,
    )  # fmt: skip
    assert f"_DDPMCTL_COMPLETE=complete_{shell}" in done.stdout
    if shutil.which(shell) and shell != "fish":
        checked = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_a_real_bash_completes(tiny_home: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not here")
    program = tmp_path / "ddpmctl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ddpmctl "$@"\n')
    program.chmod(0o755)
    script = f"""
    eval "$(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 ddpmctl --show-completion bash)"
    COMP_WORDS=(ddpmctl grid --model t) COMP_CWORD=3
    {"_ddpmctl_completion"} ddpmctl
    echo "${{COMPREPLY[@]}}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-c", script], env={**clean_environment(tiny_home), "PATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["tiny"], done.stderr
