"""Image files record their provenance and can be reproduced from it."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Cli

from .support import complaint, copy_model, frames, pixels, reported

MADE = {
    "eight.png": ("generate", 8, "--seed", 5, "--upscale", 2, "-o", "eight.png"),
    "many.npz": ("generate", 1, 2, "-n", 3, "--seed", 5, "--steps", 3, "-o", "many.npz"),
    "sheet.png": ("grid", "--rows", 2, "--seed", 5, "--steps", 2, "-o", "sheet.png"),
    "three.gif": ("animate", 3, "--frames", 4, "--seed", 5, "-o", "three.gif"),
    "three.webp": ("animate", 3, "--frames", 4, "--seed", 5, "--guidance", 1, "-o", "three.webp"),
    "look.png": ("inspect", "tiny", "--at", 900, "--at", 5, "--label", 8, "--seed", 5, "-o", "look.png"),
    "three.png": ("animate", 3, "--frames", 4, "--seed", 5, "--fps", 10, "-o", "three.png"),
}


@pytest.mark.parametrize("file", MADE)
def test_every_picture_tells_all_that_made_it_and_its_command_makes_it_again(
    tiny_here: Cli, tmp_path: Path, file: str
) -> None:
    assert tiny_here(*MADE[file]).returncode == 0
    told = reported(tiny_here("inspect", file, "--json"), "inspect")
    digest = reported(tiny_here("inspect", "tiny", "--json"), "inspect")["digest"]
    assert (told["file"], told["model"], told["digest"], told["model_now"]) == (file, "tiny", digest, "tiny")
    assert told["seed"] == 5
    assert told["device"] == "cpu"
    assert told["precision"] in ("fp32", "bf16")
    assert set(told["versions"]) >= {"ddpmctl", "torch", "python"}
    assert {"sampler", "steps", "guidance", "guidance_interval", "batch", "upscale"} <= set(told)
    kind = {"e": "image", "m": "images", "s": "sheet", "l": "sheet", "t": "animation"}[file[0]]
    assert told["kind"] == kind
    first = {"e": ["eight"], "m": [], "s": ["zero"], "l": ["eight"], "t": ["three"]}[file[0]]
    assert told["classes"][:1] == first
    if kind == "images":
        return
    before = (tmp_path / file).read_bytes()
    program, *typed = shlex.split(told["command"])
    assert program == "ddpmctl"
    (tmp_path / file).unlink()
    assert tiny_here(*typed, "-o", file).returncode == 0
    assert (tmp_path / file).read_bytes() == before


def test_a_person_reads_the_same(tiny_here: Cli) -> None:
    assert tiny_here(*MADE["eight.png"]).returncode == 0
    told = tiny_here("inspect", "eight.png").stdout
    sampling = "dpmpp-sde, 12 steps, guidance 1.8"
    for words in ("eight.png, image", "tiny, in the registry", "seed", sampling, "x 2 (cubic)"):
        assert words in told


def test_like_makes_the_same_bytes_and_says_so(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here(*MADE["eight.png"]).returncode == 0
    done = tiny_here("generate", "--like", "eight.png", "-o", "again.png", "--json")
    assert reported(done, "generate")["like"] == {"file": "eight.png", "same": True}
    assert "identical to eight.png, bit for bit" in done.stderr
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "eight.png").read_bytes()


def test_what_is_given_beside_like_is_changed_and_nothing_else(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here(*MADE["eight.png"]).returncode == 0
    larger = tiny_here("generate", "--like", "eight.png", "--upscale", 3, "-o", "larger.png")
    assert larger.returncode == 0
    assert "bit for bit" not in larger.stderr
    assert pixels(tmp_path / "larger.png").shape == (96, 96)
    other = tiny_here("generate", 3, "--like", "eight.png", "--seed", 6, "-o", "other.png", "--json")
    made = reported(other, "generate")
    assert made["images"] == [{"label": 3, "class": "three", "seed": 6}]
    assert (made["steps"], made["upscale"], made["like"]["same"]) == (12, 2, None)


def test_an_archive_is_made_again_whole(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here(*MADE["many.npz"]).returncode == 0
    done = tiny_here("generate", "--like", "many.npz")
    assert done.stdout == "images.npz\n"
    assert "identical to many.npz, bit for bit" in done.stderr
    with np.load(tmp_path / "many.npz") as first, np.load(tmp_path / "images.npz") as second:
        assert all(np.array_equal(first[name], second[name]) for name in ("images", "labels", "seeds"))


def test_one_of_many_is_made_again_alone(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here("generate", 4, "-n", 12, "--seed", 9, "-o", "four.png").returncode == 0
    done = tiny_here("generate", "--like", "four-07.png", "-o", "seven.png")
    assert "identical to four-07.png, bit for bit" in done.stderr, done.stderr
    assert np.array_equal(pixels(tmp_path / "seven.png"), pixels(tmp_path / "four-07.png"))


def test_a_picture_that_was_painted_over_is_found_out(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here(*MADE["eight.png"]).returncode == 0
    with Image.open(tmp_path / "eight.png") as image:
        text, painted = image.text, np.array(image)  # type: ignore[attr-defined]
    painted[0, 0] ^= 64
    from PIL.PngImagePlugin import PngInfo

    kept = PngInfo()
    kept.add_itxt("ddpmctl", text["ddpmctl"])
    Image.fromarray(painted).save(tmp_path / "eight.png", pnginfo=kept)
    done = tiny_here("generate", "--like", "eight.png", "-o", "again.png")
    assert done.returncode == 0
    assert "warning: not identical to eight.png: differs by up to 64 grey levels" in done.stderr


def test_a_model_that_was_renamed_is_found_by_its_weights(
    tiny_here: Cli, tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_here(*MADE["eight.png"]).returncode == 0
    copy_model(tiny_home, tmp_path / "other", "renamed")
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "other"))
    assert "tiny, renamed to 'renamed'" in tiny_here("inspect", "eight.png").stdout
    assert (
        "identical to eight.png, bit for bit" in tiny_here("generate", "--like", "eight.png", "-o", "again.png").stderr
    )


def test_a_model_that_is_gone_or_has_changed_is_named(
    tiny_here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_here(*MADE["eight.png"]).returncode == 0
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "empty"))
    error, hint = complaint(tiny_here("generate", "--like", "eight.png"), 1)
    assert re.fullmatch(r"the model that generated eight.png was not found: 'tiny', digest [0-9a-f]{12}", error)
    assert hint == "use another model: --model NAME; list models: ddpmctl models"
    assert "tiny, not in the registry" in tiny_here("inspect", "eight.png").stdout
    trained = tiny_here(
        "train", "--preset", "quick", "--dataset", "strokes:60", "--max-steps", 1, "--name", "tiny", "--device", "cpu"
    )
    assert trained.returncode == 0
    error, hint = complaint(tiny_here("generate", "--like", "eight.png"), 1)
    assert error.startswith("the weights of 'tiny' have changed since eight.png was generated (digest ")
    assert hint == "use the current weights: --model tiny"
    assert "tiny, weights have changed" in tiny_here("inspect", "eight.png").stdout
    done = tiny_here("generate", "--like", "eight.png", "--model", "tiny", "-o", "today.png")
    assert "warning: not identical to eight.png" in done.stderr


@pytest.mark.parametrize("file", ["sheet.png", "three.gif"])
def test_what_another_command_makes_is_answered_with_that_command(tiny_here: Cli, file: str) -> None:
    assert tiny_here(*MADE[file]).returncode == 0
    error, hint = complaint(tiny_here("generate", "--like", file), 2)
    assert error.startswith(f"{file} is a")
    assert hint.startswith(f"ddpmctl {MADE[file][0]} ")


def test_pictures_that_tell_nothing_are_said_to(tiny_here: Cli, tmp_path: Path) -> None:
    plain = Image.fromarray(np.zeros((8, 8), np.uint8))
    for name in ("a.png", "a.gif", "a.webp"):
        plain.save(tmp_path / name)
        assert complaint(tiny_here("inspect", name), 1)[0] == f"{name} has no provenance record"
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    assert complaint(tiny_here("inspect", "a.npz"), 1)[0] == "a.npz has no provenance record"
    (tmp_path / "b.png").write_text("no picture")
    assert complaint(tiny_here("inspect", "b.png"), 1)[0] == "b.png cannot be read: it is not an image"
    (tmp_path / "b.npz").write_text("no archive")
    assert complaint(tiny_here("inspect", "b.npz"), 1)[0].startswith("b.npz cannot be read: ")
    assert complaint(tiny_here("generate", "--like", "c.png"), 1)[0] == "file not found: c.png"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "not json", '{"kind": "image"}', "[" * 100_000, json.dumps({"kind": 1, "steps": float("1e999")})],
)
def test_a_made_up_record_is_refused_in_words(tiny_here: Cli, tmp_path: Path, text: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    chunk = PngInfo()
    chunk.add_itxt("ddpmctl", text)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png", pnginfo=chunk)
    for typed in (("inspect", "a.png"), ("generate", "--like", "a.png")):
        assert complaint(tiny_here(*typed), 1)[0].startswith("a.png ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("command", "rm -rf ~"),
        ("command", "ddpmctl generate 8; rm -rf ~"),
        ("command", "ddpmctl generate $(reboot)"),
        ("model", "tiny\x1b[2J"),
        ("classes", ["eight\x1b]0;x\x07"]),
        ("versions", {"torch": "2\n\nhint: run this"}),
    ],
)
def test_what_somebody_else_wrote_into_a_picture_is_not_told_on(
    tiny_here: Cli, tmp_path: Path, field: str, value: object
) -> None:
    from PIL.PngImagePlugin import PngInfo

    assert tiny_here(*MADE["eight.png"]).returncode == 0
    with Image.open(tmp_path / "eight.png") as image:
        record, pixels_before = json.loads(image.text["ddpmctl"]), np.array(image)  # type: ignore[attr-defined]
    chunk = PngInfo()
    chunk.add_itxt("ddpmctl", json.dumps({**record, field: value}))
    Image.fromarray(pixels_before).save(tmp_path / "eight.png", pnginfo=chunk)
    for typed in (("inspect", "eight.png"), ("inspect", "eight.png", "--json"), ("generate", "--like", "eight.png")):
        error, _ = complaint(tiny_here(*typed), 1)
        assert error.startswith("eight.png has an invalid provenance record: ")


def test_the_record_changes_no_pixel(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here(*MADE["three.gif"]).returncode == 0
    shown, durations = frames(tmp_path / "three.gif")
    assert len(shown) == 4
    assert durations == [50, 50, 50, 2000]
