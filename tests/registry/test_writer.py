"""Reserving a name and saving under it: the remaining files at each point."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.registry import FileRecord, Registry, last_of
from tests.builders import HISTORY, WEIGHTS, commit, manifest, register

from .support import Full, both, check_whole, commits, tree, tree_of_one_commit


def test_a_commit_is_a_directory_named_by_its_step_with_two_pointers(registry: Registry) -> None:
    path = register(registry, "tiny", step=20)
    assert path == registry.models / "tiny" / "00000020"
    assert tree(registry.home) == [
        "models",
        "models/tiny",
        "models/tiny/00000020",
        "models/tiny/00000020/history.csv",
        "models/tiny/00000020/manifest.json",
        "models/tiny/00000020/weights.safetensors",
        "models/tiny/best",
        "models/tiny/last",
    ]
    checksum = json.loads((path / "manifest.json").read_text())["checksum"]
    assert [(path.parent / pointer).read_text() for pointer in ("best", "last")] == [f"00000020 {checksum}\n"] * 2


def test_what_is_committed_is_read_again(registry: Registry) -> None:
    path = register(registry, "tiny", step=20, value=0.25)
    opened = registry.open("tiny")
    assert (opened.name, opened.path) == ("tiny", path)
    files = {
        name: FileRecord(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in (("weights.safetensors", save(WEIGHTS)), ("history.csv", HISTORY.encode()))
    }
    assert opened.manifest == manifest(files, step=20, value=0.25)
    assert opened.weights().keys() == WEIGHTS.keys()
    assert np.array_equal(opened.weights()["layer"], WEIGHTS["layer"])
    assert opened.shapes() == {"layer": (2, 3)}
    assert opened.history == [{"epoch": "1", "step": "10"}]
    assert opened.digest == files["weights.safetensors"].sha256


def test_the_manifest_is_readable_json_of_every_setting(registry: Registry) -> None:
    path = register(registry, "tiny")
    text = (path / "manifest.json").read_text(encoding="utf-8")
    assert text.count("\n") > 50
    opened = registry.open("tiny")
    expected = {**dataclasses.asdict(opened.manifest), "checksum": opened.checksum}
    assert json.loads(text) == json.loads(json.dumps(expected))


def test_pointers_follow_the_best_and_the_last_and_other_commits_go(registry: Registry) -> None:
    seen = []
    with registry.writer("tiny", "") as writer:
        for step, best in ((10, True), (20, True), (30, False), (40, False), (50, True)):
            commit(writer, step, best=best)
            seen.append((commits(registry, "tiny"), *(opened.manifest.run.step for opened in both(registry, "tiny"))))
    assert seen == [
        # What was named until now may still be read: it goes with the commit after the next.
        (["00000010"], 10, 10),
        (["00000010", "00000020"], 20, 20),
        (["00000010", "00000020", "00000030"], 20, 30),
        (["00000020", "00000030", "00000040"], 20, 40),
        (["00000020", "00000030", "00000040", "00000050"], 50, 50),
    ]
    assert commits(registry, "tiny") == ["00000050"]


def test_a_commit_that_stands_alone_is_its_own_last(registry: Registry, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere"
    register(registry, "tiny").rename(alone)
    opened = registry.open(str(alone))
    assert last_of(opened) is opened


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_have_the_mode_of_the_umask(registry: Registry, umask: int, file_mode: int, folder_mode: int) -> None:
    before = os.umask(umask)
    try:
        path = register(registry, "tiny")
    finally:
        os.umask(before)
    model = path.parent
    modes = {entry: entry.stat().st_mode & 0o777 for entry in (model, *model.rglob("*"))}
    assert modes == {entry: folder_mode if entry.is_dir() else file_mode for entry in modes}


def test_a_run_that_ends_before_its_first_commit_leaves_nothing(registry: Registry) -> None:
    with pytest.raises(KeyboardInterrupt), registry.writer("tiny", ""):
        raise KeyboardInterrupt
    assert tree(registry.models) == []
    assert registry.names() == []


def test_a_name_is_free_again_after_a_run_that_left_nothing(registry: Registry) -> None:
    for _ in range(2):
        with registry.writer(None, "strokes-quick") as writer:
            assert writer.name == "strokes-quick-1"


def test_a_later_run_clears_up_only_its_own_name(registry: Registry) -> None:
    registry.models.mkdir(parents=True)
    for leftover in (".tiny.0123abcd.tmp", ".tiny.x.0123abcd.tmp", ".tiny.tmp"):
        (registry.models / leftover).mkdir()
    with registry.writer("tiny", ""):
        assert tree(registry.models) == [".tiny.tmp", ".tiny.x.0123abcd.tmp"]


@pytest.mark.parametrize("name", ["a", "7", "mnist-standard-1", "A.b_c-d", "x" * 64, "best", "late.st", "latest-1"])
def test_a_fit_name_is_taken(registry: Registry, name: str) -> None:
    register(registry, name)
    assert registry.names() == [name]
    assert registry.open(name).name == name


@pytest.mark.parametrize(
    "name",
    ["", "latest", ".hidden", "-n", "_x", "a/b", "../a", "..", "a b", "a\n", "ä", "x" * 65, "a.", "a.lock", "a.tmp"],
)
def test_an_unfit_name_is_refused_and_leaves_nothing(registry: Registry, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.writer(name, "")
    assert caught.value.message == f"'{name}' is not a valid model name"
    assert caught.value.hint == "use letters, digits, '.', '-' and '_', starting with a letter or digit; not 'latest'"
    assert not registry.home.exists()


def test_made_up_names_are_numbered(registry: Registry) -> None:
    names = []
    for _ in range(3):
        with registry.writer(None, "mnist-standard") as writer:
            commit(writer)
            names.append(writer.name)
    assert names == registry.names() == ["mnist-standard-1", "mnist-standard-2", "mnist-standard-3"]


def test_two_runs_at_once_make_up_two_names(registry: Registry) -> None:
    with registry.writer(None, "mnist-quick") as first, registry.writer(None, "mnist-quick") as second:
        assert [first.name, second.name] == ["mnist-quick-1", "mnist-quick-2"]


def test_a_taken_name_is_refused(registry: Registry) -> None:
    register(registry, "tiny", step=10)
    with pytest.raises(UsageError) as caught:
        registry.writer("tiny", "")
    assert caught.value.message == "a model named 'tiny' already exists"
    assert caught.value.hint == "choose a different name, or replace it with force"
    check_whole(registry, "tiny", 10)


def test_a_replaced_model_stays_until_the_first_commit(registry: Registry) -> None:
    register(registry, "tiny", step=90)
    with registry.writer("tiny", "", replace=True) as writer:
        check_whole(registry, "tiny", 90)
        commit(writer, 10)
        check_whole(registry, "tiny", 10)
    assert tree(registry.models) == tree_of_one_commit("tiny", 10)


def test_a_replacement_that_never_commits_leaves_the_old_model(registry: Registry) -> None:
    register(registry, "tiny", step=90)
    with pytest.raises(Full), registry.writer("tiny", "", replace=True):
        raise Full
    check_whole(registry, "tiny", 90)
    assert tree(registry.models) == tree_of_one_commit("tiny", 90)


WRITE_ELSEWHERE = """
import sys
from pathlib import Path
from ddpmctl.errors import DdpmctlError
from ddpmctl.registry import Registry
registry = Registry(Path(sys.argv[1]))
try:
    registry.writer("tiny", "", replace=True)
