"""``ddpmctl edit``, and what else starts from a picture, a mix or noise between two seeds."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ddpmctl.registry import DatasetRecord, Registry
from tests.builders import register_random, tiny_config
from tests.conftest import Cli

from .support import complaint, frames, pixels, reported, tree

PLACED = "drawing.png: dark on light, inverted; placed as MNIST's digits are"


@pytest.fixture(autouse=True)
def drawing(tmp_path: Path) -> Path:
    """A seven, black on white, and a mask whose lower half is white."""
    (tmp_path / "work").mkdir()
    seven = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(seven).line([(100, 40), (180, 45), (130, 160)], "black", 14, "curve")
    seven.save(tmp_path / "drawing.png")
    mask = Image.new("L", (300, 200))
    mask.paste(255, (0, 100, 300, 200))
    mask.save(tmp_path / "mask.png")
    return tmp_path / "drawing.png"


FEW = ("--seed", 5, "--steps", 4)


def test_a_drawing_becomes_an_image_of_a_class(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("edit", "drawing.png", "--label", 8, "--strength", 0.6, *FEW, "-o", "eight.png", "--json")
    made = reported(done, "edit")
    assert PLACED in done.stderr
    picture = made["picture"]
    assert len(picture.pop("digest")) == 64
    assert picture == {
        "file": "drawing.png", "strength": 0.6, "fit": "digit", "inverted": True, "mask": "", "mask_digest": "",
    }  # fmt: skip
    assert (made["images"], made["files"]) == ([{"label": 8, "class": "eight", "seed": 5}], ["eight.png"])
    assert pixels(tmp_path / "eight.png").shape == (32, 32)


def test_variants_have_seeds_of_their_own(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("edit", "drawing.png", "--label", "eight", "-n", 3, *FEW)
    assert done.stdout.split() == ["eight-1.png", "eight-2.png", "eight-3.png"]
    images = [pixels(tmp_path / name) for name in done.stdout.split()]
    assert not np.array_equal(images[0], images[1])
    alone = tiny_here("edit", "drawing.png", "--label", "eight", "--seed", 6, "--steps", 4, "-o", "second.png")
    assert alone.returncode == 0
    assert np.abs(pixels(tmp_path / "second.png").astype(int) - images[1]).max() <= 1
    assert tiny_here("edit", "drawing.png", "--label", 8, "-n", 3, *FEW, "-o", "three.npz").returncode == 0
    with np.load(tmp_path / "three.npz") as archive:
        assert np.array_equal(archive["images"], images)
        assert (archive["labels"].tolist(), archive["seeds"].tolist()) == ([8, 8, 8], [5, 6, 7])


def test_a_sheet_shows_the_drawing_and_its_variants(tiny_here: Cli, tmp_path: Path) -> None:
    made = reported(
        tiny_here("edit", "drawing.png", "--label", 8, "-n", 11, "--sheet", "--upscale", 2, *FEW, "--json"), "edit"
    )
    assert (made["files"], made["count"]) == (["edited.png"], 11)
    assert pixels(tmp_path / "edited.png").shape == (6 + 2 * (14 + 64 + 6), 6 + 10 * (64 + 6))


COMMANDS = {
    "eight.png": ("edit", "drawing.png", "--label", 8, "--strength", 0.37, "--upscale", 2, *FEW),
    "part.png": ("edit", "drawing.png", "--label", 8, "--mask", "mask.png", "--no-invert", "--fit", "crop", *FEW),
    "part.npz": ("edit", "drawing.png", "--label", 8, "--mask", "mask.png", "-n", 3, *FEW),
    "sheet.png": ("edit", "drawing.png", "--label", 8, "-n", 3, "--sheet", *FEW),
    "mix.png": ("generate", 3, "--mix", "eight:0.3", "--mix", "0:0.125", *FEW),
    "from.gif": ("animate", 8, "--from", "drawing.png", "--strength", 0.5, "--frames", 4, "--seed", 5),
    "between.gif": ("animate", 3, "--between", 5, 6, "--frames", 4, "--steps", 4),
    "grid.png": ("grid", "--between", 5, 6, "--rows", 3, "--steps", 2),
}


@pytest.mark.parametrize("file", COMMANDS)
def test_the_record_reproduces_it(tiny_here: Cli, tmp_path: Path, file: str) -> None:
    done = tiny_here(*COMMANDS[file], "-o", file)
    assert done.returncode == 0, done.stderr
    told = reported(tiny_here("inspect", file, "--json"), "inspect")
    before = (tmp_path / file).read_bytes()
    words = shlex.split(told["command"])[1:]
    assert tiny_here(*words, "-o", "again" + Path(file).suffix).returncode == 0
    assert (tmp_path / f"again{Path(file).suffix}").read_bytes() == before
    if file in ("eight.png", "part.png", "part.npz", "mix.png"):
        like = tiny_here("generate", "--like", file, "-o", "like" + Path(file).suffix)
        assert f"identical to {file}, bit for bit" in like.stderr, like.stderr
    else:
        assert complaint(tiny_here("generate", "--like", file), 2)[1] == told["command"]


def test_the_record_is_shown(tiny_here: Cli) -> None:
    for file in ("part.png", "mix.png", "between.gif"):
        assert tiny_here(*COMMANDS[file], "-o", file).returncode == 0
    shown = tiny_here("inspect", "part.png").stdout
    assert "drawing.png, strength 1, fit crop, sha256 " in shown
    assert "mask.png, sha256 " in shown
    assert "0.3 of class 8, 0.125 of class 0" in tiny_here("inspect", "mix.png").stdout
    assert "interpolated from seed 5 to seed 6" in tiny_here("inspect", "between.gif").stdout


def test_like_says_what_it_needs(tiny_here: Cli, tmp_path: Path, drawing: Path) -> None:
    assert tiny_here(*COMMANDS["eight.png"], "-o", "work/eight.png").returncode == 0
    # Beside the image it is found as well.
    drawing.rename(tmp_path / "work" / "drawing.png")
    assert "bit for bit" in tiny_here("generate", "--like", "work/eight.png", "-o", "like.png").stderr
    (tmp_path / "work" / "drawing.png").unlink()
    error, hint = complaint(tiny_here("generate", "--like", "work/eight.png"), 1)
    assert error.startswith("work/eight.png was edited from drawing.png (sha256 ")
    assert error.endswith("which was not found")
    assert hint == "put that file beside work/eight.png, or edit another one: ddpmctl edit"
    Image.new("L", (9, 9)).save(drawing)
    assert complaint(tiny_here("generate", "--like", "work/eight.png"), 1)[0].endswith("which has changed since")


def test_black_parts_of_a_mask_are_kept(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("edit", "drawing.png", "--label", 8, "--mask", "mask.png", "-n", 2, *FEW, "-o", "two.npz")
    assert "mask.png: changes 38% of the picture\n" in done.stderr
    assert (
        tiny_here("edit", "drawing.png", "--label", 8, "--sheet", "--upscale", 1, *FEW, "-o", "s.png").returncode == 0
    )
    before = pixels(tmp_path / "s.png")[20:52, 6:38]
    with np.load(tmp_path / "two.npz") as archive:
        images = archive["images"]
    same = (images == before).all(axis=(0, 2))
    # A tenth of the rows or so are empty in both.
    assert same[:19].all()
    assert same[20:].mean() < 0.2


def test_a_generated_image_is_edited_as_it_is(tiny_here: Cli) -> None:
    assert tiny_here("generate", 8, "--seed", 1, "-o", "eight.png").returncode == 0
    done = tiny_here("edit", "eight.png", "--label", 3, *FEW, "-o", "three.png")
    assert "eight.png: taken as it is\n" in done.stderr


def test_pictures_in_colour_are_edited_by_models_of_colour(here: Cli, tmp_path: Path) -> None:
    config = tiny_config(model={"channels": 3, "num_classes": 2})
    record = DatasetRecord(name="folder:/pets", digest="0" * 64, count=9, fit="pad")
    register_random(Registry(tmp_path), "pets", config, classes=("cat", "dog"), dataset=record)
    made = reported(here("edit", "drawing.png", "--label", "cat", *FEW, "-o", "cat.png", "--json"), "edit")
    assert (made["picture"]["fit"], made["picture"]["inverted"]) == ("pad", False)
    assert pixels(tmp_path / "cat.png").shape == (32, 32, 3)


def test_frames_between_two_seeds_end_in_their_images(tiny_here: Cli, tmp_path: Path) -> None:
    done = tiny_here("animate", 3, "--between", 5, 9, "--frames", 5, "--upscale", 1, "-o", "x.gif", "--json")
    made = reported(done, "animate")
    assert (made["between"], made["frames"], made["sampler"]) == ([5, 9], 5, "dpmpp")
    assert "the model's own sampler dpmpp-sde draws noise in each step: using dpmpp" in done.stderr
    shown = [frame[..., 0].astype(int) for frame in frames(tmp_path / "x.gif")[0]]
    for seed, frame in ((5, shown[0]), (9, shown[-1])):
        single = tiny_here("generate", 3, "--sampler", "dpmpp", "--seed", seed, "-o", "one.png")
        assert single.returncode == 0
        assert np.abs(pixels(tmp_path / "one.png") - frame).max() <= 1


def test_an_animation_of_an_edit_ends_in_the_edited_image(tiny_here: Cli, tmp_path: Path) -> None:
    typed = ("--strength", 0.5, "--sampler", "ddim", "--steps", 8, "--seed", 5)
    done = tiny_here("animate", 8, "--from", "drawing.png", *typed, "--upscale", 1, "-o", "x.gif")
    assert "4 frames: there are only 4 sampling steps" in done.stderr
    assert tiny_here("edit", "drawing.png", "--label", 8, *typed, "-o", "x.png").returncode == 0
    assert np.abs(pixels(tmp_path / "x.png") - frames(tmp_path / "x.gif")[0][-1][..., 0].astype(int)).max() <= 1


def test_a_prompt_mixes_as_well(tiny_here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("3\n"))
    assert tiny_here("generate", "-i", "--mix", "8:1", *FEW).stdout == "three-eight.png\n"
    assert tiny_here("generate", 8, *FEW, "-o", "eight.png").returncode == 0
    assert np.abs(pixels(tmp_path / "eight.png") - pixels(tmp_path / "three-eight.png").astype(int)).max() <= 1


WRONG = [
    ("edit drawing.png --label 12", 2, "unknown label '12'"),
    ("edit drawing.png", 2, "missing option '--label'"),
    ("edit drawing.png --label 8 --strength 0", 2, "the strength 0 is out of range"),
    ("edit drawing.png --label 8 --strength 1.5", 2, "the strength 1.5 is out of range"),
    ("edit drawing.png --label 8 --fit stretch", 2, "unknown fit 'stretch'"),
    ("edit gone.png --label 8", 1, "file not found: gone.png"),
    ("edit blank.png --label 8", 1, "there is no ink in blank.png"),
    ("edit text.png --label 8", 1, "text.png is not an image in a supported format"),
    ("edit drawing.png --label 8 --mask gone.png", 1, "file not found: gone.png"),
    ("edit drawing.png --label 8 --mask black.png", 1, "the mask black.png keeps everything"),
    (
        "edit drawing.png --label 8 --mask blank.png",
        1,
        "the mask blank.png has 40 x 50 pixels, and the picture 300 x 200",
    ),
    ("edit drawing.png --label 8 -o x.jpg", 2, "'x.jpg' has an unsupported file extension"),
    ("edit drawing.png --label 8 --sheet -o x.npz", 2, "'x.npz' has an unsupported file extension"),
    ("generate 3 --mix 8", 2, "'8' is not a label and a weight"),
    ("generate 3 --mix 8:2", 2, "mix weights must be in 0..1 and sum to at most 1, not 2"),
    ("generate --all -n 10 -o x --mix 8:0.5", 2, "--all"),
    ("animate 3 --strength 0.5", 2, "--strength, --fit and --invert apply to a picture"),
    ("animate 3 --between 1 2 --show x0", 2, "--between cannot be combined with --from or --show"),
    ("animate 3 --between 1 2 --seed 3", 2, "--between names both seeds, and --seed a third"),
    ("animate 3 --between 1 2 --sampler ddpm", 2, "the sampler ddpm draws noise in each step"),
    ("animate 3 --between 1 -2", 2, "the seed -2 is out of range"),
    ("animate --training tiny --between 1 2", 2, "--training takes no label and no sampling options"),
    ("grid --between 1 2 --rows 1", 2, "--between needs at least two rows"),
]


@pytest.mark.parametrize(("typed", "code", "problem"), WRONG, ids=[each[0] for each in WRONG])
def test_what_is_wrong_is_said_and_nothing_is_written(
    tiny_here: Cli, tmp_path: Path, typed: str, code: int, problem: str
) -> None:
    Image.new("L", (40, 50), 255).save(tmp_path / "blank.png")
    Image.new("L", (300, 200)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no picture")
    before = tree(tmp_path)
    error, _ = complaint(tiny_here(*shlex.split(typed)), code)
    assert problem in error
    assert tree(tmp_path) == before
