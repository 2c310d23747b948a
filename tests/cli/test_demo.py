"""``ddpmctl demo``: data, training and sampling in one command, online and offline."""

import shutil
from pathlib import Path

import pytest

from ddpmctl import data
from ddpmctl.cli.commands import demo
from ddpmctl.cli.output import Output
from ddpmctl.data import downloads
from ddpmctl.errors import DataError
from ddpmctl.registry import Registry, last_of
from tests.builders import point
from tests.conftest import Cli

from .support import Terminal, alter_manifest, complaint, copy_model, frames, pixels, reported, tiny_checkpoint, tree

FILES = [f"ddpmctl-demo/{name}" for name in ("eight.png", "sheet.png", "three.gif", "play.html")]
GO_ON = ["generate 8 --upscale 4 -o eight.png", "animate 3 -o three.gif", "grid", "inspect demo", "train"]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that trains for a moment on a handful of strokes."""
    monkeypatch.setattr(demo, "MAX_TRAINING", 1.0)
    monkeypatch.setattr(data, "STROKES_COUNT", 200)


def pictured(tmp_path: Path) -> None:
    """See that the demo's pictures and its page are what they should be."""
    assert sorted(name for name in tree(tmp_path) if name.startswith("ddpmctl-demo/")) == sorted(FILES)
    folder = tmp_path / "ddpmctl-demo"
    assert min(pixels(folder / "eight.png").shape) > 32
    assert pixels(folder / "sheet.png").shape == (6 + 2 * (25 + 134), 6 + 5 * 134)
    shown, durations = frames(folder / "three.gif")
    assert len(shown) == 60
    assert durations[-1] == 2000
    assert "<h1>demo</h1>" in (folder / "play.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("brief")
def test_a_demo_without_a_network_takes_strokes_and_a_second_one_the_model_that_is_there(
    here: Cli, tmp_path: Path
) -> None:
    first = here("demo", "--device", "cpu")
    assert (first.returncode, first.stdout.split()) == (0, FILES)
    assert "MNIST is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download\n" in first.stderr
    assert "using the built-in synthetic digits instead (dataset strokes)\n" in first.stderr
    assert "training 'demo' on cpu" in first.stderr
    for command in GO_ON:
        assert f"\n  ddpmctl {command} " in first.stderr
    assert first.stderr.endswith("\nplay with the model: open ddpmctl-demo/play.html in a browser\n")
    pictured(tmp_path)
    manifest = tiny_checkpoint(tmp_path, "demo").manifest
    assert (manifest.preset, manifest.dataset.name, manifest.run.max_time) == ("quick", "strokes", 1.0)

    shutil.rmtree(tmp_path / "ddpmctl-demo")
    before = tiny_checkpoint(tmp_path, "demo")
    second = here("demo")
    assert (second.returncode, second.stdout.split()) == (0, FILES)
    assert second.stderr.startswith("using the existing model 'demo' (trained on strokes); --retrain trains it again\n")
    assert "training 'demo'" not in second.stderr
    pictured(tmp_path)
    assert tiny_checkpoint(tmp_path, "demo") == before

    third = here("demo", "--retrain", "--json")
    assert reported(third, "demo") == {"model": "demo", "files": FILES}
    assert "training 'demo' on " in third.stderr
    assert tiny_checkpoint(tmp_path, "demo").manifest.created > before.manifest.created


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("ended", ["interrupted", "running"])
def test_a_demo_model_whose_training_was_cut_short_goes_on(
    here: Cli, tiny_home: Path, tmp_path: Path, ended: str
) -> None:
    """Cut short is also one whose best commit is not its last."""
    best = copy_model(tiny_home, tmp_path, "demo")
    last = best.parent / "00000009"
    shutil.copytree(best, last)
    point(best.parent / "last", last)
    run = reported(here("inspect", "demo", "--json"), "inspect")["run"]
    alter_manifest(best, run={**run, "stopped": "running"})
    alter_manifest(last, run={**run, "step": 8, "stopped": ended})
    assert "resuming 'demo' on " in here("demo", "--device", "cpu").stderr
    assert last_of(tiny_checkpoint(tmp_path, "demo")).manifest.run.stopped in ("done", "early")


@pytest.mark.usefixtures("brief")
def test_a_damaged_demo_model_is_trained_anew(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    (copy_model(tiny_home, tmp_path, "demo") / "manifest.json").write_text("{")
    assert here("demo", "--device", "cpu").returncode == 0
    assert tiny_checkpoint(tmp_path, "demo").manifest.dataset.name == "strokes"


def test_the_same_model_makes_the_same_pictures(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "demo")
    made = []
    for _ in range(2):
        assert here("demo", "-q").stdout.split() == FILES
        made.append(tree(tmp_path / "ddpmctl-demo"))
    assert made[0] == made[1]


def test_a_terminal_shows_the_sheet(tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "demo")
    with Terminal(tmp_path, "demo", COLORTERM="truecolor") as terminal:
        assert terminal.finish() == 0
        blocks = [line for line in terminal.text.splitlines() if line.count("▀") > 60]
        coloured = "\x1b[38;2;" in terminal.screen
    # Two rows of five digits, as wide as the terminal; a character is two pixels high.
    assert len(blocks) > 18
    assert coloured
    assert [line for line in terminal.text.splitlines() if line in FILES] == FILES


def test_what_stands_in_the_way_of_the_folder_is_said(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "ddpmctl-demo").write_text("mine")
    assert complaint(here("demo"), 1) == (
        "cannot create the folder ddpmctl-demo: File exists",
        "change to a writable folder",
    )
    assert (tmp_path / "ddpmctl-demo").read_text() == "mine"
    assert Registry(tmp_path).names() == []


def test_a_data_dir_that_is_not_whole_is_refused_and_not_replaced_by_strokes(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    error, hint = complaint(here("demo", "--data-dir", "data"), 1)
    assert error == "the folder data is incomplete: MNIST/raw/train-images-idx3-ubyte is missing"
    assert "--data-dir" in hint
    assert Registry(tmp_path).names() == []


# Which data it takes


@pytest.fixture
def out() -> Output:
    return Output("demo")


def never(*_: object) -> None:
    raise AssertionError("nobody should ask for this")


def test_a_given_data_dir_is_looked_at_and_nothing_else(
    out: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(downloads, "check_complete", lambda root, source: looked.append(root))
    monkeypatch.setattr(downloads, "is_complete", never)
    monkeypatch.setattr(downloads, "download", never)
    assert downloads.mnist_or_strokes(tmp_path) == "mnist"
    assert looked == [tmp_path]


def test_cached_mnist_is_taken_without_a_look_at_the_network(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "is_complete", lambda root, source: root == downloads.cached_root())
    monkeypatch.setattr(downloads, "download", never)
    assert downloads.mnist_or_strokes(None) == "mnist"


def test_mnist_is_downloaded_where_it_can_be(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Path] = []
    monkeypatch.setattr(downloads, "is_complete", lambda root, source: False)
    monkeypatch.setattr(downloads, "download", lambda root, source: fetched.append(root))
    assert downloads.mnist_or_strokes(None) == "mnist"
    assert fetched == [downloads.cached_root()]


def test_without_an_answer_from_the_network_strokes_are_taken_and_it_is_said(
    out: Output, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DDPMCTL_OFFLINE")
    asked: list[str] = []
    monkeypatch.setattr(downloads, "answers", asked.append)
    assert downloads.mnist_or_strokes(None) == "strokes"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("MNIST is not in the cache and cannot be downloaded")
    assert said.err.endswith("\nusing the built-in synthetic digits instead (dataset strokes)\n")
    assert asked
    assert all(url.startswith("http") for url in asked)


def test_a_download_that_fails_ends_in_strokes_too(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DataError("the download of MNIST failed: it stalled")

    monkeypatch.setattr(downloads, "is_complete", lambda root, source: False)
    monkeypatch.setattr(downloads, "download", fail)
    assert downloads.mnist_or_strokes(None) == "strokes"
