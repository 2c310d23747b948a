"""An overview of a registry."""

from dataclasses import dataclass

from ddpmctl.registry.checkpoint import Checkpoint
from ddpmctl.registry.manifest import Metric
from ddpmctl.registry.pointers import last_readable
from ddpmctl.registry.store import Damaged, Registry


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One model."""

    name: str
    dataset: str
    preset: str
    epochs: int
    """Epochs that its run has begun, which may be more than the best checkpoint has seen."""
    best: Metric | None
    parameters: int
    bytes: int
    """Of the best checkpoint's files."""
    created: str
    """UTC, ISO 8601."""
    path: str
    in_use: bool
    """Whether it is the default model."""


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that can be resumed."""

    name: str
    steps: int
    planned_steps: int
    stopped: str
    in_training: bool
    """Whether a process is working on it now."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Models, the newest first; runs that can be resumed; and what cannot be opened."""

    models: list[ModelSummary]
    unfinished: list[UnfinishedRun]
    damaged: list[Damaged]


def list_models(registry: Registry) -> Listing:
    """Read the manifests of all models and runs."""
    runs = list(registry.unfinished())
    entries = [*registry.survey(), *(entry for entry in runs if isinstance(entry, Damaged))]
    whole = [entry for entry in entries if isinstance(entry, Checkpoint)]
    whole.sort(key=lambda checkpoint: checkpoint.manifest.created, reverse=True)
    default = registry.default()
    return Listing(
        models=[_summary(checkpoint, default) for checkpoint in whole],
        unfinished=[_progress(last, registry) for last in runs if isinstance(last, Checkpoint)],
        damaged=[entry for entry in entries if isinstance(entry, Damaged)],
    )


def _summary(checkpoint: Checkpoint, default: str | None) -> ModelSummary:
    manifest = checkpoint.manifest
    return ModelSummary(
        name=checkpoint.name,
        dataset=manifest.dataset.name,
        preset=manifest.preset,
        epochs=last_readable(checkpoint).manifest.run.epochs,
        best=manifest.best,
        parameters=manifest.parameters,
        bytes=checkpoint.size,
        created=manifest.created,
        path=str(checkpoint.path),
        in_use=checkpoint.name == default,
    )


def _progress(last: Checkpoint, registry: Registry) -> UnfinishedRun:
    run = last.manifest.run
    return UnfinishedRun(last.name, run.step, run.planned_steps, run.stopped, registry.in_training(last.name))
