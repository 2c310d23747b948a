"""Sampling settings: a model's recommendation with some of them replaced, and those of previews. No torch."""

from collections.abc import Iterable

from ddpmctl.config import GUIDANCE, SAMPLER_STEPS, Config, SamplingConfig, choose
from ddpmctl.errors import Setting, UsageError

PREVIEW_STEPS = 12
"""Sampling steps of the previews drawn during training."""


def resolve_sampling(
    config: Config,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, ...] | None = None,
    extra_samplers: Iterable[str] = (),
) -> SamplingConfig:
    """The model's recommended sampling with some settings replaced.

    Without ``steps``, a sampler other than the recommended one takes its default steps. ``extra_samplers`` are those of
    plugins.
    """
    recommended, timesteps = config.sampling, config.chain_length
    name = choose("sampler", sampler or recommended.sampler, [*SAMPLER_STEPS, *extra_samplers])
    if steps is None:
        usual = recommended.steps if name == recommended.sampler else SAMPLER_STEPS.get(name)
        steps = min(usual or timesteps, timesteps)
    if not 1 <= steps <= timesteps:
        problem = (
            f"{steps} steps exceed the {timesteps} timesteps of this model"
            if steps > 0
            else f"{steps} steps are too few"
        )
        raise UsageError(problem, Setting("steps"), f" must be in 1..{timesteps}")
    scale = recommended.guidance if guidance is None else guidance
    if scale != 1.0 and (config.distillation or not config.model.supports_guidance):
        reason = (
            "is distilled: the guidance of its teacher is built in"
            if config.distillation
            else ("has no null class and does not support guidance")
        )
        raise UsageError(f"this model {reason}", Setting("guidance", 1.0), ", or omit it")
    if scale not in GUIDANCE:
        raise UsageError(
            f"guidance {scale:g} is out of range", Setting("guidance"), f" must be in {GUIDANCE}; 1.0 disables guidance"
        )
    interval = recommended.guidance_interval if guidance_interval is None else guidance_interval
    try:
        return SamplingConfig(sampler=name, steps=steps, guidance=scale, guidance_interval=interval)
    except ValueError as error:
        raise UsageError(
            f"invalid guidance interval: {error}", "for example ", Setting("guidance_interval", "0.3:0.85")
        ) from error


def preview_sampling(config: Config) -> SamplingConfig:
    """How previews are sampled during training: few steps, and no guidance, which would cost twice as much."""
    if config.distillation:
        return config.sampling
    steps = min(PREVIEW_STEPS, config.diffusion.timesteps)
    return SamplingConfig(sampler="dpmpp", steps=steps, guidance=1.0, guidance_interval=(0.0, 1.0))
