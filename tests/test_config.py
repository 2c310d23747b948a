"""Settings: the presets, what is refused, and how what was typed is understood."""

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from ddpmctl import config
from ddpmctl.config import (
    PRESETS,
    SAMPLER_STEPS,
    Config,
    SamplingConfig,
    choose,
    for_device,
    load_preset,
)
from ddpmctl.core.diffusion import PARAMETERIZATIONS
from ddpmctl.core.norms import NORMS
from ddpmctl.core.samplers import SAMPLERS
from ddpmctl.core.schedule import SCHEDULES
from ddpmctl.errors import ExitCode, UsageError
from ddpmctl.imaging.upscale import INTERPOLATIONS
from ddpmctl.sampling.settings import resolve_sampling
from tests.builders import tiny_config, tiny_values


def values(base: str = "tiny") -> dict[str, Any]:
    """The tiny settings, or a preset's."""
    return tiny_values() if base == "tiny" else load_preset(base).config.to_dict()


def test_the_classic_preset_is_the_original_recipe() -> None:
    assert values("classic") == {
        "model": {
            "network": "classic",
            "image_size": 32,
            "sample_size": 32,
            "channels": 1,
            "num_classes": 10,
            "widths": (64, 128, 256, 512),
            "blocks": 1,
            "patch": 1,
            "embedding": 256,
            "norm": "group",
            "gaussian_rank": 0,
            "gaussian_clusters": 1,
        },
        "diffusion": {
            "timesteps": 1000,
            "schedule": "linear",
            "parameterization": "epsilon",
            "clip_x0": False,
            "pixel_range": (-1.0, 1.0),
        },
        "training": {
            "epochs": 150,
            "batch_size": 64,
            "optimizer": "adam",
            "lr": 2e-4,
            "beta2": 0.999,
            "weight_decay": 0.0,
            "warmup": 0.0,
            "decay": 0.0,
            "clip_norm": 0.0,
            "newton_schulz": 5,
            "ema_lag": 0.0,
            "label_dropout": 0.0,
            "stratified": False,
            "timestep_focus": (0.0, 1.0),
            "focus_share": 0.0,
            "flip": False,
            "one_timestep": False,
            "validation_images": 0,
            "patience": 15,
        },
        "sampling": {"sampler": "ddpm", "steps": 1000, "guidance": 1.0, "guidance_interval": (0.0, 1.0)},
        "distillation": None,
    }


def test_the_standard_preset_is_what_the_documentation_says() -> None:
    config = load_preset("standard").config
    assert config.model.network == "unet"
    assert config.diffusion.timesteps == 1000
    assert (config.training.epochs, config.training.validation_images) == (150, 5000)
    assert config.training.ema_lag > 0
    assert config.training.label_dropout > 0
    assert config.sampling.sampler == "dpmpp"
    assert config.sampling.guidance_interval == (0.3, 0.85)


def test_the_quick_preset_is_a_unet() -> None:
    assert load_preset("quick").config.model.network == "unet"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_a_name_and_one_line_about_it(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.summary
    assert "\n" not in preset.summary


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name: str) -> None:
    config = load_preset(name).config
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(("typed", "meant"), [("clasic", "classic"), ("QUICK", "quick"), ("standart", "standard")])
def test_a_mistyped_preset_is_refused_with_the_one_that_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_preset(typed)
    assert (caught.value.message, caught.value.hint) == (f"unknown preset '{typed}'", f"did you mean {meant}?")


def test_the_built_in_samplers_are_those_that_exist() -> None:
    assert SAMPLER_STEPS.keys() == SAMPLERS.keys()


def test_each_choice_has_an_implementation_and_each_implementation_a_choice() -> None:
    tables: list[tuple[Any, Any]] = [
        (config.ScheduleName, SCHEDULES),
        (config.ParameterizationName, PARAMETERIZATIONS),
        (config.NormName, NORMS),
        (config.InterpolationName, INTERPOLATIONS),
    ]
    for choice, table in tables:
        assert set(get_args(choice)) == set(table)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_the_schedules_are_those_that_can_be_set(schedule: str) -> None:
    changed = values()
    changed["diffusion"]["schedule"] = schedule
    assert Config.from_dict(changed).diffusion.schedule == schedule


