"""``ddpmctl lessons`` with tiny budgets, on synthetic digits."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpmctl.lessons.experiment import Experiment
from ddpmctl.lessons.result import LESSONS, Picture, Result
from ddpmctl.lessons.runner import ExperimentRunner
from ddpmctl.registry import Checkpoint, Registry, last_of
from tests.conftest import Cli, run_cli
from tests.lessons.support import made_up

from .support import complaint, frames, pixels, reported
from .test_traps import flat

SMALL = ("--dataset", "strokes:300", "--device", "cpu", "--budget", "1s", "-n", 50, "-o", "out")

PAIRS = {
    ("one-shot", "fix"): ("diffusion.parameterization", "x0", "epsilon"),
    ("range", "fix"): ("diffusion.pixel_range", [0.0, 1.0], [-1.0, 1.0]),
    ("batchnorm", "fix"): ("model.norm", "batch", "group"),
    ("batch-8-batch", "batch-8-group"): ("model.norm", "batch", "group"),
    ("batch-128-batch", "batch-128-group"): ("model.norm", "batch", "group"),
    ("one-timestep-batch", "one-timestep-group"): ("model.norm", "batch", "group"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all three lessons were taught."""
    folder = tmp_path_factory.mktemp("lessons")
    done = run_cli(folder, "lessons", *SMALL, "--json")
    told = reported(done, "lessons")
    (folder / "told.json").write_text(json.dumps(told))
    (folder / "said.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def told(home: Path) -> Any:
    return json.loads((home / "told.json").read_text())


def model(home: Path, name: str) -> Checkpoint:
    return Registry(home / "out").open(name)


@pytest.mark.slow
def test_every_lesson_is_told_with_its_figures_and_pictures(home: Path, told: Any) -> None:
    assert told["page"] == "out/lessons.html"
    assert [lesson["lesson"] for lesson in told["lessons"]] == list(LESSONS)
    text = (home / "out/lessons.html").read_text()
    for lesson in told["lessons"]:
        assert lesson["title"] in text
        first, *_ = lesson["tables"]
        assert first["columns"][1:3] == ["label accuracy", "Frechet distance"]
        assert first["rows"][-1][0] == "real images"
        assert float(first["rows"][-1][1].rstrip("%")) > 90  # the classifier reads real digits
        assert [row[0].split(":")[0] for row in first["rows"] if ":" in row[0]].count("mistake") >= 1
        kinds = [Path(picture["file"]).suffix for picture in lesson["pictures"]]
        assert kinds[:3] == [".png", ".gif", ".png"]
        for picture in lesson["pictures"]:
            assert pixels(home / "out" / picture["file"]).size > 10_000
        assert len(frames(home / "out" / lesson["pictures"][1]["file"])[0]) > 5
        assert lesson["conditions"]["count"] == 50
        for network in lesson["networks"]:
            assert network["steps"] >= 1
            assert network["losses"]
            assert network["gradients"]


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_manifests_of_a_pair_differ_in_exactly_one_field(home: Path, pair: tuple[str, str]) -> None:
    trap, fix = (model(home, name).manifest for name in pair)
    configs = [flat(json.loads(manifest.to_json())["config"]) for manifest in (trap, fix)]
    different = [
        (name, configs[0][name], configs[1][name]) for name in configs[0] if configs[0][name] != configs[1][name]
    ]
    assert different == [PAIRS[pair]]
    lasts = [last_of(model(home, name)).manifest for name in pair]
    assert all(last.resume is not None for last in lasts)
    same = [
        (
            last.preset,
            last.dataset,
            last.run.seed,
            last.run.planned_steps,
            last.run.step,
            last.run.precision,
            last.resume,
        )
        for last in lasts
    ]
    assert same[0] == same[1]


@pytest.mark.slow
def test_the_command_of_a_network_trains_it_again_bit_for_bit(home: Path, told: Any, tmp_path: Path) -> None:
    networks = {network["name"]: network for lesson in told["lessons"] for network in lesson["networks"]}
    for name in ("range", "one-timestep-batch"):
        program, *typed = shlex.split(networks[name]["command"])
        assert program == "ddpmctl"
        done = run_cli(tmp_path, *typed, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        again, before = Registry(tmp_path).open(name).weights(), model(home, name).weights()
        assert [key for key in before if not np.array_equal(before[key], again[key])] == []


@pytest.mark.slow
def test_a_network_of_a_lesson_is_a_model_like_any_other(home: Path, here: Cli) -> None:
    for name in ("one-shot", "range", "batchnorm"):
        path = home / "out/models" / name
        for typed in (
            ("generate", 3, "--model", path, "-o", "three.png"),
            ("animate", 3, "--model", path, "--frames", 3, "-o", "three.gif"),
            ("inspect", path),
            ("inspect", path, "--at", 500, "--label", 8, "-o", "at.png"),
        ):
            done = here(*typed)
            assert done.returncode == 0, done.stderr


def test_one_lesson_alone_joins_those_that_the_folder_has(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = stand_in(monkeypatch)
    assert here("lessons", "range", *SMALL).returncode == 0
    done = here("lessons", "one-shot", *SMALL)
    assert done.returncode == 0
    assert taught == ["range", "one-shot"]
    text = Path("out/lessons.html").read_text()
    assert text.index("Lesson one-shot") < text.index("Lesson range")
    # What is printed is what was asked for.
    assert "Lesson one-shot" in done.stdout
    assert "Lesson range" not in done.stdout


def test_ctrl_c_keeps_the_lessons_that_are_done_and_names_the_others(
    here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, interrupted_at="range")
    said = complaint(here("lessons", *SMALL), 130)
    assert said == (
        "interrupted; saved in out: one-shot",
        "run the remaining lessons: ddpmctl lessons range batchnorm -o out",
    )
    assert "Lesson one-shot" in Path("out/lessons.html").read_text()


def test_a_lesson_that_cannot_be_read_is_left_out_of_the_page_and_named(
    here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    Path("out").mkdir()
    Path("out/batchnorm.json").write_text("{")
    done = here("lessons", "range", *SMALL)
    assert done.returncode == 0
    assert "warning: batchnorm is omitted from the page: out/batchnorm.json is not a lesson result" in done.stderr
    assert "Lesson range" in Path("out/lessons.html").read_text()


def stand_in(monkeypatch: pytest.MonkeyPatch, interrupted_at: str = "") -> list[str]:
    """Results that nothing was trained for; gives the names of the lessons as they are run."""
    taught: list[str] = []

    def run(runner: ExperimentRunner, experiment: Experiment) -> Result:
        name = experiment.lesson
        if name == interrupted_at:
            raise KeyboardInterrupt
        taught.append(name)
        Image.new("L", (100, 100)).save(picture)
        return made_up(name, title=f"Lesson {name}", pictures=(Picture(file=picture.name, caption="one"),))

    runner = ExperimentRunner(Path("out"), None, None, 50)  # type: ignore[arg-type]
    monkeypatch.setattr(ExperimentRunner, "create", lambda *arguments: runner)
    picture = Path("out/one.png")
    monkeypatch.setattr(ExperimentRunner, "run", run)
    return taught


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (("rnage",), "unknown lesson 'rnage'"),
        (("--budget", "soon"), "'soon' is not a duration"),
        (("-n", 5), "--count should be greater than or equal to 50, not '5'"),
        (("--dataset", "imagenet"), "unknown dataset 'imagenet'"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--seed", -1), "the seed -1 is out of range"),
    ],
)
def test_what_cannot_be_taught_is_said(here: Cli, typed: tuple[object, ...], error: str) -> None:
    assert complaint(here("lessons", *typed), 2)[0] == error
    assert not list(Path().glob("ddpmctl-lessons/*"))


def test_a_folder_that_cannot_be_made_is_said(here: Cli) -> None:
    Path("taken").write_text("")
    assert complaint(here("lessons", "-o", "taken"), 1)[0] == "taken is not a folder"
