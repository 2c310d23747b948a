"""``ddpmctl distill``: a student that knows its teacher, and what is said where there cannot be one."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Cli, run_cli

from .support import complaint, reported, tiny_checkpoint

FEW = ("--max-steps", 3, "--batch-size", 64, "--device", "cpu")


@pytest.fixture(scope="module")
def school(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a model and its student of four steps. Read only."""
    home = tmp_path_factory.mktemp("school")
    shutil.copytree(tiny_home / "models", home / "models")
    done = run_cli(home, "distill", "tiny", *FEW)
    assert (done.returncode, done.stdout) == (0, "tiny-4step-1\n"), done.stderr
    assert "\n3 steps, batch size 64" in done.stderr
    assert done.stderr.endswith("generate samples: ddpmctl grid --model tiny-4step-1\n")
    return home


@pytest.fixture
def at_school(school: Path, tmp_path: Path) -> Cli:
    return lambda *arguments, **options: run_cli(school, *arguments, **{"cwd": tmp_path, **options})


def test_a_student_is_a_model_like_any_other(at_school: Cli, school: Path, tmp_path: Path) -> None:
    teacher = tiny_checkpoint(school)
    shown = at_school("inspect", "tiny-4step-1").stdout
    digest = teacher.digest[:12]
    assert f"tiny, digest {digest}, 2 steps of the teacher in each of its 4, guidance 1.8 built in" in shown
    assert "6 steps of the Gaussian denoiser alone, to t/T = 0.75; no network evaluations" in shown
    assert "ddim, 4 steps, no guidance" in shown
    settings = reported(at_school("inspect", "tiny-4step-1", "--json"), "inspect")["config"]["distillation"]
    assert (settings["teacher"], settings["digest"], settings["steps"]) == ("tiny", teacher.digest, 4)
    made = at_school("generate", 3, "-m", "tiny-4step-1", "-o", "three.png")
    assert (made.returncode, (tmp_path / "three.png").exists()) == (0, True)
    assert at_school("animate", 3, "-m", "tiny-4step-1", "-o", "three.gif").returncode == 0
    exported = at_school("export", "tiny-4step-1", "student.zip")
    assert exported.returncode == 0, exported.stderr


def test_a_report_shows_teacher_and_student(at_school: Cli, tmp_path: Path) -> None:
    done = at_school("report", "tiny", "tiny-4step-1", "-o", "page.html")
    assert done.returncode == 0, done.stderr
    assert "2 steps of the teacher in each of its 4" in (tmp_path / "page.html").read_text()


def test_what_cannot_be_distilled_is_refused(at_school: Cli) -> None:
    assert complaint(at_school("distill", "tiny", "--steps", 3), 2) == (
        "steps must be one of 1, 2, 4, not 3",
        "--steps 4",
    )
    error, hint = complaint(at_school("distill", "tiny-4step-1", "--steps", 4), 2)
    assert error == "'tiny-4step-1' has 4 steps: 4 steps are not fewer by a whole factor"
    assert hint == "--steps 2"
    assert complaint(at_school("distill", "tni"), 1)[0].startswith("unknown model 'tni'")
    error, _ = complaint(at_school("distill", "tiny", "--name", "tiny-4step-1", *FEW), 2)
    assert error == "a model named 'tiny-4step-1' already exists"
    error, hint = complaint(at_school("generate", 3, "-m", "tiny-4step-1", "--guidance", 2), 2)
    assert error == "this model is distilled: the guidance of its teacher is built in"
    assert hint == "--guidance 1.0, or omit it"


def test_without_the_teacher_a_student_cannot_go_on_and_says_which_it_was(school: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(school / "models", home / "models")
    shutil.rmtree(home / "models" / "tiny")
    error, hint = complaint(run_cli(home, "train", "--resume", "tiny-4step-1", "--epochs", 1), 1)
    assert error.startswith("the teacher 'tiny' is not in the registry")
    assert hint == "restore it, or ddpmctl distill MODEL --steps 4"
    assert run_cli(home, "generate", 3, "-m", "tiny-4step-1", "-o", tmp_path / "three.png").returncode == 0
