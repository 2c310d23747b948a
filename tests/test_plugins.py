"""Plugins: a package of somebody else's, really installed, adds commands, a dataset and a sampler."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpmctl.cli.group import SUMMARIES
from ddpmctl.registry import Registry

from .conftest import ROOT, Cli, Result, clean_environment, run_cli

SAMPLE = ROOT / "tests" / "plugin_sample"

BROKEN = (
    "'broken' from the plugin ddpmctl-sample 1.2.3 cannot be imported: "
    "ImportError: no module of the name 'something_else'"
)


@pytest.fixture(scope="session")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the sample plugin is installed, without network."""
    folder = tmp_path_factory.mktemp("plugins")
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(folder), str(SAMPLE)],
        capture_output=True,
        check=True,
    )
    return folder


@pytest.fixture
def plugged(plugin_dir: Path, tmp_path: Path) -> Cli:
    """The command line with the plugin on its path."""
    return lambda *arguments, **options: run_cli(tmp_path, *arguments, **{"PYTHONPATH": str(plugin_dir), **options})


@pytest.fixture(scope="module")
def flags_home(plugin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model trained on the plugin's dataset. Read only."""
    home = tmp_path_factory.mktemp("flags")
    quick = ("--preset", "quick", "--epochs", 2, "--device", "cpu")
    done = run_cli(home, "train", *quick, "--dataset", "flags:90", "--name", "flags", PYTHONPATH=str(plugin_dir))
    assert (done.returncode, done.stdout) == (0, "flags\n"), done.stderr
    return home


def listed(help_page: str) -> dict[str, str]:
    """The commands of a help page, with their summaries."""
    commands = help_page.partition("─ Commands ─")[2].partition("╰")[0]
    return dict(re.findall(r"^│ (\S+) +(\S.*?) *│$", commands, re.MULTILINE))


def test_help_lists_a_plugin_s_commands_after_the_built_in_ones(plugged: Cli) -> None:
    done = plugged("--help")
    assert (done.returncode, done.stderr) == (0, "")
    commands = listed(done.stdout)
    assert list(commands) == [*SUMMARIES, "broken", "hello"]
    # The one line that is known without importing it is the package's own summary.
    assert commands["hello"] == "Says hello, draws flags and samples in a single step"
    assert commands["train"] == SUMMARIES["train"]


PROBE = """
import runpy, sys
sys.argv[0] = "ddpmctl"
try:
    runpy.run_module("ddpmctl", run_name="__main__")
except SystemExit:
    print("imported:", [name for name in sys.modules if name.startswith("ddpmctl_sample")])
"""


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["helo"], ["--version"]])
def test_nothing_of_a_plugin_is_imported_before_it_is_called(
    plugin_dir: Path, tmp_path: Path, arguments: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=tmp_path,
        env={**clean_environment(tmp_path), "PYTHONPATH": str(plugin_dir)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("imported: []\n")


def test_a_plugin_s_command_runs_and_has_its_own_help(plugged: Cli) -> None:
    done = plugged("hello", "you", "--loud")
    assert (done.returncode, done.stdout, done.stderr) == (0, "HELLO YOU\n", "")
    page = plugged("hello", "--help").stdout
    assert "Usage: ddpmctl hello [OPTIONS]" in page
    assert "Greet somebody." in page
    assert "--loud" in page


def test_a_plugin_s_command_is_meant_where_it_is_nearly_typed(plugged: Cli) -> None:
    done = plugged("helo")
    assert done.returncode == 2
    assert "did you mean hello?" in done.stderr


def test_a_broken_plugin_fails_alone_and_is_named(plugged: Cli) -> None:
    done = plugged("broken")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {BROKEN}\n\nhint: pip install --upgrade ddpmctl-sample, or pip uninstall ddpmctl-sample\n"
    )
    assert plugged("hello").stdout == "hello world\n"
    assert plugged("models").returncode == 0


def test_completion_keeps_silent_about_a_broken_plugin(plugged: Cli) -> None:
    words = {"_DDPMCTL_COMPLETE": "complete_bash", "COMP_WORDS": "ddpmctl broken --", "COMP_CWORD": "2"}
    done = plugged(**words)
    assert (done.returncode, done.stderr) == (0, "")
    known = plugged(**{**words, "COMP_WORDS": "ddpmctl hel", "COMP_CWORD": "1"})
    assert known.stdout.split() == ["hello"]


def test_a_built_in_command_is_not_shadowed(plugged: Cli) -> None:
    page = plugged("train", "--help").stdout
    assert "Train a model and save it in the registry." in page
    assert "not the real train" not in plugged("train", "--epochs", 0).stdout


TAKEN = "ignored: the name 'train' is already in use"


def test_plugins_are_listed_the_broken_ones_with_the_reason(plugged: Cli) -> None:
    done = plugged("plugins", COLUMNS="220")
    assert (done.returncode, done.stderr) == (0, "")
    assert [re.split(r" {2,}", line.strip()) for line in done.stdout.splitlines()] == [
        ["kind", "name", "package", "version", "status"],
        ["command", "broken", "ddpmctl-sample", "1.2.3", BROKEN],
        ["command", "hello", "ddpmctl-sample", "1.2.3", "ok"],
        ["command", "train", "ddpmctl-sample", "1.2.3", TAKEN],
        ["dataset", "flags", "ddpmctl-sample", "1.2.3", "ok"],
        ["sampler", "leap", "ddpmctl-sample", "1.2.3", "ok"],
    ]


def test_plugins_are_listed_as_json(plugged: Cli) -> None:
    envelope = json.loads(plugged("plugins", "--json").stdout)
    package = {"package": "ddpmctl-sample", "version": "1.2.3"}
    assert envelope == {
        "version": 1,
        "command": "plugins",
        "result": {
            "plugins": [
                {"kind": "command", "name": "broken", **package, "problem": BROKEN},
                {"kind": "command", "name": "hello", **package, "problem": None},
                {"kind": "command", "name": "train", **package, "problem": TAKEN},
                {"kind": "dataset", "name": "flags", **package, "problem": None},
                {"kind": "sampler", "name": "leap", **package, "problem": None},
            ]
        },
    }


def test_without_plugins_there_are_none_to_list(cli: Cli) -> None:
    done = cli("plugins")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "no plugins are installed; the built-in commands are in ddpmctl --help\n"


def test_a_plugin_s_dataset_and_sampler_are_meant_where_they_are_nearly_typed(plugged: Cli, flags_home: Path) -> None:
    refused = plugged("train", "--dataset", "flag")
    assert refused.returncode == 2
    assert refused.stderr == "error: unknown dataset 'flag'\n\nhint: did you mean flags?\n"
    refused = plugged("generate", "red", "--sampler", "leep", "--model", "flags", DDPMCTL_HOME=str(flags_home))
    assert refused.returncode == 2
    assert refused.stderr == "error: unknown sampler 'leep'\n\nhint: did you mean leap?\n"


def test_a_plugin_s_dataset_trains_a_model_in_colour_with_its_own_classes(flags_home: Path) -> None:
    manifest = Registry(flags_home).open("flags").manifest
    assert (manifest.dataset.name, manifest.dataset.count) == ("flags:90", 90)
    assert manifest.classes == ("Red", "Green", "Blue")
    assert (manifest.config.model.channels, manifest.config.model.num_classes) == (3, 3)


Make = Callable[..., Result]


@pytest.fixture
def make(plugged: Cli, flags_home: Path) -> Make:
    """A command with the model in colour, and the plugin."""
    return lambda *arguments, **options: plugged(*arguments, "--seed", 1, DDPMCTL_HOME=str(flags_home), **options)


def test_a_plugin_s_sampler_samples(make: Make, tmp_path: Path) -> None:
    done = make("generate", "red", "GREEN", "2", "--sampler", "leap", "--steps", 3, "-o", "x.npz", "--json")
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)["result"]
    assert (made["sampler"], made["steps"]) == ("leap", 3)
    assert [(image["label"], image["class"]) for image in made["images"]] == [(0, "Red"), (1, "Green"), (2, "Blue")]
    with np.load(tmp_path / "x.npz") as archive:
        assert (archive["images"].shape, archive["images"].dtype) == ((3, 32, 32, 3), np.uint8)
        assert archive["labels"].tolist() == [0, 1, 2]


def test_pictures_of_a_model_in_colour_are_in_colour(make: Make, tmp_path: Path) -> None:
    for command in (
        ["grid", "--steps", 2, "-o", "sheet.png"],
        ["animate", "red", "--frames", 4, "-o", "red.gif"],
    ):
        assert make(*command, PYTHONPATH="").returncode == 0
    sizes = {}
    for name in ("sheet.png", "red.gif"):
        with Image.open(tmp_path / name) as image:
            sizes[name] = image.size
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(pixels[..., 0] - pixels[..., 2]).max() > 10, name
    # Three classes: two in the first row of the sheet, one in the second.
    assert sizes == {"sheet.png": (6 + 2 * 134, 6 + 2 * (25 + 134)), "red.gif": (128, 128)}


def test_a_network_of_ten_classes_refuses_a_dataset_of_three(plugged: Cli, tmp_path: Path) -> None:
    done = plugged("train", "--preset", "classic", "--dataset", "flags", "--device", "cpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the network does not support the dataset flags: "
        "the classic network supports only 32x32 images and ten classes\n\n"
        "hint: --preset standard\n"
    )
    assert Registry(tmp_path).names() == []
