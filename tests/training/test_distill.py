"""`ddpmctl.distill` as a notebook calls it: students, their teachers, and what happens without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddpmctl
from ddpmctl.config import load_preset
from ddpmctl.core.distillation import Distillation
from ddpmctl.core.noise import normal
from ddpmctl.core.samplers import ddim, trailing_timesteps
from ddpmctl.data import load_dataset
from ddpmctl.errors import CheckpointError, DataError, UsageError
from ddpmctl.registry import Registry, last_of
from ddpmctl.training.execution import Execution
from ddpmctl.training.teachers import student_spec
from ddpmctl.training.train_step import TrainStep
from tests.builders import tiny_config

SMALL: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 18}
"""Three steps an epoch of sixty images."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def teacher(home: Path) -> str:
    settings = tiny_config(sampling={"sampler": "dpmpp", "steps": 20, "guidance": 1.5})
    return ddpmctl.train(config=settings, dataset="strokes:60", epochs=2, name="teacher", **SMALL).name


def state(run: ddpmctl.TrainedModel) -> dict[str, np.ndarray]:
    """All tensors of the last checkpoint, without the previews, which depend on the clock."""
    last = last_of(run.checkpoint)
    return {**last.weights(), **{name: array for name, array in last.state().items() if "previews" not in name}}


def test_a_student_comes_near_its_teacher_and_knows_it(teacher: str, capfd: pytest.CaptureFixture[str]) -> None:
    run = ddpmctl.distill(teacher, 4, epochs=20, lr=2e-3, **SMALL)
    assert (run.name, run.steps, run.stopped) == ("teacher-4step-1", 60, "done")
    config, of_teacher = run.checkpoint.manifest.config, Registry().open(teacher)
    assert config.distillation is not None
    assert (config.distillation.teacher, config.distillation.digest) == ("teacher", of_teacher.digest)
    assert (config.distillation.guidance, config.sampling.guidance) == (1.5, 1.0)
    assert (config.sampling.sampler, config.sampling.steps) == ("ddim", 4)
    losses = [float(row["validation_mse"]) for row in last_of(run.checkpoint).history]
    assert losses[-1] < 0.95 * losses[0]
    assert capfd.readouterr() == ("", "")


def test_a_student_starts_as_its_teacher_and_leaves_it_alone(teacher: str) -> None:
    before = Registry().open(teacher).weights()
    run = ddpmctl.distill(teacher, 2, max_steps=1, lr=1e-12, **SMALL)
    for name, array in run.checkpoint.weights().items():
        assert np.allclose(array, before[name], atol=1e-6), name
    after = Registry().open(teacher)
    after.verify()
    assert all(np.array_equal(array, before[name]) for name, array in after.weights().items())


def test_a_student_that_is_cut_and_resumed_is_the_uncut_one_bit_for_bit(teacher: str) -> None:
    uncut = ddpmctl.distill(teacher, 4, epochs=3, name="uncut", **SMALL)
    steps = iter(range(100))
    cut = ddpmctl.distill(teacher, 4, epochs=3, name="cut", should_stop=lambda: next(steps) >= 4, **SMALL)
    assert (cut.stopped, cut.steps) == ("interrupted", 4)
    resumed = ddpmctl.resume("cut")
    assert (resumed.stopped, resumed.steps) == ("done", 9)
    first, second = state(uncut), state(resumed)
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []


def test_a_student_is_the_teacher_of_a_faster_one(teacher: str) -> None:
    first = ddpmctl.distill(teacher, 4, max_steps=1, **SMALL)
    second = ddpmctl.distill(first.name, 2, max_steps=1, **SMALL)
    settings = second.checkpoint.manifest.config.distillation
    assert settings is not None
    # Its teacher is the student as it samples: two of its four steps in each, without guidance, which is built in.
    assert (settings.steps, settings.substeps, settings.guidance) == (2, 2, 1.0)
    with pytest.raises(UsageError, match="'teacher-4step-1' has 4 steps: 4 steps are not fewer"):
        ddpmctl.distill(first.name, 4, **SMALL)


def test_a_renamed_teacher_is_found(teacher: str) -> None:
    cut = ddpmctl.distill(teacher, 4, epochs=2, name="cut", should_stop=lambda: True, **SMALL)
    Registry().rename(teacher, "renamed")
    assert ddpmctl.resume(cut.name).stopped == "done"


def test_a_teacher_that_is_gone_or_another_is_named_and_the_student_is_kept(teacher: str, home: Path) -> None:
    cut = ddpmctl.distill(teacher, 4, epochs=2, name="cut", should_stop=lambda: True, **SMALL)
    digest = Registry().open(teacher).digest
    Registry().remove(teacher)
    with pytest.raises(
        CheckpointError, match=f"the teacher 'teacher' is not in the registry: .* {digest[:12]}"
    ) as caught:
        ddpmctl.resume("cut")
    assert caught.value.hint == "restore it, or ddpmctl.distill(model, 4)"
    ddpmctl.train(config=tiny_config(), dataset="strokes:60", max_steps=1, name="teacher", seed=5, **SMALL)
    with pytest.raises(CheckpointError, match=f"the teacher 'teacher' has changed since .* {digest[:12]}"):
        ddpmctl.resume("cut")
    cut.checkpoint.verify()
    assert ddpmctl.load("cut", "cpu").generate([3]).shape == (1, 32, 32)


