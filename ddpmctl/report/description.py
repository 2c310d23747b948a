"""Human-readable description of a model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ddpmctl.config import SamplingConfig
from ddpmctl.durations import format_duration
from ddpmctl.registry import Checkpoint, Manifest, SegmentRecord

if TYPE_CHECKING:
    from ddpmctl.imaging.provenance import Provenance


def describe_model(checkpoint: Checkpoint, last: Manifest) -> Iterator[tuple[str, str]]:
    """Names and texts; ``last`` is the manifest of the last checkpoint, which records the whole run."""
    manifest, run = checkpoint.manifest, last.run
    config, best = manifest.config, manifest.best
    model, diffusion, training = config.model, config.diffusion, config.training
    size = f"{model.image_size}x{model.image_size} {'grey' if model.channels == 1 else 'colour'}"
    yield "images", f"{size}, {model.num_classes} classes: {', '.join(manifest.classes[:12])}"
    norm = ", BatchNorm" if model.norm == "batch" else ""
    widths = "-".join(map(str, model.widths))
    gaussian = ""
    if model.gaussian_rank:
        clusters = "" if model.gaussian_clusters == 1 else f" and {model.gaussian_clusters} clusters a class"
        gaussian = f", corrects a Gaussian denoiser of rank {model.gaussian_rank}{clusters}"
    yield "network", f"{model.network}, {checkpoint.trained_parameters():,} parameters, widths {widths}{norm}{gaussian}"
    pixels = "" if diffusion.pixel_range == (-1, 1) else ", pixels from {:g} to {:g}".format(*diffusion.pixel_range)
    prediction = f"{diffusion.parameterization}-prediction"
    yield "diffusion", f"{diffusion.timesteps} timesteps, {diffusion.schedule} schedule, {prediction}{pixels}"
    if student := config.distillation:
        guidance = "" if student.guidance == 1 else f", guidance {student.guidance:g} built in"
        each = f"{student.substeps} steps of the teacher in each of its {student.steps}"
        yield "teacher", f"{student.teacher}, digest {student.digest[:12]}, {each}{guidance}"
        if closed_form := student.closed_form:
            count, end = closed_form.steps, closed_form.end
            yield "beginning", f"{count} steps of the Gaussian denoiser alone, to t/T = {end:g}; no network evaluations"
    data = manifest.dataset
    images = f"{data.count:,} images, digest {data.digest[:12]}" if data.digest else "images not recorded"
    yield "dataset", f"{data.name}, {images}"
    if run.planned_steps:
        done = f"{run.step:,} of {run.planned_steps:,} steps, epoch {run.epochs}, {run.images:,} images"
        yield (
            "training",
            f"preset {manifest.preset}, {done} in {format_duration(run.seconds)} ({_ending(run.stopped)})",
        )
        if last.resume:
            plan, count = last.resume.plan, len(last.resume.plan.segments)
            early = ", ends before the learning rate is zero" if plan.ends_early else ""
            yield "plan", f"{plan.steps:,} steps, {count} learning-rate segment{'' if count == 1 else 's'}{early}"
        rate, batch = f"learning rate {training.lr:g}", f"batch size {training.batch_size}"
        yield "optimizer", f"{training.optimizer}, {rate}, {batch}, seed {run.seed}"
        yield "device", f"{run.device}, {run.precision}"
    else:
        yield "training", f"preset {manifest.preset}, not recorded"
    if len(run.segments) > 1 or (run.segments and run.segments[0].why != "begun"):
        yield "segments", "\n".join(map(_segment, run.segments))
    if best:
        yield "best", f"{best.title} {best.value:.5f} ({best.parameterization}-prediction), epoch {best.epoch}"
    yield "sampling", describe_sampling(config.sampling)
    yield "versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield "size", f"{sum(record.size for record in manifest.files.values()) / 1e6:.1f} MB"
    yield "digest", checkpoint.digest


def describe_sampling(sampling: "SamplingConfig | Provenance") -> str:
    """Sampler, steps and guidance."""
    guidance = "no guidance" if sampling.guidance == 1 else f"guidance {sampling.guidance:g}"
    if sampling.guidance != 1 and sampling.guidance_interval != (0, 1):
        guidance += " for t/T in {:g}..{:g}".format(*sampling.guidance_interval)
    return f"{sampling.sampler}, {sampling.steps} steps, {guidance}"


def _ending(stopped: str) -> str:
    return {
        "running": "not finished",
        "done": "completed",
        "early": "early stopping",
        "interrupted": "interrupted",
    }.get(stopped, stopped)


def _segment(segment: SegmentRecord) -> str:
    exactly = "" if segment.exact else ", not bit-exact"
    rate = f"learning rate {segment.peak_lr:g}"
    return f"{segment.why} at step {segment.step:,} of {segment.planned_steps:,}, {rate}, {segment.device}{exactly}"
