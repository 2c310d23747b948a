"""Teachers and the settings of their students. No torch."""

from dataclasses import replace

from ddpmctl.config import ClosedFormConfig, Config, DistillationConfig, SamplingConfig
from ddpmctl.errors import CheckpointError, Command, Setting, UsageError
from ddpmctl.registry import Checkpoint, Registry
from ddpmctl.training.run_spec import RunSpec

STUDENT_STEPS = (1, 2, 4)
TEACHER_STEPS = 8
"""DDIM steps of a teacher that is not a student itself, over the student's chain: with more, each step of training
costs more, and a student of the same minutes is worse (measured)."""

CLOSED_FORM_END = {4: 0.75, 2: 0.65, 1: 0.6}
"""By the steps of a student, the t/T at which it takes over from the Gaussian denoiser (measured)."""

CLOSED_FORM_STEPS = 6

CLOSED_FORM_GUIDANCE = 0.75
"""Its guidance beyond 1, relative to the teacher's: with as much, the student's images are less diverse (measured)."""

LEARNING_RATE = 2 / 3
"""Peak learning rate of a student, relative to that of its teacher."""

VALIDATION_IMAGES = 1000
"""At most, since each costs the steps of the teacher."""

ADJUSTABLE = frozenset(
    {"name", "data_dir", "epochs", "max_time", "max_steps", "patience", "batch_size", "lr", "clip", "accumulate",
     "compile", "device", "precision", "seed", "force", "checkpoint_every"}
)  # fmt: skip
"""Fields of `RunSpec` that are free for a student."""


def student_spec(teacher: Checkpoint, steps: int) -> RunSpec:
    """The specification of a student of ``steps`` steps: trained for an epoch on the images of its teacher."""
    if steps not in STUDENT_STEPS:
        raise UsageError(f"steps must be one of {', '.join(map(str, STUDENT_STEPS))}, not {steps}", Setting("steps", 4))
    manifest = teacher.manifest
    config, dataset = manifest.config, manifest.dataset
    if not dataset.digest:
        raise UsageError(
            f"the images that '{teacher.name}' was trained on are not recorded", "distill a model that was trained here"
        )
    return RunSpec(
        preset=manifest.preset,
        config=_student_config(teacher, steps),
        dataset=dataset.name,
        fit=dataset.fit or None,
        channels=config.model.channels if dataset.name.startswith("folder:") else None,
    )


def open_teacher(registry: Registry, student: DistillationConfig) -> Checkpoint:
    """The teacher of a student, found by its weights if it was renamed; raises a `CheckpointError` without it."""
    names = registry.names()
    for name in sorted(names, key=lambda name: name != student.teacher):
        try:
            found = registry.open(name)
        except CheckpointError:
            continue
        if found.digest == student.digest:
            return found
    problem = "has changed since" if student.teacher in names else "is not in the registry"
    after = " its student was distilled" if student.teacher in names else ""
    raise CheckpointError(
        f"the teacher '{student.teacher}' {problem}{after}: no model has the weights {student.digest[:12]}",
        "restore it, or ",
        Command(f"ddpmctl distill MODEL --steps {student.steps}", f"ddpmctl.distill(model, {student.steps})"),
    )


def _student_config(teacher: Checkpoint, steps: int) -> Config:
    config = teacher.manifest.config
    of_teacher = config.distillation.steps if config.distillation else TEACHER_STEPS
    substeps, rest = divmod(of_teacher, steps)
    if rest or substeps < 2:
        raise UsageError(
            f"'{teacher.name}' has {of_teacher} steps: {steps} steps are not fewer by a whole factor",
            Setting("steps", of_teacher // 2),
        )
    # A prediction of the noise says nothing about the image at the first of few steps; nor may a pixel leave its range.
    diffusion = replace(config.diffusion, parameterization="v", clip_x0=True)
    training = replace(
        config.training,
        epochs=1,
        lr=config.training.lr * LEARNING_RATE,
        decay=1.0 - config.training.warmup,
        label_dropout=0.0,
        stratified=True,
        focus_share=0.0,
        validation_images=min(config.training.validation_images, VALIDATION_IMAGES),
        one_timestep=False,
    )
    return replace(
        config,
        diffusion=diffusion,
        training=training,
        sampling=SamplingConfig(sampler="ddim", steps=steps, guidance=1.0, guidance_interval=(0.0, 1.0)),
        distillation=DistillationConfig(
            teacher=teacher.name,
            digest=teacher.digest,
            steps=steps,
            substeps=substeps,
            parameterization=config.diffusion.parameterization,
            clip_x0=config.diffusion.clip_x0,
            guidance=config.sampling.guidance,
            guidance_interval=config.sampling.guidance_interval,
            closed_form=_closed_form(config, steps),
        ),
    )


def _closed_form(teacher: Config, steps: int) -> ClosedFormConfig | None:
    if teacher.distillation:
        return teacher.distillation.closed_form
    if not teacher.model.gaussian_rank:
        return None
    return ClosedFormConfig(
        end=CLOSED_FORM_END[steps],
        steps=CLOSED_FORM_STEPS,
        guidance=1 + CLOSED_FORM_GUIDANCE * (teacher.sampling.guidance - 1),
        guidance_interval=teacher.sampling.guidance_interval,
    )
