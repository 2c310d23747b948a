"""Typed paths: home directories, new or removed folders, names that are too long."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from ddpmctl.cli.options import Plot, ShowNearest, TestSheet
from ddpmctl.paths import typed_file
from tests.conftest import Cli, clean_environment

from .support import complaint, copy_model, tree


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home directory."""
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def test_a_tilde_is_the_home_directory_in_every_option(tiny_here: Cli, at_home: Path) -> None:
    one = ("--steps", 1, "-q")
    assert tiny_here("generate", "8", *one, "-o", "~/eight.png").stdout == f"{at_home}/eight.png\n"
    assert tiny_here("generate", "--like", "~/eight.png", "-o", "~/like.png", "-q").returncode == 0
    assert (at_home / "like.png").read_bytes() == (at_home / "eight.png").read_bytes()
    assert tiny_here("grid", *one, "-o", "~/grid.png").returncode == 0
    assert tiny_here("animate", "3", "--frames", 2, "-q", "-o", "~/three.gif").returncode == 0
    assert tiny_here("inspect", "~/eight.png").returncode == 0
    assert tiny_here("inspect", "--at", 500, "--label", 8, "-o", "~/at.png", "--data-dir", "~").returncode == 0
    assert tiny_here("report", "-q", "-o", "~/report.html").returncode == 0
    assert tiny_here("data", "show", "strokes", "-o", "~/strokes.png", "-q").returncode == 0
    assert tiny_here("generate", "--all", "-n", 10, "--steps", 1, "-o", "~/shards", "-q").returncode == 0
    assert tiny_here("data", "verify", "~/shards").returncode == 0
    assert tiny_here("export", "tiny", "~/tiny.zip").returncode == 0
    assert {"grid.png", "three.gif", "at.png", "report.html", "strokes.png", "tiny.zip"} <= set(tree(at_home))


def test_a_tilde_is_the_home_directory_of_models_and_data(here: Cli, tiny_home: Path, at_home: Path) -> None:
    copy_model(tiny_home, at_home, "mine")
    os.environ["DDPMCTL_HOME"] = "~"
    assert here("models", "-q").stdout == "mine\n"
    assert here("generate", "8", "--steps", 1, "-m", "~/models/mine", "-o", "~/x.png").returncode == 0
    assert here("export", "mine", "~/mine.zip").returncode == 0
    assert here("models", "import", "~/mine.zip", "--name", "again").returncode == 0
    for typed in (("--data-dir", "~/nowhere"), ()):
        os.environ["DDPMCTL_DATA_DIR"] = "" if typed else "~/nowhere"
        error, _ = complaint(here("data", "verify", "mnist", *typed), 1)
        assert str(at_home / "nowhere") in error


@pytest.mark.parametrize(
    "typed",
    [
        "generate 8 -o ~nosuchuser/x.png",
        "generate --like ~nosuchuser/x.png",
        "generate 8 -m ~nosuchuser/models/x",
        "inspect ~nosuchuser/x.png",
        "train --dataset folder:~nosuchuser/x",
        "data verify mnist --data-dir ~nosuchuser",
        "data verify ~nosuchuser/shards",
        "models import ~nosuchuser/x.zip",
    ],
)
def test_the_home_directory_of_nobody(tiny_here: Cli, tmp_path: Path, typed: str) -> None:
    error, hint = complaint(tiny_here(*typed.split()), 2)
    assert error.endswith("unknown home directory ~nosuchuser")
    assert hint == "use an absolute path"
    assert list(tmp_path.iterdir()) == []


def test_ddpmctl_home_under_the_home_of_nobody(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPMCTL_HOME", "~nosuchuser/models")
    error, hint = complaint(here("models"), 1)
    assert error == "DDPMCTL_HOME: '~nosuchuser/models': unknown home directory ~nosuchuser"
    assert hint == "set DDPMCTL_HOME to a folder"
    assert here("info").returncode == 0


def test_a_user_without_a_home_directory(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DDPMCTL_HOME", "HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # As Python does for a user that the system does not know.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert complaint(here("models"), 1) == (
        "the home directory of this user is unknown",
        "set DDPMCTL_HOME to a folder for models",
    )
    said = here("info")
    assert (said.returncode, said.stderr) == (0, "")
    assert "set DDPMCTL_HOME to a folder for models" in " ".join(said.stdout.split())
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "models"))
    assert here("models").returncode == 0
    error, hint = complaint(here("data", "verify", "mnist"), 1)
    assert (error, hint) == ("the home directory of this user is unknown", "set HOME, or XDG_CACHE_HOME to a folder")


def test_xdg_directories_may_begin_with_a_tilde(here: Cli, at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDPMCTL_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "~/data")
    assert str(at_home / "data" / "ddpmctl") in here("info", "--json").stdout


MANY = [
    ("generate 3 8 -n 5 --steps 1 -o newdir/", 10),
    ("generate 3 --steps 1 -o newdir/", 1),
    ("generate 3 8 --steps 1 -o a/b/newdir/", 2),
    ("generate --all -n 10 --shard-size 5 --steps 1 -o newdir", 3),
    ("generate --all -n 10 --shard-size 5 --steps 1 -o a/b/newdir/", 3),
]


