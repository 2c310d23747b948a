"""What the sampling commands do, from Python as in a notebook: nothing is printed."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddpmctl
from ddpmctl.errors import UsageError
from ddpmctl.imaging.animation import Timing
from ddpmctl.imaging.files import png
from ddpmctl.imaging.provenance import read_provenance
from ddpmctl.registry import Registry
from ddpmctl.sampling.animation import animate
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.files import Enlargement, plan_files, save_images
from ddpmctl.sampling.grid import grid_labels, sample_grid
from ddpmctl.sampling.probe import probe_denoising, probe_grid
from ddpmctl.sampling.reproduce import ReproductionTarget
from ddpmctl.sampling.shards import Job, generate_shards, verify
from tests.builders import register_random, tiny_config


@pytest.fixture(autouse=True)
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """As a library, nothing is printed."""
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A tiny model with random weights, loaded by its name."""
    register_random(Registry(tmp_path / "home"), "demo", tiny_config(sampling={"sampler": "ddim", "steps": 3}))
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return ddpmctl.load("demo", device="cpu", precision="fp32")


def test_images_are_made_by_name_or_index(engine: Engine) -> None:
    images = engine.generate([8, "three"], seed=5)
    assert (images.shape, images.dtype) == ((2, 32, 32), np.uint8)
    assert np.array_equal(images, engine.run(engine.request(["eight", 3], seed=5)))


def test_a_request_is_resolved_once_and_says_all_that_decides_the_pixels(engine: Engine) -> None:
    request = ddpmctl.SamplingRequest.resolve(Registry().open("demo"), ["eight", 3], seed=5, guidance=2.0)
    assert (request.labels, request.classes, request.device) == ((8, 3), ("eight", "three"), "auto")
    request = engine.resolve(request)
    assert request.to_dict() | {"digest": ""} == {
        "model": "demo", "digest": "", "seed": 5, "sampler": "ddim", "steps": 3, "guidance": 2.0,
        "guidance_interval": (0.0, 1.0), "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    # An image of a request is the same as a request of its own.
    assert np.abs(engine.run(request)[1].astype(int) - engine.run(request.slice(1))[0]).max() <= 1
    with pytest.raises(UsageError, match="out of range"):
        request.slice(2**63)


def test_a_seed_is_drawn_where_none_is_given() -> None:
    registry = Registry()
    register_random(registry, "demo", tiny_config())
    one, other = (ddpmctl.SamplingRequest.resolve(registry.open("demo"), [1]) for _ in range(2))
    assert one.seed != other.seed


def test_only_a_request_writes_command_lines(engine: Engine) -> None:
    request = engine.request([8], seed=5, guidance=1.0)
    common = ["--seed", "5", "--sampler", "ddim", "--steps", "3", "--guidance", "1", "--device", "cpu"]
    common += ["--precision", "fp32"]
    assert request.to_argv("generate") == ["ddpmctl", "generate", "eight", "--model", "demo", *common]
    assert request.to_argv("grid", rows=2, upscale=4) == [
        "ddpmctl", "grid", "--rows", "2", "--model", "demo", *common, "--upscale", "4",
    ]  # fmt: skip
    assert request.to_argv("evaluate", count=100)[:5] == ["ddpmctl", "evaluate", "demo", "-n", "100"]


def test_images_are_written_with_their_provenance_and_made_again_from_it(engine: Engine, tmp_path: Path) -> None:
    request, enlargement = engine.request([8, 8, 3], seed=5), Enlargement(2)
    paths = plan_files(tmp_path, request)
    assert [path.name for path in paths] == ["images-1.png", "images-2.png", "images-3.png"]
    images = enlargement.apply(engine.run(request))
    save_images(paths, images, request, enlargement)
    provenance = read_provenance(paths[2])
    assert (provenance.classes, provenance.seed, provenance.upscale, provenance.batch) == (("three",), 7, 2, 3)
    target = ReproductionTarget.read(paths[2])
    again = target.request()
    assert again == ddpmctl.SamplingRequest.resolve(
        engine.checkpoint, [3], seed=7, device="cpu", precision="fp32", **request.options
    )
    assert target.matches_request(again, 2)
    apart = target.difference(enlargement.apply(engine.run(again)))
    assert apart is not None
    assert apart <= 1
    assert not target.matches_request(target.request(seed=8), 2)
    save_images([tmp_path / "all.npz"], images, request, enlargement)
    assert ReproductionTarget.read(tmp_path / "all.npz").labels == [8, 8, 3]


def test_a_grid_shows_every_class(engine: Engine) -> None:
    steps: list[int] = []
    grid = sample_grid(engine, engine.request(grid_labels(10, 2), seed=1), upscale=1, on_step=steps.append)
    assert len(grid.images) == 20
    assert sum(steps) == 3 * 20
    with Image.open(io.BytesIO(png(grid.pixels, grid.provenance))) as image:
        assert np.array_equal(np.asarray(image), grid.pixels)
        assert json.loads(image.text["ddpmctl"])["labels"] == [*range(10)] * 2  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"rows must be in 1\.\.1000, not 0"):
        grid_labels(10, 0)


def test_an_animation_ends_with_the_image(engine: Engine) -> None:
    request = engine.request([3], seed=5, steps=6)
    animation = animate(engine, request, Timing(frames=4), "x0")
    assert len(animation.frames) == len(animation.small_frames) == 4
    assert np.array_equal(animation.small_frames[-1], engine.run(request)[0])
    with Image.open(io.BytesIO(animation.encode(".gif"))) as image:
        assert image.size == (128, 128)
    assert len(list(engine.trajectory(3, seed=5, steps=6))) == 6
    with pytest.raises(UsageError, match="unknown view 'y'"):
        animate(engine, request, Timing(), "y")


def test_a_noise_level_is_probed(engine: Engine) -> None:
    image = engine.generate([8], seed=0)[0]
    probe = probe_denoising(engine, image, "eight", 500)
    assert probe.pred_x0.shape == (1, 32, 32)
    grid = probe_grid(engine, 8, [500, 10])
    assert [level["t"] for level in grid.measurements] == [500, 10]
    assert grid.provenance.command == "ddpmctl inspect demo --at 500 --at 10 --label eight --seed 0 --device cpu"


def test_shards_are_made_and_verified(engine: Engine, tmp_path: Path) -> None:
    job = Job.of(engine.request([], seed=5), count=25, shard_size=10).create_or_open(tmp_path / "images")
    assert list(job.pending(tmp_path / "images", range(job.shards))) == [0, 1, 2]
    assert generate_shards(engine, job, tmp_path / "images", [0, 2]) == 2
    assert verify(tmp_path / "images", job).missing == [1]
    assert generate_shards(engine, job, tmp_path / "images", range(job.shards)) == 1
    assert len(verify(tmp_path / "images", job).digest) == 64
