"""The README files: the command reference and all links are correct, and every example in them and in the help runs."""

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.conftest import ROOT, Cli, clean_environment, run_cli
from tests.original import random_state, save
from tests.reference import README, READMES, REFERENCE, commands, paragraphs, with_reference

from .support import OFTEN, Running, copy_model

SMALL = "--dataset strokes:200 --max-steps 2 --batch-size 64 --device cpu"

IN_SMALL = {
    "ddpmctl train": f"--name new --force {SMALL}",
    "ddpmctl animate 3 --sampler ddpm --steps 1000": "--steps 20 --frames 20",
    "ddpmctl animate 3 --play": "--frames 5",
    "ddpmctl generate --all": "--sampler ddim --steps 2",
    "ddpmctl models rm": "--yes",
}
"""What is put behind an example that begins so, to have it done in seconds."""

ELSEWHERE = {
    "ddpmctl lessons": "cli/test_lessons.py::test_every_lesson_is_told_with_its_figures_and_pictures",
    "ddpmctl evaluate": "evaluation/test_evaluation.py::test_evaluate_reports_everything_as_json",
    "ddpmctl data fetch": "cli/test_data.py::test_what_is_there_is_not_fetched_again",
    "ddpmctl data show fashion-mnist": "cli/test_data.py::test_packed_files_in_a_plain_folder_are_read_and_left"
    "_as_they_are",
    "ddpmctl generate --interactive": "cli/test_interactive.py::test_labels_may_be_piped_in_and_paths_piped_out",
}
"""What takes minutes, a network or a keyboard even in small, and the test that does it."""


PYTHON_IN_SMALL = {'dataset="mnist", max_time=90': 'dataset="strokes:200", max_steps=2, batch_size=64'}

MAX_BYTES = 9 * 1024
"""Of the first README: what a newcomer reads; everything else is in the folder that it is about."""


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """Every block of code in this language, with its README."""
    for readme in READMES:
        for block in re.findall(rf"```{language}\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL):
            yield readme, block


def in_readmes() -> Iterator[str]:
    """Every command in a block of a README."""
    for _, block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("ddpmctl "):
                yield line.partition("  #")[0].strip()


def in_help() -> Iterator[str]:
    """Every command in the help."""
    for _, command in commands():
        for paragraph in paragraphs(command):
            yield from re.findall(r"(?:^|: |; )(ddpmctl [^;]+?)(?= makes it again|\.?$|;)", paragraph)


EXAMPLES = list(dict.fromkeys([*in_readmes(), *in_help()]))
PYTHON = list(blocks("python"))


def test_the_reference_is_what_the_commands_say() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert with_reference(text) == text, "python -m tests.reference"


def test_the_first_readme_is_short() -> None:
    assert README.stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("readme", READMES, ids=[str(path.relative_to(ROOT).parent) for path in READMES])
def test_every_link_and_picture_of_a_readme_is_there(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", readme.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (readme.parent / target.partition("#")[0]).exists(), target


def test_there_are_examples_of_every_command() -> None:
    names = {typed for typed, _ in commands()}
    shown = {" ".join(example.split()[1:3]) for example in EXAMPLES} | {example.split()[1] for example in EXAMPLES}
    assert names - shown == set()
    assert len(EXAMPLES) > 40


def test_what_is_run_elsewhere_is_run_there() -> None:
    for where in ELSEWHERE.values():
        file, _, name = where.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text()


@pytest.fixture(scope="module")
def furnished(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with models of the names that the examples have, a run that was cut short, a picture and a checkpoint."""
    home = tmp_path_factory.mktemp("furnished")
    for name in ("quick", "standard", "my-digits", "mnist-quick-1"):
        copy_model(tiny_home, home, name)
    train = shlex.split("train --preset quick --dataset strokes:300 --batch-size 64 --device cpu")
    whole = [*OFTEN, *train, "--epochs", "2", "--name", "demo"]
    subprocess.run(whole, env=clean_environment(home), cwd=home, check=True, capture_output=True)
    with Running(home, *train, "--epochs", 15, "--name", "cut") as running:
        running.wait_for("epoch 1/")
        running.send(signal.SIGINT)
        assert running.finish().returncode == 130
    assert run_cli(home, "export", "demo", "demo.zip").returncode == 0
    assert run_cli(home, "generate", 8, "-m", "demo", "--seed", 1, "-o", "eight.png").returncode == 0
    drawing = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(drawing).line([(60, 40), (140, 50), (80, 160)], 0, 12)
    drawing.save(home / "drawing.png")
    drawing.crop((0, 0, 100, 200)).resize((200, 200)).save(home / "mask.png")
    save(home / "best_mnist_ddpm.pt", random_state())
    return home


@pytest.mark.parametrize("example", [each for each in EXAMPLES if not each.startswith(tuple(ELSEWHERE))])
def test_an_example_works(here: Cli, furnished: Path, tmp_path: Path, example: str) -> None:
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    small = [more for begins, more in IN_SMALL.items() if example.startswith(begins) and "--resume" not in example]
    done = here(*shlex.split(example)[1:], *shlex.split(" ".join(small)))
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr
    for file in re.findall(r" -o (\S+)", example):
        assert (tmp_path / file).stat().st_size > 100


@pytest.mark.parametrize("code", [code for _, code in PYTHON], ids=[readme.parent.name for readme, _ in PYTHON])
def test_the_python_of_a_readme_works(
    furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for whole, small in PYTHON_IN_SMALL.items():
        code = code.replace(whole, small)
    # Evaluating takes minutes: tests/evaluation/test_api.py does it.
    lines = [line for line in code.splitlines() if "evaluat" not in line]
    exec(compile("\n".join(lines), "README.md", "exec"), {})