except DdpmctlError as error:
    print(error.message, error.hint, sep="\\n")
print(registry.open("tiny").manifest.run.step)
print(registry.writer(None, "tiny").name)
"""


def test_another_process_may_read_a_model_in_training_but_not_write_it(registry: Registry) -> None:
    with registry.writer("tiny", "") as writer:
        commit(writer, 10)
        done = subprocess.run(
            [sys.executable, "-c", WRITE_ELSEWHERE, str(registry.home)], capture_output=True, text=True, check=False
        )
    assert (done.stdout.splitlines(), done.stderr) == (
        ["another process is training 'tiny'", "choose a different name", "10", "tiny-1"],
        "",
    )


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"00000010", b"nonsense\n"])
@pytest.mark.parametrize("pointer", ["best", "last"])
def test_a_damaged_pointer_does_not_keep_a_model_from_being_saved(
    registry: Registry, pointer: str, content: bytes
) -> None:
    path = register(registry, "tiny", step=10)
    (path.parent / pointer).write_bytes(content)
    with registry.writer("tiny", "", replace=True) as writer:
        commit(writer, 20)
    check_whole(registry, "tiny", 20)
    assert commits(registry, "tiny") == ["00000020"]


def test_a_manifest_that_nobody_could_read_is_not_written(registry: Registry) -> None:
    register(registry, "tiny", step=10)
    with pytest.raises(CheckpointError, match="too large"), registry.writer("tiny", "", replace=True) as writer:
        commit(writer, 20, versions={"x": "x" * 1_000_001})
    check_whole(registry, "tiny", 10)


def test_what_cannot_be_tidied_up_does_not_hide_what_went_wrong(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError("read-only")

    with pytest.raises(KeyboardInterrupt), registry.writer("tiny", "") as writer:
        for step in (10, 20, 30):
            commit(writer, step)
        monkeypatch.setattr("ddpmctl.registry.writer.remove_tree", fail)
        raise KeyboardInterrupt
    check_whole(registry, "tiny", 30)
    with registry.writer("tiny", "", replace=True):
        pass  # the name is free again
