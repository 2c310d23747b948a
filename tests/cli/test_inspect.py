"""``ddpmctl inspect``: the description of a model and its training."""

import hashlib
import json
import math
import re
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ddpmctl.registry import last_of
from tests.builders import point
from tests.conftest import Cli

from .support import alter_manifest, copy_model, reported, tell_of_another_run, tiny_checkpoint, tree

BRAILLE = re.compile(r" *([\d.e-]*) [\u2800-\u28ff]{60}")


def described(text: str) -> dict[str, str]:
    """The lines before the first picture, as names and words."""
    head, *_ = text.split("\n\n")
    return dict(re.findall(r"^(\S+(?: by)?) {2,}(.+?) *$", head, re.MULTILINE))


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose heading begins with a word, cells apart by two spaces or more."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:1] == [first])
    return [re.split(r" {2,}", line.strip()) for line in lines[start:] if line.strip()]


def test_what_the_model_is(tiny: Cli, tiny_home: Path, tmp_path: Path) -> None:
    done = tiny("inspect", "tiny", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    checkpoint = tiny_checkpoint(tiny_home)
    manifest = checkpoint.manifest
    config, run, best = manifest.config, manifest.run, manifest.best
    said = described(done.stdout)
    assert re.fullmatch(r"tiny, created (just now|\d+ (s|min|h) ago)", said.pop("model"))
    assert said.pop("images") == ("32x32 grey, 10 classes: zero, one, two, three, four, five, six, seven, eight, nine")
    widths = "-".join(map(str, config.model.widths))
    clusters = f"rank {config.model.gaussian_rank} and {config.model.gaussian_clusters} clusters a class"
    gaussian = f"corrects a Gaussian denoiser of {clusters}"
    trained = sum(array.size for name, array in checkpoint.weights().items() if not name.startswith("gaussian."))
    assert said.pop("network") == f"unet, {trained:,} parameters, widths {widths}, {gaussian}"
    assert (
        said.pop("diffusion")
        == f"1000 timesteps, {config.diffusion.schedule} schedule, {config.diffusion.parameterization}-prediction"
    )
    assert said.pop("dataset") == f"strokes:300, 300 images, digest {manifest.dataset.digest[:12]}"
    assert re.fullmatch(r"preset quick, 8 of 8 steps, epoch 2, 512 images in \d+ s \(completed\)", said.pop("training"))
    assert said.pop("plan") == "8 steps, 1 learning-rate segment"
    assert (
        said.pop("optimizer")
        == f"{config.training.optimizer}, learning rate {config.training.lr:g}, batch size 64, seed 0"
    )
    assert said.pop("device") == f"{run.device}, {run.precision}"
    assert (
        said.pop("best") == f"validation MSE {best.value:.5f} ({best.parameterization}-prediction), epoch {best.epoch}"
    )
    assert said.pop("sampling").startswith(f"{config.sampling.sampler}, {config.sampling.steps} steps")
    assert said.pop("versions").startswith("python 3.")
    assert said.pop("files") == (
        f"{sum(record.size for record in manifest.files.values()) / 1e6:.1f} MB in {checkpoint.path}"
    )
    assert said.pop("digest") == hashlib.sha256((checkpoint.path / "weights.safetensors").read_bytes()).hexdigest()
    assert said == {}
    assert tree(tmp_path) == {}


def test_the_loss_over_time_is_a_picture_in_characters(tiny: Cli, tiny_home: Path) -> None:
    text = tiny("inspect", "tiny").stdout
    history = tiny_checkpoint(tiny_home).history
    for title, column in (("train MSE", "train_mse"), ("validation MSE", "validation_mse")):
        lines = text.split(f"\n{title} over 2 epochs (log scale)\n")[1].split("\n\n")[0].splitlines()
        named = [match[1] for line in lines if (match := BRAILLE.fullmatch(line.rstrip()))]
        assert len(named) == len(lines) == 8
        losses = [float(row[column]) for row in history]
        assert (named[0], named[-1]) == (f"{max(losses):.4g}", f"{min(losses):.4g}")
        assert named[1:-1] == [""] * 6


def test_json_is_the_manifest_and_where_it_lies(tiny: Cli, tiny_home: Path) -> None:
    checkpoint = tiny_checkpoint(tiny_home)
    manifest = json.loads((checkpoint.path / "manifest.json").read_text())
    assert reported(tiny("inspect", "tiny", "--json"), "inspect") == {
        "name": "tiny",
        "path": str(checkpoint.path),
        "digest": checkpoint.digest,
        **manifest,
    }


def test_the_rate_segments_of_a_run_with_a_time_limit_are_shown(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "timed")
    last = last_of(tiny_checkpoint(tmp_path, "timed")).path
    values = json.loads((last / "manifest.json").read_text())
    rates = [
        {"start": start, "end": 1204, "level": 1.0, "warmup_steps": 0, "decay_steps": 500} for start in (0, 20, 100)
    ]
    plan = values["resume"]["plan"] | {"steps": 1204, "segments": rates}
    alter_manifest(last, run=values["run"] | {"planned_steps": 1204}, resume=values["resume"] | {"plan": plan})
    assert described(here("inspect", "timed").stdout)["plan"] == "1,204 steps, 3 learning-rate segments"
    assert reported(here("inspect", "timed", "--json"), "inspect")["resume"]["plan"] == plan


def test_layers_are_those_of_the_weights_file(tiny_here: Cli, tiny_home: Path) -> None:
    checkpoint = tiny_checkpoint(tiny_home)
    weights = load_file(checkpoint.path / "weights.safetensors")
    expected = {name: list(array.shape) for name, array in weights.items()}
    layers = reported(tiny_here("inspect", "tiny", "--layers", "--json"), "inspect")["layers"]
    assert {layer["name"]: layer["shape"] for layer in layers} == expected
    assert [layer["parameters"] for layer in layers] == [math.prod(layer["shape"]) for layer in layers]
    assert sum(layer["parameters"] for layer in layers) == checkpoint.manifest.parameters

    shown = table(tiny_here("inspect", "tiny", "--layers").stdout, "layer")
    assert shown[0] == ["layer", "shape", "parameters"]
    assert shown[1:-1] == [
        [layer["name"], " x ".join(map(str, layer["shape"])), f"{layer['parameters']:,}"] for layer in layers
    ]
    assert shown[-1] == ["total", f"{checkpoint.manifest.parameters:,}"]


def test_the_schedule_falls_from_image_to_noise(tiny_here: Cli) -> None:
    points = reported(tiny_here("inspect", "tiny", "--schedule", "--json"), "inspect")["schedule"]
    assert [point["t"] for point in points] == [0, 100, 200, 300, 400, 500, 599, 699, 799, 899, 999]
    levels = [place["alpha_bar"] for place in points]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 0.999
    assert levels[-1] < 1e-3
    for place in points:
        level = place["alpha_bar"]
        assert place["signal"] == pytest.approx(math.sqrt(level))
        assert place["noise"] == pytest.approx(math.sqrt(1 - level))
        assert place["snr"] == pytest.approx(level / (1 - level))

    shown = table(tiny_here("inspect", "tiny", "--schedule").stdout, "t")
    assert shown[0] == ["t", "beta", "alpha_bar", "signal", "noise", "snr"]
    assert shown[1:] == [[f"{value:.4g}" for value in point.values()] for point in points]


def test_the_history_has_a_row_an_epoch(tiny: Cli, tiny_home: Path) -> None:
    text = (tiny_checkpoint(tiny_home).path / "history.csv").read_text()
    header, *rows = [line.split(",") for line in text.splitlines()]
    assert len(rows) == 2
    assert header[:4] == ["epoch", "step", "train_mse", "validation_mse"]
    history = reported(tiny("inspect", "tiny", "--history", "--json"), "inspect")["history"]
    assert history == [dict(zip(header, row, strict=True)) for row in rows]
    assert table(tiny("inspect", "tiny", "--history", COLUMNS="200").stdout, "epoch") == [header, *rows]


def test_a_model_is_asked_for_by_name_path_latest_or_not_at_all(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    old = copy_model(tiny_home, tmp_path, "old")
    copy_model(tiny_home, tmp_path, "new")
    alter_manifest(old, created="2020-01-01T00:00:00+00:00", preset="classic")
    announced = "model new (the newest)\n"
    asked: list[tuple[list[object], str, str]] = [
        ([], "new", announced),
        (["latest"], "new", announced),
        (["new"], "new", ""),
        (["old"], "old", ""),
        (["models/old"], "models/old", ""),
        ([old], str(old), ""),
        ([old / "weights.safetensors"], str(old / "weights.safetensors"), ""),
    ]
    for arguments, name, stderr in asked:
        done = here("inspect", *arguments, "--json")
        result = reported(done, "inspect")
        assert (result["name"], done.stderr) == (name, stderr)
        assert result["preset"] == ("quick" if name == "new" else "classic")


@pytest.mark.parametrize(
    ("ended", "words"), [("early", "early stopping"), ("interrupted", "interrupted"), ("done", "completed")]
)
def test_how_the_training_ended_is_told_though_the_best_commit_is_older(
    cli: Cli, tiny_home: Path, tmp_path: Path, ended: str, words: str
) -> None:
    best = copy_model(tiny_home, tmp_path, "a")
    last = best.parent / "00000020"
    last.mkdir()
    for file in best.iterdir():
        (last / file.name).write_bytes(file.read_bytes())
    point(best.parent / "last", last)
    tell_of_another_run(best, planned_steps=40, stopped="running")
    tell_of_another_run(last, step=20, planned_steps=40, epochs=5, images=1280, seconds=9, stopped=ended)
    said = described(cli("inspect", "a", COLUMNS="200").stdout)
    assert said["training"] == f"preset quick, 20 of 40 steps, epoch 5, 1,280 images in 9 s ({words})"
