"""``ddpmctl models``: one row per model."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.filesize import decimal

from tests.builders import point
from tests.conftest import Cli

from .support import alter_manifest, copy_model, reported, tell_of_another_run, tiny_checkpoint, tree

COLUMNS = ["name", "dataset", "preset", "epochs", "best MSE", "parameters", "size", "age"]


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table: columns are two spaces apart or more."""
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


@pytest.fixture
def three_models(tiny_home: Path, tmp_path: Path) -> dict[str, Path]:
    """Three models of three ages in the registry of ``cli``, with their commits."""
    commits = {name: copy_model(tiny_home, tmp_path, name) for name in ("a", "b", "c")}
    for name, created in (("a", ago(hours=5)), ("b", ago(days=3)), ("c", ago(minutes=12))):
        alter_manifest(commits[name], created=created)
    return commits


@pytest.mark.parametrize("command", [["models"], ["models", "ls"]])
@pytest.mark.usefixtures("three_models")
def test_each_model_has_a_row_the_newest_first(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    done = cli(*command, COLUMNS="120")
    assert (done.returncode, done.stderr) == (0, "")
    manifest = tiny_checkpoint(tmp_path, "a").manifest
    bytes_of_files = sum(record.size for record in manifest.files.values())
    common = [
        "strokes:300",
        "quick",
        "2",
        f"{manifest.best.value:.4f} ({manifest.best.parameterization})",
        f"{manifest.parameters:,}",
        decimal(bytes_of_files),
    ]
    assert rows(done.stdout) == [
        COLUMNS,
        ["c", *common, "12 min"],
        ["a", *common, "5 h"],
        ["b", *common, "3 d"],
    ]


@pytest.mark.usefixtures("three_models")
def test_the_same_as_json_and_bare(cli: Cli, tmp_path: Path) -> None:
    for command in (["models"], ["models", "ls"]):
        listed = reported(cli(*command, "--json"), "models")
        assert listed["damaged"] == []
        assert [model["name"] for model in listed["models"]] == ["c", "a", "b"]
        assert cli(*command, "-q").stdout == "c\na\nb\n"
    checkpoint = tiny_checkpoint(tmp_path, "c")
    manifest = checkpoint.manifest
    assert listed["models"][0] == {
        "name": "c",
        "dataset": "strokes:300",
        "preset": "quick",
        "epochs": 2,
        "best": {
            "name": "validation_mse",
            "parameterization": manifest.best.parameterization,
            "value": manifest.best.value,
        },
        "parameters": manifest.parameters,
        "bytes": sum(record.size for record in manifest.files.values()),
        "created": manifest.created,
        "path": str(checkpoint.path),
        "in_use": False,
    }


def test_no_models_yet(cli: Cli, tmp_path: Path) -> None:
    done = cli("models")
    assert (done.returncode, done.stdout) == (0, "no models yet; train one: ddpmctl demo, or ddpmctl train\n")
    assert reported(cli("models", "--json"), "models") == {"models": [], "unfinished": [], "damaged": []}
    assert cli("models", "-q").stdout == ""
    assert tree(tmp_path) == {}


def test_a_damaged_model_is_named_and_hides_no_other(cli: Cli, three_models: dict[str, Path]) -> None:
    manifest = three_models["a"] / "manifest.json"
    manifest.write_text(manifest.read_text()[:500])
    done = cli("models", "-q")
    assert (done.returncode, done.stdout) == (0, "c\nb\n")
    assert re.fullmatch(rf"warning: a: damaged checkpoint: {re.escape(str(manifest))}: .+\n", done.stderr)
    damaged = reported(cli("models", "--json"), "models")["damaged"]
    assert [model["name"] for model in damaged] == ["a"]
    assert str(manifest) in damaged[0]["problem"]


@pytest.mark.usefixtures("three_models")
def test_stray_files_are_no_models(cli: Cli, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "notes.txt").write_text("mine")
    (models / ".DS_Store").write_text("")
    (models / "empty").mkdir()
    (models / ".half.0123abcd.tmp").mkdir()
    (models / "b" / "notes.txt").write_text("mine")
    done = cli("models", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "c\na\nb\n", "")


def test_names_are_whole_however_narrow_the_terminal_is(cli: Cli, tiny_home: Path, tmp_path: Path) -> None:
    """One has to be able to copy them."""
    names = ["mnist-standard-1", "a-rather-long-name-that-somebody-chose-with-care"]
    for name in names:
        copy_model(tiny_home, tmp_path, name)
    done = cli("models", COLUMNS="80")
    assert all(name in done.stdout for name in names), done.stdout


def test_the_epochs_are_those_of_the_whole_training(cli: Cli, tiny_home: Path, tmp_path: Path) -> None:
    """Not those of the best commit, which may lie earlier."""
    best = copy_model(tiny_home, tmp_path, "a")
    model = best.parent
    last = model / "00000099"
    last.mkdir()
    for file in best.iterdir():
        (last / file.name).write_bytes(file.read_bytes())
    point(model / "last", last)
    tell_of_another_run(last, epochs=7, step=99, planned_steps=99, stopped="early")
    tell_of_another_run(best, stopped="running")
    assert reported(cli("models", "--json"), "models")["models"][0]["epochs"] == 7


def test_an_unreadable_registry_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    done = cli("models")
    assert done.returncode == 1
    assert done.stdout == ""
    assert (
        done.stderr
        == f"error: cannot read {tmp_path / 'models'}: Not a directory\n\nhint: set DDPMCTL_HOME to a readable folder\n"
    )
