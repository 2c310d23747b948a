"""``generate --all``: shards, made by whomever, checked as one."""

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpmctl.errors import DataError
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.shards import Job, check_shard
from tests.conftest import Cli
from tests.distributed.support import in_job, run

from .support import Running, complaint, copy_model, reported

FAST = ("--sampler", "ddim", "--steps", 2)
ALL = ("generate", "--all", "-n", 50, "--shard-size", 12, "--batch-size", 10, "--seed", 5, *FAST)
"""Five shards, the last of two images, in batches that do not divide them."""


def union(folder: Path) -> dict[str, str]:
    """The shards with their digests."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.npz"))}


def verified(cli: Cli, folder: str) -> Any:
    return reported(cli("data", "verify", folder, "--json"), "data verify")


@pytest.mark.slow
def test_the_union_is_the_same_whoever_made_it(tiny_here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    told = reported(tiny_here(*ALL, "-o", "alone", "--json"), "generate")
    assert (told["images"], told["shards"], told["made"], told["folder"]) == (50, 5, 5, "alone")
    for share in (2, 0, 1):
        assert tiny_here(*ALL, "-o", "shared", "--shard", f"{share}/3").returncode == 0
    run(tiny_home, 2, *ALL, "-o", tmp_path / "torchrun")
    assert len(union(tmp_path / "alone")) == 5
    assert union(tmp_path / "alone") == union(tmp_path / "shared") == union(tmp_path / "torchrun")
    digests = {verified(tiny_here, folder)["digest"] for folder in ("alone", "shared", "torchrun")}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_image_k_has_the_class_and_the_seed_of_its_number(tiny_here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    assert tiny_here(*ALL, "-o", "images").returncode == 0
    loaded = [np.load(path) for path in sorted((tmp_path / "images").glob("*.npz"))]
    seeds, labels, images = (
        np.concatenate([shard[name] for shard in loaded]) for name in ("seeds", "labels", "images")
    )
    assert seeds.tolist() == list(range(5, 55))
    assert labels.tolist() == [k % 10 for k in range(50)]
    assert images.shape == (50, 32, 32)
    engine = Engine(Registry(tiny_home).open("tiny"), "cpu")
    one = engine.generate([7], seed=5 + 37, sampler="ddim", steps=2)[0]
    # Made in a batch of another size.
    assert np.abs(one.astype(int) - images[37]).max() <= 1


def test_an_interrupted_job_goes_on_with_what_is_missing_and_mends_what_is_damaged(
    tiny_here: Cli, tmp_path: Path
) -> None:
    assert tiny_here(*ALL, "-o", "whole").returncode == 0
    assert tiny_here(*ALL, "-o", "cut", "--shard", "0/2").returncode == 0
    folder = tmp_path / "cut"
    damaged = folder / "shard-00002-of-00005.npz"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    before = {name: (folder / name).stat().st_mtime_ns for name in union(folder) if name != damaged.name}
    found = tiny_here("data", "verify", "cut", "--json")
    assert found.returncode == 1
    told = json.loads(found.stdout)["result"]
    assert told["missing"] == [1, 3]
    assert told["digest"] == ""
    assert "shard-00002-of-00005.npz is damaged" in told["problems"][0]
    assert "ddpmctl generate --all -o 'cut'" in told["problems"][-1]
    # Nothing else need be said again.
    went_on = tiny_here("generate", "--all", "-o", "cut", "--json")
    assert reported(went_on, "generate")["made"] == 3
    assert "2 are there" in went_on.stderr
    assert union(folder) == union(tmp_path / "whole")
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert verified(tiny_here, "cut")["problems"] == []


def test_whatever_bit_of_a_shard_is_wrong_it_is_found_or_matters_to_nobody(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here(*ALL, "-o", "images").returncode == 0
    folder = tmp_path / "images"
    job = Job.read(folder)
    assert job is not None
    path, draw, found = job.path(folder, 4), np.random.default_rng(0), 0
    whole, digest = path.read_bytes(), check_shard(path, job, 4)
    for _ in range(400):
        data = bytearray(whole)
        data[draw.integers(len(data))] ^= 1 << int(draw.integers(8))
        path.write_bytes(data)
        try:
            assert check_shard(path, job, 4) == digest
        except DataError as error:
            assert error.message.startswith("shard-00004-of-00005.npz")
            found += 1
    assert found > 300, "zip has fields that nobody reads, and not many"


def test_a_job_goes_on_with_a_model_that_was_renamed(tiny_home: Path, here: Cli, tmp_path: Path) -> None:
    copy_model(tiny_home, tmp_path, "old")
    assert here(*ALL, "-m", "old", "-o", "images", "--shard", "0/2").returncode == 0
    assert here("models", "mv", "old", "new").returncode == 0
    went_on = here("generate", "--all", "-o", "images")
    assert went_on.returncode == 0, went_on.stderr
    assert verified(here, "images")["problems"] == []


@pytest.mark.slow
def test_a_killed_job_leaves_whole_shards_only(tiny: Cli, tiny_home: Path, tmp_path: Path) -> None:
    slow = ("generate", "--all", "-n", 400, "--shard-size", 40, "--seed", 5, "--steps", 12, "-o", tmp_path / "cut")
    with Running(tiny_home, *slow) as running:
        while not list((tmp_path / "cut").glob("shard-*.npz")):
            assert running.process.poll() is None, running.said
        running.send(signal.SIGKILL)
    found = tiny("data", "verify", "cut", "--json")
    told = json.loads(found.stdout)["result"]
    assert 0 < len(told["missing"]) < 10
    assert len(told["problems"]) == 2, "what is there is whole: the missing are named, and the way on"
    assert tiny("generate", "--all", "-o", "cut").returncode == 0
    assert verified(tiny, "cut")["missing"] == []
    assert sorted(path.suffix for path in (tmp_path / "cut").iterdir() if path.suffix not in (".npz", ".lock")) == [
        ".json"
    ]


@pytest.mark.slow
def test_a_job_started_twice_on_one_folder_shares_the_work(tiny: Cli, tiny_home: Path, tmp_path: Path) -> None:
    job = ("generate", "--all", "-n", 200, "--shard-size", 20, "--steps", 6, "-o", tmp_path / "both", "--json")
    with Running(tiny_home, *job) as one, Running(tiny_home, *job) as other:
        ended = [one.finish(), other.finish()]
    assert [done.returncode for done in ended] == [0, 0], [done.stderr for done in ended]
    # No seed was given: the one that came second took that of the first.
    assert verified(tiny, "both")["problems"] == []
    assert not [path for path in (tmp_path / "both").iterdir() if path.name.endswith(".tmp")]


def test_another_job_is_refused_and_named(tiny_here: Cli, tmp_path: Path) -> None:
    assert tiny_here(*ALL, "-o", "images").returncode == 0
    before = union(tmp_path / "images")
    for option, value, name in (("-n", 60, "count"), ("--seed", 6, "seed"), ("--steps", 3, "steps")):
        said, hint = complaint(tiny_here(*ALL, option, value, "-o", "images"), 1)
        assert f"the shards of another job: its {name} is" in said
        assert f"not {value}" in said
        assert "-o" in hint
    assert union(tmp_path / "images") == before
    (tmp_path / "images" / "shard-00009-of-00010.npz").write_bytes(b"")
    problems = json.loads(tiny_here("data", "verify", "images", "--json").stdout)["result"]["problems"]
    assert problems[0] == "shard-00009-of-00010.npz is not part of this job"


def test_a_shard_tells_how_it_was_made(tiny_here: Cli) -> None:
    assert tiny_here(*ALL, "-o", "images").returncode == 0
    told = reported(tiny_here("inspect", "images/shard-00001-of-00005.npz", "--json"), "inspect")
    assert (told["model"], told["seed"], told["batch"], told["steps"]) == ("tiny", 17, 10, 2)
    assert "generate --all -n 50" in told["command"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("--all",), "--all fills a folder"),
        (("--all", "-o", "x"), "the number of images is missing"),
        (("--all", "-n", 0, "-o", "x"), "--count should be greater than or equal to 1, not '0'"),
        (("--all", "-n", 5, "-o", "x", "--shard", "3/3"), "'3/3' is not a share"),
        (("--all", "-n", 5, "-o", "x", "--shard", "a"), "'a' is not a share"),
        (("8", "--all", "-n", 5, "-o", "x"), "has no use for labels"),
        (("--all", "-n", 5, "-o", "x", "--interpolation", "cubic"), "has no use for interpolation"),
        (("8", "--shard", "0/2"), "--shard is for --all"),
        (("8", "--shard-size", 5), "--shard-size is for --all"),
        (("--all", "-n", 10**9, "--shard-size", 1, "-o", "x"), "1,000,000,000 shards"),
    ],
)
def test_what_cannot_be_done_is_refused(tiny_here: Cli, tmp_path: Path, typed: tuple[object, ...], says: str) -> None:
    said, _ = complaint(tiny_here("generate", *typed), 2)
    assert says in said
    assert not list(tmp_path.glob("x/shard*"))


def test_a_place_that_is_no_folder_of_shards_is_refused(tiny_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert complaint(tiny_here(*ALL, "-o", "file"), 1)[0] == "file is not a folder"
    assert complaint(tiny_here(*ALL, "-o", "file/x"), 1)[0] == "file is not a folder"
    (tmp_path / "strokes").mkdir()
    assert tiny_here("data", "verify", "strokes").stdout.startswith("strokes: "), "the dataset, not the folder"
    (tmp_path / "empty").mkdir()
    assert complaint(tiny_here("data", "verify", "empty"), 1)[0].endswith("empty holds no class folder with pictures")
    (tmp_path / "empty" / "job.json").write_text("{")
    assert "cannot be read" in complaint(tiny_here("data", "verify", "empty"), 1)[0]
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["job.json"]


def test_several_processes_make_shards_alone(tiny: Cli) -> None:
    done = tiny("generate", 8, **in_job(0, 2))
    assert complaint(done, 2)[0] == "several processes share --all"
