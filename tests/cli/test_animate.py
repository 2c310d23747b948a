"""``ddpmctl animate``: animations of the denoising."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Cli

from .support import alter_manifest, complaint, computed, copy_model, frames, pixels, reported, tiny_checkpoint, tree


def test_sixty_frames_of_sixty_ddim_steps_into_a_gif_that_holds_its_last_frame(
    tiny: Cli, tiny_home: Path, tmp_path: Path
) -> None:
    made = reported(tiny("animate", "3", "--seed", 4, "--json"), "animate")
    model = tiny_checkpoint(tiny_home)
    assert made == {
        "model": "tiny",
        "digest": model.digest,
        "seed": 4,
        "sampler": "ddim",
        "steps": 60,
        "guidance": model.manifest.config.sampling.guidance,
        "guidance_interval": [0.0, 1.0],
        **computed(),
        "label": 3,
        "class": "three",
        "frames": 60,
        "show": "x",
        "files": ["three.gif"],
    }
    assert list(tree(tmp_path)) == ["three.gif"]
    pictures, durations = frames(tmp_path / "three.gif")
    assert len(pictures) == 60
    assert not any(np.array_equal(one, other) for one, other in pairwise(pictures))
    assert durations == [50] * 59 + [2000]
    with Image.open(tmp_path / "three.gif") as image:
        assert (image.format, image.size, image.info["loop"]) == ("GIF", (128, 128), 0)


@pytest.mark.parametrize(("name", "kind"), [("x.gif", "GIF"), ("x.webp", "WEBP"), ("x.png", "PNG"), ("x.GIF", "GIF")])
def test_the_suffix_says_the_format(tiny_here: Cli, tmp_path: Path, name: str, kind: str) -> None:
    done = tiny_here("animate", "3", "--frames", 12, "--fps", 10, "--hold", 3, "--seed", 4, "-o", name)
    assert (done.returncode, done.stdout) == (0, f"{name}\n")
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.size) == (kind, (128, 128))
    pictures, durations = frames(tmp_path / name)
    assert len(pictures) == 12
    assert not any(np.array_equal(one, other) for one, other in pairwise(pictures))
    assert durations == [100] * 11 + [3000]


def test_every_format_shows_the_same_pictures(tiny_here: Cli, tmp_path: Path) -> None:
    shown = []
    for name in ("x.gif", "x.webp", "x.png"):
        tiny_here("animate", "3", "--frames", 6, "--seed", 4, "-o", name)
        shown.append(np.stack(frames(tmp_path / name)[0]))
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[2])


def test_it_ends_in_the_image_that_generate_makes(tiny_here: Cli, tmp_path: Path) -> None:
    tiny_here("animate", "3", "--frames", 12, "--seed", 4)
    tiny_here("generate", "3", "--seed", 4, "--sampler", "ddim", "--steps", 12)
    carved = frames(tmp_path / "three.gif")[0]
    enlarged = np.kron(pixels(tmp_path / "three.png"), np.ones((4, 4), np.uint8))
    assert np.array_equal(carved[-1][..., 0], enlarged)
    # It begins in noise: neighbours differ more than in the end.
    roughness = [np.abs(np.diff(frame[::4, ::4, 0].astype(int))).mean() for frame in carved]
    assert roughness[0] > roughness[-1]


@pytest.mark.parametrize(
    ("options", "sampler", "steps", "count"),
    [
        (("--frames", 12), "ddim", 12, 12),
        (("--frames", 12, "--steps", 30), None, 30, 12),
        (("--frames", 12, "--steps", 5), None, 5, 5),
        (("--frames", 4, "--sampler", "ddim"), "ddim", 50, 4),
        (("--frames", 7, "--sampler", "ddpm", "--steps", 40), "ddpm", 40, 7),
        (("--frames", 1), "ddim", 1, 1),
    ],
)
def test_steps_are_as_many_as_frames_unless_told_otherwise(
    tiny_here: Cli,
    tiny_home: Path,
    tmp_path: Path,
    options: tuple[object, ...],
    sampler: str | None,
    steps: int,
    count: int,
) -> None:
    made = reported(tiny_here("animate", "3", *options, "--seed", 4, "-o", "x.gif", "--json"), "animate")
    recommended = tiny_checkpoint(tiny_home).manifest.config.sampling.sampler
    assert (made["sampler"], made["steps"], made["frames"]) == (sampler or recommended, steps, count)
    assert len(frames(tmp_path / "x.gif")[0]) == count


def test_fewer_frames_than_asked_for_are_said(tiny_here: Cli) -> None:
    done = tiny_here("animate", "3", "--frames", 12, "--steps", 5, "--seed", 4)
    assert done.stderr == "model tiny (the newest)\n5 frames: there are only 5 sampling steps\n"


def test_the_full_chain_fits_into_few_frames(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    commit = copy_model(tiny_home, tmp_path, "short")
    config = json.loads((commit / "manifest.json").read_text())["config"]
    config["diffusion"]["timesteps"] = 100
    alter_manifest(commit, config=config)
    made = reported(here("animate", "3", "--sampler", "ddpm", "--frames", 5, "--seed", 1, "--json"), "animate")
    assert (made["steps"], made["frames"]) == (100, 5)
    pictures, durations = frames(tmp_path / "three.gif")
    assert len(pictures) == 5
    assert durations[-1] == 2000
    # And no longer than that.
    assert complaint(here("animate", "3", "--sampler", "ddpm", "--steps", 101), 2) == (
        "101 steps exceed the 100 timesteps of this model",
        "--steps must be in 1..100",
    )


def test_the_noisy_image_the_predicted_one_or_both_are_shown(tiny_here: Cli, tmp_path: Path) -> None:
    shown = {}
    for show in ("x", "x0", "both"):
        tiny_here("animate", "3", "--frames", 6, "--seed", 4, "--show", show, "-o", f"{show}.png")
        shown[show] = np.stack(frames(tmp_path / f"{show}.png")[0])
    assert shown["x"].shape == shown["x0"].shape == (6, 128, 128, 3)
    assert np.array_equal(shown["both"], np.concatenate([shown["x"], shown["x0"]], axis=2))
    assert not np.array_equal(shown["x"][0], shown["x0"][0])
    # The last step leaves nothing but the prediction.
    assert np.array_equal(shown["x"][-1], shown["x0"][-1])


@pytest.mark.parametrize("factor", [1, 3])
def test_frames_are_enlarged_as_asked_each_pixel_a_square(tiny_here: Cli, tmp_path: Path, factor: int) -> None:
    tiny_here("animate", "3", "--frames", 4, "--seed", 4, "--upscale", 1, "-o", "small.png")
    tiny_here("animate", "3", "--frames", 4, "--seed", 4, "--upscale", factor, "-o", "x.png")
    small, large = frames(tmp_path / "small.png")[0], frames(tmp_path / "x.png")[0]
    for one, other in zip(small, large, strict=True):
        assert np.array_equal(np.kron(one, np.ones((factor, factor, 1), np.uint8)), other)


def test_a_default_name_never_overwrites_and_an_explicit_one_does(tiny_here: Cli, tmp_path: Path) -> None:
    names = [tiny_here("animate", "three", "--frames", 2).stdout.strip() for _ in range(3)]
    assert names == ["three.gif", "three-1.gif", "three-2.gif"]
    before = tree(tmp_path)
    assert tiny_here("animate", "THREE", "--frames", 3, "-o", "three.gif").stdout == "three.gif\n"
    after = tree(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"three.gif"}
