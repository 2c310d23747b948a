"""How models are found."""

from pathlib import Path

import platformdirs
import pytest

from ddpmctl.errors import CheckpointError, DdpmctlError
from ddpmctl.registry import Checkpoint, Damaged, Registry
from tests.builders import commit, register

from .support import both, check_whole


def test_an_empty_registry_says_how_to_fill_it(registry: Registry) -> None:
    assert registry.names() == []
    for reference in (None, "latest"):
        with pytest.raises(CheckpointError) as caught:
            registry.open(reference)
        assert caught.value.message == "no models yet"
        assert caught.value.hint == "train one: ddpmctl demo, or ddpmctl train"
    assert not registry.home.exists()


def test_the_newest_is_the_one_whose_best_commit_is_youngest(registry: Registry) -> None:
    for name, step in (("b", 20), ("a", 40), ("c", 30)):
        register(registry, name, step=step)
    newest = registry.newest()
    assert newest is not None
    assert newest.name == "a"
    assert [registry.open(reference).name for reference in (None, "latest")] == ["a", "a"]


REFERENCES = {
    "model": ".",
    "commit": "00000020",
    "weights": "00000020/weights.safetensors",
    "manifest": "00000020/manifest.json",
}


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_a_model_is_found_by_path(registry: Registry, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    commit_path = register(registry, "tiny", step=20)
    path = commit_path.parent / reference
    opened = registry.open(str(path))
    assert (opened.name, opened.path) == (str(path), commit_path)
    monkeypatch.chdir(commit_path.parent)
    assert registry.open(reference).manifest == opened.manifest


def test_a_path_in_the_home_is_found_by_its_tilde(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(registry.home))
    monkeypatch.setenv("USERPROFILE", str(registry.home))
    path = register(registry, "tiny")
    assert registry.open("~/models/tiny").path == path


def test_the_path_of_a_model_is_its_best_commit_and_that_of_a_commit_itself(registry: Registry) -> None:
    with registry.writer("tiny", "") as writer:
        best = commit(writer, 10)
        last = commit(writer, 20, best=False)
    assert registry.open(str(best.parent)).path == best
    assert registry.open(str(last)).path == last


def test_a_name_goes_before_a_path(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = register(registry, "tiny")
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert registry.open("tiny").path == path


@pytest.mark.parametrize(
    ("reference", "hint"), [("tinny", "did you mean tiny?"), ("nowhere/at/all", "list models: ddpmctl models")]
)
def test_an_unknown_model_is_an_error_with_the_one_that_was_meant(
    registry: Registry, reference: str, hint: str
) -> None:
    register(registry, "tiny")
    with pytest.raises(CheckpointError) as caught:
        registry.open(reference)
    assert (caught.value.message, caught.value.hint) == (f"unknown model '{reference}'", hint)


@pytest.mark.parametrize("what", ["picture.png", "weights.safetensors", "00000010/history.csv", "empty"])
def test_what_is_no_checkpoint_is_refused(registry: Registry, tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    elif what.startswith("0"):
        register(registry, "tiny").rename(path.parent)
    else:
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError) as caught:
        registry.open(str(path))
    assert caught.value.message == f"{path} is not a checkpoint"
    assert caught.value.hint == "list models: ddpmctl models"


def test_stray_files_are_ignored(registry: Registry) -> None:
    path = register(registry, "tiny")
    for stray in (registry.models / "empty", registry.models / ".hidden", path.parent / "00000099", path / "sub"):
        stray.mkdir()
    for stray in (registry.models / "notes.txt", registry.home / "notes.txt", path.parent / ".DS_Store", path / "x"):
        stray.write_text("mine")
    (registry.models / ".hidden" / "best").write_text("00000010")
    assert registry.names() == ["tiny"]
    assert [entry.name for entry in registry.iter_models()] == ["tiny"]
    check_whole(registry, "tiny", 10)


def test_the_home_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "mine"))
    assert Registry().models == tmp_path / "mine" / "models"


def test_without_a_setting_the_home_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDPMCTL_HOME")
    assert Registry().home == platformdirs.user_data_path("ddpmctl", appauthor=False)


def test_a_home_that_cannot_be_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    registry = Registry(tmp_path / "file")
    attempts = (("readable", registry.names), ("writable", lambda: registry.writer("tiny", "")))
    for needed, attempt in attempts:
        with pytest.raises(DdpmctlError) as caught:
            attempt()
        assert str(registry.models) in caught.value.message
        assert caught.value.hint == f"set DDPMCTL_HOME to a {needed} folder"


@pytest.mark.parametrize("content", ["", "00000099\n", "00000010\n", "../tiny/00000010\n", "/etc\n", "newest\n", "é"])
@pytest.mark.parametrize("pointer", ["best", "last"])
def test_a_damaged_pointer_is_an_error(registry: Registry, pointer: str, content: str) -> None:
    model = register(registry, "tiny").parent
    (model / pointer).write_text(content, encoding="utf-8")
    with pytest.raises(
        CheckpointError,
        match=r"tiny.*(does not name a checkpoint|cannot be read|which does not exist|refers to a different version)",
    ):
        both(registry, "tiny")


def test_one_damaged_model_does_not_hide_the_others(registry: Registry) -> None:
    register(registry, "a", step=10)
    register(registry, "c", step=20)
    manifest_path = register(registry, "b", step=30) / "manifest.json"
    manifest_path.write_text("{}")
    assert registry.names() == ["a", "b", "c"]
    a, b, c = registry.iter_models()
    assert isinstance(a, Checkpoint)
    assert isinstance(c, Checkpoint)
    assert b == Damaged("b", f"damaged checkpoint: {manifest_path}: it has no valid schema version")
    assert registry.open("latest").name == "c"


def test_where_all_are_damaged_the_newest_is_not_said_to_be_missing(registry: Registry) -> None:
    (register(registry, "tiny") / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tiny"):
        registry.open(None)
