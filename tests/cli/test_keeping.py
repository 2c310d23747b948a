"""``ddpmctl models rm|prune|verify|export|import`` from the user's point of view."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from rich.filesize import decimal

from ddpmctl.registry import Registry
from tests.builders import register
from tests.conftest import Cli

from .support import Running, Terminal, complaint, copy_model, pixels, reported, tree

ENDLESS = (
    *("--preset", "quick", "--device", "cpu", "--dataset", "strokes:60", "--epochs", 9999, "--patience", 9999),
    *("--batch-size", 27, "--name", "a"),
)


def test_a_model_is_removed_and_the_bytes_are_said(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "a")
    copy_model(tiny_home, tmp_path, "b")
    size = sum(path.stat().st_size for path in (tmp_path / "models" / "a").rglob("*") if path.is_file())
    done = here("models", "rm", "a", "--yes")
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert done.stderr == f"removed 'a', {decimal(size)} freed\n"
    assert Registry(tmp_path).names() == ["b"]
    assert not (tmp_path / "models" / "a").exists()
    assert reported(here("models", "rm", "b", "-y", "--json"), "models rm") == {
        "removed": [{"name": "b", "bytes": size}]
    }


def test_off_a_terminal_removal_wants_a_yes(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "a")
    assert complaint(here("models", "rm", "a"), 2) == (
        "cannot ask for confirmation without a terminal: remove a?",
        "--yes",
    )
    assert Registry(tmp_path).names() == ["a"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, []), ("n", 130, ["a"])])
def test_on_a_terminal_it_asks(tiny_home: Path, tmp_path: Path, answer: str, code: int, left: list[str]) -> None:
    copy_model(tiny_home, tmp_path, "a")
    with Terminal(tmp_path, "models", "rm", "a") as terminal:
        terminal.wait_for("remove a? [y/N]:")
        terminal.type(f"{answer}\n")
        assert terminal.finish() == code
        assert ("freed" if not code else "nothing was removed") in terminal.text
    assert Registry(tmp_path).names() == left


def test_all_names_are_checked_before_anything_goes(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "tiny")
    assert complaint(here("models", "rm", "tiny", "tinny", "-y"), 1) == (
        "unknown model 'tinny'",
        "did you mean tiny?",
    )
    assert complaint(here("models", "rm", "models/tiny", "-y"), 1)[0] == "'models/tiny' is not in the registry"
    assert Registry(tmp_path).names() == ["tiny"]


def test_what_is_being_trained_is_not_removed_but_may_be_exported(cli: Cli, tmp_path: Path) -> None:
    with Running(tmp_path, "train", *ENDLESS) as running:
        running.wait_for("epoch 2/")
        assert complaint(cli("models", "rm", "a", "-y"), 1) == (
            "another process is training 'a'",
            "wait until it finishes, or stop it",
        )
        assert complaint(cli("train", "--resume", "a"), 1)[0] == "another process is training 'a'"
        assert "training in progress" in cli("models").stderr
        assert cli("models", "verify").returncode == 0
        assert cli("models", "prune").returncode == 0
        done = cli("export", "a", "a.zip")
        assert (done.returncode, done.stdout) == (0, "a.zip\n")
        running.send(signal.SIGKILL)
        running.finish()
    # The lock of a dead process frees itself.
    assert cli("models", "rm", "a", "-y").returncode == 0
    assert cli("models", "import", "a.zip").stdout == "a\n"
    assert cli("generate", "3", "-m", "a").returncode == 0


def test_verify_tells_what_is_damaged_and_ends_with_1(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        copy_model(tiny_home, tmp_path, name)
    assert here("models", "verify").returncode == 0
    weights = Registry(tmp_path).open("b").path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    state = Registry(tmp_path).open("c").path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    done = here("models", "verify")
    assert done.returncode == 1
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["a"].split()[1] == "ok"
    assert here("models", "verify", "-q").stdout == "b\nc\n"
    problems = {row["name"]: row["problem"] for row in _json(here, "models", "verify", "--json")}
    assert problems["a"] is None
    assert problems["b"] == f"damaged checkpoint: {weights}: its sha256 is not the one in the manifest"
    assert f"{state}: it has " in problems["c"]
    assert here("models", "verify", "a").returncode == 0
    assert here("models", "verify", "b").returncode == 1
    assert complaint(here("models", "verify", "d"), 1)[0] == "unknown model 'd'"
    # The damaged ones do not hide the whole one.
    assert here("generate", "3", "-m", "a").returncode == 0


def _json(here: Cli, *typed: str) -> list[dict[str, str]]:
    import json

    rows: list[dict[str, str]] = json.loads(here(*typed).stdout)["result"]["models"]
    return rows


def test_prune_removes_what_crashes_left_and_nothing_else(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    model = copy_model(tiny_home, tmp_path, "a").parent
    before = tree(tmp_path)
    left = [model / "00000007", model / ".00000099.01234567.tmp", tmp_path / "models" / ".gone.89abcdef.tmp"]
    for folder in left:
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(bytes(1000))
    (model / "notes.txt").write_text("mine")
    dry = here("models", "prune", "--dry-run")
    assert dry.stderr == "3 temporary files, 3.0 kB to be freed\n"
    assert sorted(dry.stdout.split()) == sorted(map(str, left))
    assert all(folder.exists() for folder in left)
    told = reported(here("models", "prune", "--json"), "models prune")
    assert (told["bytes"], len(told["paths"]), told["dry_run"]) == (3000, 3, False)
    (model / "notes.txt").unlink()
    assert tree(tmp_path) == before
    assert here("models", "prune").stderr == "0 temporary files, 0 bytes freed\n"


def test_a_model_goes_to_a_file_and_comes_back(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "a")
    done = here("export", "a", "kept.zip")
    size = (tmp_path / "kept.zip").stat().st_size
    assert (done.stdout, done.stderr) == ("kept.zip\n", f"wrote 'a' to kept.zip, {decimal(size)}\n")
    assert here("models", "import", "kept.zip", "--name", "b").stdout == "b\n"
    for name in ("a", "b"):
        assert here("generate", "3", "-m", name, "--seed", 1, "-o", f"{name}.png").returncode == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    error, _ = complaint(here("train", "--resume", "b", "--epochs", 1), 1)
    assert error == "'b' cannot be resumed: its training state was not saved"


def test_what_cannot_be_exported_or_imported_is_said(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "a")
    assert complaint(here("export", "a", "a.tar"), 2) == (
        "unsupported extension: a.tar",
        "one of: a.html, a.onnx, a.zip, a.safetensors",
    )
    assert complaint(here("export", "a", "no/such/a.zip"), 1)[0] == "the folder no/such does not exist"
    assert complaint(here("models", "import", "a.zip"), 1)[0] == "a.zip does not exist"
    shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path / "models" / "a")
    error, hint = complaint(here("models", "import", "other.zip"), 1)
    assert error.startswith("other.zip is not an archive of a model: it must contain exactly weights.safetensors, ")
    assert hint == "create one: ddpmctl export MODEL FILE.zip"
    assert here("export", "a", "a.safetensors").returncode == 0
    assert complaint(here("models", "import", "a.safetensors"), 1) == (
        "a.safetensors contains only weights, not a complete model",
        "export an archive: ddpmctl export NAME x.zip",
    )
    assert Registry(tmp_path).names() == ["a"]


def test_the_registry_itself_is_in_one_piece_after_all_that(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    register(registry, "a")
    assert registry.remove("a") > 0
    assert registry.names() == []
    register(registry, "a")
    registry.open("a").verify()


def test_a_home_that_does_not_exist_yet_with_spaces_and_letters_of_all_lands(here: Cli, tmp_path: Path) -> None:
    home = tmp_path / "Büro 1" / "ホーム"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DDPMCTL_HOME", str(home))
        small = ("--preset", "quick", "--device", "cpu", "--dataset", "strokes:60", "--epochs", 1)
        assert here("train", *small, "--name", "a").stdout == "a\n"
        assert here("export", "a", "мой архив.zip").returncode == 0
        assert here("models", "import", "мой архив.zip", "--name", "b").stdout == "b\n"
        assert here("generate", "3", "-m", "b", "-o", "три 3.png").returncode == 0
        assert here("models", "verify").returncode == 0
        assert here("models", "rm", "a", "b", "-y").returncode == 0
    assert (tmp_path / "три 3.png").is_file()
    assert Registry(home).names() == []