@pytest.mark.parametrize(("typed", "count"), MANY, ids=[typed for typed, _ in MANY])
def test_a_new_folder_is_made_where_many_files_go(tiny_here: Cli, tmp_path: Path, typed: str, count: int) -> None:
    done = tiny_here(*typed.split(), "-q")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / typed.rpartition(" ")[2]
    assert len([path for path in folder.iterdir() if path.suffix != ".lock"]) == count
    if "--all" not in typed:
        assert {line.rpartition("/")[0] for line in done.stdout.splitlines()} == {typed.rpartition(" ")[2].rstrip("/")}


@pytest.mark.parametrize("typed", ["generate 12 -o newdir/", "generate 8 --steps 0 -o newdir/"])
def test_no_folder_is_made_for_what_is_refused(tiny_here: Cli, tmp_path: Path, typed: str) -> None:
    complaint(tiny_here(*typed.split()), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_under_a_file_is_refused(tiny_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for typed in ("generate 8 -o file/", "generate 8 -o file/x/", "generate --all -n 10 -o file", "lessons -o file"):
        assert complaint(tiny_here(*typed.split()), 1)[0] == "file is not a folder"


@pytest.mark.parametrize(
    "typed",
    ["grid -o x/", "classify 8.png -o x/", "animate 3 -o x/", "report -o x/", "inspect --at 5 -o x/",
     "data show strokes -o x/", "export tiny x/"],
)  # fmt: skip
def test_a_folder_where_a_file_is_meant(tiny_here: Cli, tmp_path: Path, typed: str) -> None:
    assert complaint(tiny_here(*typed.split()), 2) == (
        "'x/' is a folder; expected a file",
        "append a file name",
    )
    assert list(tmp_path.iterdir()) == []
    for option in (ShowNearest, Plot, TestSheet):
        assert get_args(option)[1].parser is typed_file  # evaluate takes too long to run here


def test_an_existing_folder_where_a_file_is_meant(tiny_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert complaint(tiny_here("grid", "-o", "x"), 1) == ("x is a folder", "pass a file as --output")


LONGEST = "x" * 251


@pytest.mark.parametrize("typed", ["generate 8 --steps 1 -o {}.png", "grid --steps 1 -o {}.png",
                                   "export tiny {}.zip"])  # fmt: skip
def test_the_longest_name_that_a_file_can_have(tiny_here: Cli, tmp_path: Path, typed: str) -> None:
    done = tiny_here(*typed.format(LONGEST).split())
    assert done.returncode == 0, done.stderr
    assert [path.stem for path in tmp_path.iterdir() if path.is_file()] == [LONGEST]


@pytest.mark.parametrize(
    "typed",
    ["generate 8 -o {}.png", "generate 8 3 -o {}.png", "generate 8 -o {}xxxxx/", "generate --all -n 10 -o {}xxxxx",
     "grid -o {}x.png", "animate 3 -o {}x.gif", "report -o {}.html", "export tiny {}x.zip", "lessons -o {}xxxxx",
     "generate 8 -o {}xxxxx/x.png", "data show strokes -o {}x.png", "generate --like {}x.png"],
)  # fmt: skip
def test_a_name_that_is_too_long_is_refused_before_the_work(
    tiny_here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    from ddpmctl.sampling import engine

    def never(*_: object, **__: object) -> None:
        raise AssertionError("sampled for nothing")

    monkeypatch.setattr(engine, "sample_trajectory", never)
    # Of several images, the number makes the name too long; of the others, the name is.
    name = LONGEST if " 8 3 " in typed else "\u5b57" * 85
    error, hint = complaint(tiny_here(*typed.format(name).split()), 2)
    assert error.startswith("the name '")
    assert error.endswith("the limit is 255")
    assert hint == "choose a shorter name"
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_a_name_that_is_too_long_does_not_exist(tiny_here: Cli) -> None:
    assert complaint(tiny_here("generate", "8", "-m", "x" * 300), 1)[0] == f"unknown model '{'x' * 300}'"


@pytest.mark.parametrize("typed", [("-o", "x\0.png"), ("--like", "x\0.png")])
def test_a_path_with_a_nul_character(tiny_here: Cli, typed: tuple[str, ...]) -> None:
    assert complaint(tiny_here("generate", "8", *typed), 2)[0] == "a path cannot contain a NUL character"


@pytest.mark.skipif(sys.platform == "win32", reason="a current directory cannot be removed there")
@pytest.mark.parametrize(
    "typed", ["generate 8 --steps 1", "grid", "generate 8 -o x/", "generate --all -n 10 -o x", "lessons range"]
)
def test_a_current_directory_that_was_removed(tiny_home: Path, tmp_path: Path, typed: str) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    done = subprocess.run(
        ["bash", "-c", f'rmdir "$PWD"; "{sys.executable}" -m ddpmctl {typed}'],
        cwd=folder,
        env=clean_environment(tiny_home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert complaint(done, 1) == ("the current directory does not exist any more", "change to a folder that exists")