@pytest.mark.parametrize(
    ("base", "setting", "value", "complaint"),
    [
        ("tiny", "model.network", "resnet", "Invalid enum value 'resnet' - at `$.model.network`"),
        ("tiny", "model.image_size", 300, "image_size must be in 8..256 - at `$.model`"),
        ("tiny", "model.sample_size", 30, "sample_size must be a multiple of 4 in 8..32 - at `$.model`"),
        ("tiny", "model.sample_size", 36, "sample_size must be a multiple of 4 in 8..32 - at `$.model`"),
        ("tiny", "model.channels", 2, "channels must be 1 or 3 - at `$.model`"),
        ("tiny", "model.num_classes", 0, "num_classes must be in 1..10000 - at `$.model`"),
        ("tiny", "model.widths", [], "the number of widths must be in 1..6 - at `$.model`"),
        ("tiny", "model.widths", [16, 20], "widths must be multiples of 16 - at `$.model`"),
        ("tiny", "model.widths", [16, "32"], "Expected `int`, got `str` - at `$.model.widths[1]`"),
        ("tiny", "model.widths", 16, "Expected `array`, got `int` - at `$.model.widths`"),
        ("tiny", "model.blocks", 0, "blocks must be in 1..8 - at `$.model`"),
        ("tiny", "model.patch", 3, "patch must be 1, 2 or 4 - at `$.model`"),
        ("tiny", "model.embedding", 7, "embedding must be even and in 4..2048 - at `$.model`"),
        (
            "classic",
            "model.widths",
            [64, 128, 256],
            "the classic network supports only 32x32 images and ten classes - at `$.model`",
        ),
        (
            "classic",
            "model.num_classes",
            47,
            "the classic network supports only 32x32 images and ten classes - at `$.model`",
        ),
        ("tiny", "diffusion.timesteps", 1, "timesteps must be in 2..10000 - at `$.diffusion`"),
        ("tiny", "diffusion.timesteps", 1000.0, "Expected `int`, got `float` - at `$.diffusion.timesteps`"),
        ("tiny", "diffusion.timesteps", 19, "steps must be at most 19"),
        ("classic", "diffusion.timesteps", 49, "a linear schedule needs at least 50 timesteps - at `$.diffusion`"),
        ("tiny", "diffusion.schedule", "sigmoid", "Invalid enum value 'sigmoid' - at `$.diffusion.schedule`"),
        (
            "tiny",
            "diffusion.parameterization",
            "noise",
            "Invalid enum value 'noise' - at `$.diffusion.parameterization`",
        ),
        ("tiny", "diffusion.pixel_range", [0, 255], "pixel_range must be -1 and 1, or 0 and 1 - at `$.diffusion`"),
        ("tiny", "training.one_timestep", True, "one_timestep and stratified exclude each other - at `$.training`"),
        ("classic", "model.norm", "batch", "the classic network supports only GroupNorm - at `$.model`"),
        ("tiny", "diffusion.clip_x0", 1, "Expected `bool`, got `int` - at `$.diffusion.clip_x0`"),
        ("tiny", "training.epochs", 0, "epochs must be in 1..1000000 - at `$.training`"),
        ("tiny", "training.epochs", True, "Expected `int`, got `bool` - at `$.training.epochs`"),
        ("tiny", "training.batch_size", 0, "batch_size must be in 1..65536 - at `$.training`"),
        ("tiny", "training.optimizer", "sgd", "Invalid enum value 'sgd' - at `$.training.optimizer`"),
        ("tiny", "training.lr", 0.0, "the learning rate must be in (0, 1] - at `$.training`"),
        ("tiny", "training.lr", float("nan"), "nan is not a finite number - at `$.training.lr`"),
        ("tiny", "training.lr", "2e-3", "Expected `float`, got `str` - at `$.training.lr`"),
        ("tiny", "training.beta2", 1.0, "beta2 must be in [0, 1) - at `$.training`"),
        ("tiny", "training.warmup", 1.5, "warmup must be in 0..1 - at `$.training`"),
        ("tiny", "training.clip_norm", -1.0, "clip_norm must be finite and at least 0 - at `$.training`"),
        ("tiny", "training.clip_norm", float("inf"), "inf is not a finite number - at `$.training.clip_norm`"),
        ("tiny", "training.ema_lag", 0.5, "ema_lag must be in [0, 0.5) - at `$.training`"),
        ("tiny", "training.label_dropout", 1.0, "label_dropout must be in [0, 1) - at `$.training`"),
        (
            "classic",
            "training.label_dropout",
            0.1,
            "the classic network has no null class: its label_dropout must be 0",
        ),
        ("tiny", "training.validation_images", -1, "validation_images must be at least 0 - at `$.training`"),
        ("tiny", "training.patience", 0, "patience must be at least 1 - at `$.training`"),
        ("tiny", "sampling.steps", 0, "steps must be at least 1 - at `$.sampling`"),
        ("tiny", "sampling.steps", 1001, "steps must be at most 1000"),
        ("tiny", "sampling.guidance", -0.1, "guidance must be in 0..100 - at `$.sampling`"),
        (
            "tiny",
            "sampling.guidance_interval",
            [0.0],
            "guidance_interval must be two numbers in 0..1, the lower one first - at `$.sampling`",
        ),
        (
            "tiny",
            "sampling.guidance_interval",
            [0.9, 0.1],
            "guidance_interval must be two numbers in 0..1, the lower one first - at `$.sampling`",
        ),
        (
            "tiny",
            "sampling.guidance_interval",
            "all",
            "Expected `array`, got `str` - at `$.sampling.guidance_interval`",
        ),
        ("tiny", "training.newton_schulz", 0, "newton_schulz must be in 1..20 - at `$.training`"),
        ("classic", "sampling.guidance", 1.5, "the classic network has no null class: its guidance must be 1.0"),
        ("tiny", "training", [], "Expected `object`, got `array` - at `$.training`"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(base: str, setting: str, value: object, complaint: str) -> None:
    changed = values(base)
    table, _, field = setting.partition(".")
    if field:
        changed[table][field] = value
    else:
        changed[table] = value
    with pytest.raises(ValueError) as caught:
        Config.from_dict(changed)
    assert str(caught.value) == complaint


@pytest.mark.parametrize("table", ["model", "diffusion", "training", "sampling"])
def test_settings_are_neither_more_nor_fewer(table: str) -> None:
    more, fewer, none = values(), values(), values()
    more[table] |= {"zeta": 1, "alpha": 2}
    with pytest.raises(ValueError, match=rf"^unknown fields alpha, zeta - at `\$\.{table}`$"):
        Config.from_dict(more)
    name = sorted(fewer[table])[0]
    del fewer[table][name]
    with pytest.raises(ValueError, match=rf"^Object missing required field `{name}` - at `\$\.{table}`$"):
        Config.from_dict(fewer)
    del none[table]
    with pytest.raises(ValueError, match=f"^Object missing required field `{table}`$"):
        Config.from_dict(none)


def test_whole_numbers_pass_for_real_ones() -> None:
    changed = values()
    changed["sampling"]["guidance"] = 2
    guidance = Config.from_dict(changed).sampling.guidance
    assert (guidance, type(guidance)) == (2.0, float)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("dpmpp", 20, 1.3)),
        ({"steps": 7}, ("dpmpp", 7, 1.3)),
        ({"sampler": "dpmpp"}, ("dpmpp", 20, 1.3)),
        ({"sampler": "ddim"}, ("ddim", 50, 1.3)),
        ({"sampler": "ddpm"}, ("ddpm", 1000, 1.3)),
        ({"sampler": "ddpm", "steps": 1, "guidance": 0.0}, ("ddpm", 1, 0.0)),
        ({"guidance": 1.0, "steps": 1000}, ("dpmpp", 1000, 1.0)),
        ({"sampler": "heun", "extra_samplers": ["heun"]}, ("heun", 1000, 1.3)),
    ],
)
def test_sampling_is_recommended_but_for_what_is_asked(asked: dict[str, Any], expected: tuple[str, int, float]) -> None:
    sampler, steps, guidance = expected
    resolved = resolve_sampling(tiny_config(), **asked)
    assert resolved == SamplingConfig(sampler=sampler, steps=steps, guidance=guidance, guidance_interval=(0.0, 1.0))


