"""``ddpmctl generate``: which images, from which seeds, into which files."""

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ddpmctl import Engine
from tests.conftest import Cli, clean_environment

from .support import Terminal, complaint, computed, pixels, reported, tiny_checkpoint, tree


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return dict(archive)


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest distance of two pixels, in grey levels."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_one_label_makes_one_grey_png_and_its_path_on_stdout(tiny: Cli, tmp_path: Path) -> None:
    done = tiny("generate", "8", "--seed", 5)
    assert (done.returncode, done.stdout, done.stderr) == (0, "eight.png\n", "model tiny (the newest)\n")
    with Image.open(tmp_path / "eight.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (32, 32))
    assert len(np.unique(pixels(tmp_path / "eight.png"))) > 16
    assert list(tree(tmp_path)) == ["eight.png"]


def test_a_label_is_an_index_or_a_name_in_any_case(tiny_here: Cli) -> None:
    made = reported(tiny_here("generate", "8", "eight", "EiGhT", "--seed", 0, "--steps", 1, "--json"), "generate")
    assert [image["label"] for image in made["images"]] == [8, 8, 8]
    assert [image["class"] for image in made["images"]] == ["eight"] * 3


def test_the_count_is_per_label_and_seeds_go_on_over_the_whole_request(
    tiny_here: Cli, tiny_home: Path, tmp_path: Path
) -> None:
    made = reported(tiny_here("generate", "8", "three", "-n", 2, "--seed", 40, "--json"), "generate")
    model = tiny_checkpoint(tiny_home)
    sampling = model.manifest.config.sampling
    assert made == {
        "model": "tiny",
        "digest": model.digest,
        "seed": 40,
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "guidance_interval": list(sampling.guidance_interval),
        **computed(),
        "upscale": 1,
        "files": ["images-1.png", "images-2.png", "images-3.png", "images-4.png"],
        "images": [
            {"label": 8, "class": "eight", "seed": 40},
            {"label": 8, "class": "eight", "seed": 41},
            {"label": 3, "class": "three", "seed": 42},
            {"label": 3, "class": "three", "seed": 43},
        ],
    }
    assert sorted(tree(tmp_path)) == made["files"]
    assert len({pixels(tmp_path / name).tobytes() for name in tree(tmp_path)}) == 4


def test_without_a_seed_one_is_drawn_and_printed_and_makes_the_same_image_again(tiny_here: Cli, tmp_path: Path) -> None:
    drawn = [tiny_here("generate", "8", "-o", f"{k}.png") for k in range(2)]
    seeds = [re.fullmatch(r"model tiny \(the newest\)\nseed (\d+)\n", done.stderr) for done in drawn]
    assert seeds[0]
    assert seeds[1]
    assert seeds[0][1] != seeds[1][1]
    tiny_here("generate", "8", "--seed", seeds[0][1], "-o", "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "0.png").read_bytes()
    assert not np.array_equal(pixels(tmp_path / "again.png"), pixels(tmp_path / "1.png"))


@pytest.mark.parametrize(("count", "k"), [(5, 0), (5, 2), (5, 4), (70, 66)])
def test_an_image_of_a_batch_can_be_made_again_alone(tiny_here: Cli, tmp_path: Path, count: int, k: int) -> None:
    """To one grey level; 70 images are more than are sampled together."""
    few = () if count == 5 else ("--sampler", "ddim", "--steps", 3)
    tiny_here("generate", "3", "-n", count, "--seed", 100, *few, "-o", "batch.npz")
    tiny_here("generate", "3", "--seed", 100 + k, *few, "-o", "alone.png")
    assert difference(arrays(tmp_path / "batch.npz")["images"][k], pixels(tmp_path / "alone.png")) <= 1


def test_an_ancestral_chain_draws_the_noise_of_its_steps_from_the_image_s_own_seed(
    tiny_here: Cli, tmp_path: Path
) -> None:
    ancestral = ("--sampler", "ddpm", "--steps", 5)
    tiny_here("generate", "3", "-n", 4, "--seed", 100, *ancestral, "-o", "batch.npz")
    tiny_here("generate", "3", "--seed", 102, *ancestral, "-o", "alone.png")
    assert difference(arrays(tmp_path / "batch.npz")["images"][2], pixels(tmp_path / "alone.png")) <= 1


def test_in_batches_of_one_size_an_image_is_the_same_bit_for_bit(tiny_here: Cli, tmp_path: Path) -> None:
    tiny_here("generate", "8", "3", "5", "--seed", 7, "-o", "one.npz")
    tiny_here("generate", "3", "1", "0", "--seed", 8, "-o", "other.npz")
    assert np.array_equal(arrays(tmp_path / "one.npz")["images"][1], arrays(tmp_path / "other.npz")["images"][0])


def test_an_archive_holds_images_labels_seeds_and_the_names_of_classes(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("generate", "8", "three", "-n", 2, "--seed", 9, "-o", "x.npz")
    assert done.stdout == "x.npz\n"
    assert list(tree(tmp_path)) == ["x.npz"]
    held = arrays(tmp_path / "x.npz")
    told = held.pop("ddpmctl")
    assert (told.shape, told.dtype.kind) == ((), "U")
    assert {name: (array.shape, str(array.dtype)) for name, array in held.items()} == {
        "images": ((4, 32, 32), "uint8"),
        "labels": ((4,), "int64"),
        "seeds": ((4,), "int64"),
        "classes": ((10,), "<U5"),
    }
    assert held["classes"].tolist()[:4] == ["zero", "one", "two", "three"]
    assert held["labels"].tolist() == [8, 8, 3, 3]
    assert held["seeds"].tolist() == [9, 10, 11, 12]


def test_one_image_in_an_archive_is_an_array_of_one(tiny_here: Cli, tmp_path: Path) -> None:
    tiny_here("generate", "8", "--seed", 3, "-o", "x.npz")
    tiny_here("generate", "8", "--seed", 3, "-o", "x.png")
    held = arrays(tmp_path / "x.npz")
    assert np.array_equal(held["images"], pixels(tmp_path / "x.png")[None])


def test_python_makes_what_the_command_makes(
    tiny_here: Cli, tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_here("generate", "8", "3", "--seed", 0, "-o", "x.npz")
    monkeypatch.setenv("DDPMCTL_HOME", str(tiny_home))
    engine = Engine.load("latest")
    assert engine.classes == ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    images = engine.generate([8, 3], seed=0)
    assert images.dtype == np.uint8
    assert np.array_equal(images, arrays(tmp_path / "x.npz")["images"])


@pytest.mark.parametrize("suffix", ["PNG", "NPZ"])
def test_a_suffix_counts_in_any_case(tiny_here: Cli, tmp_path: Path, suffix: str) -> None:
    assert tiny_here("generate", "8", "--steps", 1, "-o", f"x.{suffix}").stdout == f"x.{suffix}\n"
    assert list(tree(tmp_path)) == [f"x.{suffix}"]


def test_a_dash_writes_the_bytes_of_a_png_to_stdout_and_no_file(tiny_home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ddpmctl", "generate", "8", "--seed", "5"]
    environment = clean_environment(tiny_home)
    piped = subprocess.run([*command, "-o", "-"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert list(tree(tmp_path)) == []
    assert piped.stderr == b"model tiny (the newest)\n"
    subprocess.run([*command, "-o", "x.png"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    # Another process, the same bytes.
    assert piped.stdout == (tmp_path / "x.png").read_bytes()
    with Image.open(io.BytesIO(piped.stdout)) as image:
        assert (image.format, image.size) == ("PNG", (32, 32))


def test_a_dash_goes_neither_with_json_nor_with_several_images(tiny: Cli, tmp_path: Path) -> None:
    assert complaint(tiny("generate", "8", "-o", "-", "--json"), 2) == (
        "-o - and --json both write to stdout",
        "use only one of them",
    )
    assert complaint(tiny("generate", "8", "3", "-o", "-"), 2) == (
        "only one image can be written to stdout, not 2",
        "-o images.npz stores any number",
    )
    assert tree(tmp_path) == {}


def test_a_terminal_is_not_sent_the_bytes_of_a_png(tiny_home: Path, tmp_path: Path) -> None:
    with Terminal(tiny_home, "generate", "8", "-o", "-", cwd=tmp_path) as terminal:
        assert terminal.finish() == 2
        assert "error: a terminal cannot show the bytes of a PNG" in terminal.text
        assert "IHDR" not in terminal.text


def test_a_default_name_never_overwrites(tiny_here: Cli, tmp_path: Path) -> None:
    assert [tiny_here("generate", "8", "--steps", 1).stdout for _ in range(3)] == [
        "eight.png\n",
        "eight-1.png\n",
        "eight-2.png\n",
    ]
    first = tree(tmp_path)
    assert tiny_here("generate", "8", "-n", 2, "--steps", 1).stdout == "eight-3.png\neight-4.png\n"
    assert tiny_here("generate", "8", "3", "--steps", 1).stdout == "images-1.png\nimages-2.png\n"
    assert tiny_here("generate", "8", "3", "--steps", 1).stdout == "images-3.png\nimages-4.png\n"
    assert {name: digest for name, digest in tree(tmp_path).items() if name in first} == first


def test_an_explicit_name_overwrites(tiny_here: Cli, tmp_path: Path) -> None:
    for name in ("x.png", "y-1.png", "y-2.png", "z.npz"):
        (tmp_path / name).write_text("in the way")
    assert tiny_here("generate", "8", "--steps", 1, "-o", "x.png").stdout == "x.png\n"
    assert tiny_here("generate", "8", "3", "--steps", 1, "-o", "y.png").stdout == "y-1.png\ny-2.png\n"
    assert tiny_here("generate", "8", "--steps", 1, "-o", "z.npz").stdout == "z.npz\n"
    assert sorted(tree(tmp_path)) == ["x.png", "y-1.png", "y-2.png", "z.npz"]
    assert pixels(tmp_path / "x.png").shape == pixels(tmp_path / "y-2.png").shape == (32, 32)
    assert arrays(tmp_path / "z.npz")["labels"].tolist() == [8]


def test_many_files_are_numbered_so_that_they_sort(tiny_here: Cli) -> None:
    done = tiny_here("generate", "8", "-n", 11, "--steps", 1, "-o", "x.png")
    assert done.stdout.split() == [f"x-{number:02d}.png" for number in range(1, 12)]


def test_a_folder_takes_the_default_name(tiny_here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for expected in ("eight.png", "eight-1.png"):
        assert tiny_here("generate", "8", "--steps", 1, "-o", "out").stdout == f"{Path('out', expected)}\n"
    assert sorted(tree(folder)) == ["eight-1.png", "eight.png"]


@pytest.mark.parametrize(
    ("options", "interpolation"),
    [
        ((), cv2.INTER_CUBIC),
        (("--interpolation", "cubic"), cv2.INTER_CUBIC),
        (("--interpolation", "nearest"), cv2.INTER_NEAREST),
        (("--interpolation", "linear"), cv2.INTER_LINEAR),
        (("--interpolation", "lanczos"), cv2.INTER_LANCZOS4),
    ],
)
def test_opencv_enlarges_cubic_unless_told_otherwise(
    tiny_here: Cli, tmp_path: Path, options: tuple[str, ...], interpolation: int
) -> None:
    tiny_here("generate", "8", "--seed", 2, "-o", "small.png")
    made = reported(
        tiny_here("generate", "8", "--seed", 2, "--upscale", 4, *options, "-o", "x.png", "--json"), "generate"
    )
    assert made["upscale"] == 4
    expected = cv2.resize(pixels(tmp_path / "small.png"), (128, 128), interpolation=interpolation)
    assert np.array_equal(pixels(tmp_path / "x.png"), expected)


def test_an_archive_holds_enlarged_images_where_they_are_asked_for(tiny_here: Cli, tmp_path: Path) -> None:
    tiny_here("generate", "8", "3", "--upscale", 2, "--steps", 1, "-o", "x.npz")
    assert arrays(tmp_path / "x.npz")["images"].shape == (2, 64, 64)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp", "dpmpp-sde"])
def test_sampler_steps_and_guidance_are_as_asked(tiny_here: Cli, tmp_path: Path, sampler: str) -> None:
    asked = ("--sampler", sampler, "--steps", 4, "--guidance", 1.25)
    made = reported(tiny_here("generate", "8", "--seed", 2, *asked, "-o", "x.png", "--json"), "generate")
    assert (made["sampler"], made["steps"], made["guidance"]) == (sampler, 4, 1.25)
    assert len(np.unique(pixels(tmp_path / "x.png"))) > 16


def test_each_setting_changes_the_picture(tiny_here: Cli, tmp_path: Path) -> None:
    base = {"--seed": 2, "--sampler": "ddim", "--steps": 4, "--guidance": 1.0}
    changes: list[dict[str, object]] = [{}, {"--seed": 3}, {"--sampler": "dpmpp"}, {"--steps": 5}, {"--guidance": 4.0}]
    for number, change in enumerate(changes):
        options = [part for pair in {**base, **change}.items() for part in pair]
        assert tiny_here("generate", "8", *options, "-o", f"{number}.png").returncode == 0
    assert len({pixels(tmp_path / name).tobytes() for name in tree(tmp_path)}) == len(changes)


def test_a_sampler_given_alone_takes_the_steps_that_suit_it(tiny_here: Cli) -> None:
    made = reported(tiny_here("generate", "8", "--sampler", "ddim", "--json"), "generate")
    assert made["steps"] == 50


def test_a_model_is_asked_for_by_name_path_latest_or_not_at_all(
    tiny_here: Cli, tiny_home: Path, tmp_path: Path
) -> None:
    commit = tiny_checkpoint(tiny_home).path
    announced = "model tiny (the newest)\n"
    ways: list[tuple[list[object], str]] = [
        (["--model", "tiny"], ""),
        (["-m", "latest"], announced),
        ([], announced),
        (["--model", commit.parent], ""),
        (["--model", commit], ""),
        (["--model", commit / "weights.safetensors"], ""),
    ]
    for number, (option, stderr) in enumerate(ways):
        done = tiny_here("generate", "8", *option, "--seed", 1, "--steps", 2, "-o", f"{number}.png")
        assert (done.returncode, done.stderr) == (0, stderr)
    assert len(set(tree(tmp_path).values())) == 1


def test_the_device_can_be_named(tiny_here: Cli) -> None:
    assert tiny_here("generate", "8", "--steps", 1, "--device", "cpu").returncode == 0


def test_a_terminal_shows_a_bar_over_the_steps(tiny_home: Path, tmp_path: Path) -> None:
    options = ("--seed", 0, "--sampler", "ddim", "--steps", 200, "-o", "x.png")
    with Terminal(tiny_home, "generate", "8", *options, cwd=tmp_path) as terminal:
        assert terminal.finish() == 0
    assert re.search(r"sampling .*\d+/200", terminal.text)
    assert terminal.text.splitlines()[-1] == "x.png"