def test_other_images_than_the_teacher_s_are_refused(home: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    for name, grey in (("dark", 60), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for k in range(20):
            Image.new("L", (32, 32), grey + k).save(folder / name / f"{k}.png")
    settings = tiny_config(model={"num_classes": 2})
    ddpmctl.train(config=settings, dataset=f"folder:{folder}", max_steps=2, name="folder", **SMALL)
    assert ddpmctl.distill("folder", 4, max_steps=1, **SMALL).name == "folder-4step-1"
    Image.new("L", (32, 32), 255).save(folder / "dark" / "more.png")
    with pytest.raises(DataError, match="have changed since 'folder' was trained"):
        ddpmctl.distill("folder", 4, max_steps=1, **SMALL)
    for file in sorted(folder.rglob("*.png")):
        file.unlink()
    with pytest.raises(DataError):
        ddpmctl.distill("folder", 4, max_steps=1, **SMALL)


def test_what_a_student_takes_from_its_teacher_cannot_be_set(teacher: str) -> None:
    with pytest.raises(UsageError, match="a student cannot change the setting 'target'") as caught:
        ddpmctl.distill(teacher, 4, target="v")
    assert caught.value.hint is not None
    assert "max_time" in caught.value.hint
    with pytest.raises(UsageError, match="steps must be one of 1, 2, 4, not 3"):
        ddpmctl.distill(teacher, 3)


def test_guidance_is_built_in(teacher: str) -> None:
    student = ddpmctl.distill(teacher, 4, max_steps=1, **SMALL)
    with pytest.raises(UsageError, match="this model is distilled: the guidance of its teacher is built in"):
        ddpmctl.load(student.name, "cpu").generate([3], guidance=2.0)


def test_a_student_of_a_gaussian_denoiser_begins_with_it_alone(home: Path) -> None:
    settings = tiny_config(
        model={"gaussian_rank": 4, "gaussian_clusters": 2}, sampling={"guidance": 1.8, "guidance_interval": [0.1, 0.9]}
    )
    run = ddpmctl.train(config=settings, dataset="strokes:60", max_steps=1, name="teacher", **SMALL)
    spec = student_spec(run.checkpoint, 4)
    assert spec.config and spec.config.distillation
    beginning = spec.config.distillation.closed_form
    assert beginning is not None
    assert (beginning.end, beginning.steps) == (0.75, 6)
    assert (beginning.guidance, beginning.guidance_interval) == (pytest.approx(1.6), (0.1, 0.9))
    first = ddpmctl.distill("teacher", 4, max_steps=1, **SMALL)
    second = student_spec(first.checkpoint, 2)
    # Two of the first student's steps, whose guidance is built in, after the same beginning.
    assert second.config and second.config.distillation
    assert second.config.distillation.closed_form == beginning
    assert second.config.distillation.guidance == 1.0
    engine = ddpmctl.load(first.name, "cpu")
    assert [step.t for step in engine.trajectory(3)] == [999, 957, 916, 874, 832, 791, 749, 561, 374, 187]


def test_the_original_network_can_be_a_teacher(home: Path) -> None:
    run = ddpmctl.train(preset="classic", dataset="strokes:60", max_steps=1, name="classic", **SMALL)
    spec = student_spec(run.checkpoint, 4)
    assert spec.config is not None
    assert spec.config.distillation is not None
    assert spec.config.distillation.closed_form is None
    # At pure noise a predicted noise says nothing about the image.
    assert (spec.config.diffusion.parameterization, spec.config.distillation.guidance) == ("v", 1.0)
    assert spec.config.training.optimizer == load_preset("classic").config.training.optimizer
    student = ddpmctl.distill("classic", 4, max_steps=1, **SMALL)
    assert ddpmctl.load(student.name, "cpu").generate([3]).shape == (1, 32, 32)


@pytest.mark.parametrize("preset", ["classic", "quick"])
def test_what_a_student_of_one_step_learns_is_where_its_teacher_arrives(preset: str) -> None:
    target = "epsilon" if preset == "quick" else None
    run = ddpmctl.train(preset=preset, target=target, dataset="strokes:60", max_steps=1, name="teacher", **SMALL)
    spec = student_spec(run.checkpoint, 1)
    assert spec.config is not None
    side = spec.config.model.sample_size
    images = load_dataset("strokes:60", side)
    step = TrainStep(spec.config, images, spec, Execution(device=torch.device("cpu"), precision="fp32"))
    step.distill(run.checkpoint.weights())
    assert isinstance(step.objective, Distillation)
    engine = ddpmctl.load("teacher", "cpu", "fp32")
    noise, label, length = normal(range(3, 11), 0, (1, side, side)), torch.arange(8), spec.config.chain_length
    assert length == (600 if preset == "quick" else 1000)

    def predict_x0(x: torch.Tensor, t: int) -> torch.Tensor:
        times = torch.full((8,), t)
        output = engine.sampling_step.model_output(x, times, label, engine.config.sampling.guidance)
        return engine.diffusion.predict_x0(x, times, output)

    timesteps = trailing_timesteps(length, 8)
    with torch.inference_mode():
        *_, last = ddim(predict_x0, engine.diffusion.schedule, noise, timesteps, lambda: noise)
        found = step.objective.target(noise, torch.full((8,), length - 1), label)
    scale = float(last.x0.abs().max())
    assert torch.allclose(found / scale, last.x0 / scale, atol=1e-3)