def test_a_short_chain_is_sampled_whole() -> None:
    config = tiny_config(diffusion={"timesteps": 30})
    assert resolve_sampling(config, "ddim").steps == 30


@pytest.mark.parametrize(
    ("config", "asked", "message", "hint"),
    [
        (tiny_config(), {"sampler": "DDIM"}, "unknown sampler 'DDIM'", "did you mean ddim?"),
        (tiny_config(), {"sampler": "dpmp"}, "unknown sampler 'dpmp'", "did you mean dpmpp?"),
        (tiny_config(), {"sampler": "xyz"}, "unknown sampler 'xyz'", "one of: dpmpp, dpmpp-sde, ddim, ddpm"),
        (
            tiny_config(),
            {"steps": 0},
            "0 steps are too few",
            "steps must be in 1..1000",
        ),
        (
            tiny_config(),
            {"steps": 1001},
            "1001 steps exceed the 1000 timesteps of this model",
            "steps must be in 1..1000",
        ),
        (
            tiny_config(),
            {"guidance": -1.0},
            "guidance -1 is out of range",
            "guidance must be in 0..100; 1.0 disables guidance",
        ),
        (
            tiny_config(),
            {"guidance": float("nan")},
            "guidance nan is out of range",
            "guidance must be in 0..100; 1.0 disables guidance",
        ),
        (
            load_preset("classic").config,
            {"guidance": 1.5},
            "this model has no null class and does not support guidance",
            "guidance=1.0, or omit it",
        ),
    ],
)
def test_sampling_that_cannot_be_is_refused(config: Config, asked: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_sampling(config, **asked)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.exit_code == ExitCode.USAGE


def test_what_is_allowed_is_returned() -> None:
    assert choose("view", "x0", ["x", "x0"]) == "x0"


def test_a_preset_may_have_other_settings_for_a_device_where_the_data_is_large_enough() -> None:
    preset = load_preset("standard")
    usual = preset.config.training
    on_gpu = for_device(preset.config, preset.by_device, "cuda", images=60_000).training
    assert (usual.batch_size, on_gpu.batch_size) == (128, 1024)
    assert on_gpu.lr > usual.lr
    assert replace(on_gpu, batch_size=usual.batch_size, lr=usual.lr) == usual
    assert for_device(preset.config, preset.by_device, "cpu", images=60_000) == preset.config
    assert for_device(preset.config, preset.by_device, "cuda", images=1_000) == preset.config
    classic = load_preset("classic")
    assert for_device(classic.config, classic.by_device, "cuda", images=60_000).training.batch_size == 64
