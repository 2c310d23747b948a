"""Models on disk: layout, manifest, atomic checkpoints, one loader. No torch."""

from ddpmctl.registry.checkpoint import Checkpoint
from ddpmctl.registry.manifest import (
    DatasetRecord,
    FileRecord,
    Manifest,
    Metric,
    ResumeRecord,
    RunRecord,
    SegmentRecord,
)
from ddpmctl.registry.pointers import last_of, last_readable
from ddpmctl.registry.store import Damaged, Registry, open_model
from ddpmctl.registry.writer import ModelWriter

__all__ = [
    "Checkpoint",
    "Damaged",
    "DatasetRecord",
    "FileRecord",
    "Manifest",
    "Metric",
    "ModelWriter",
    "Registry",
    "ResumeRecord",
    "RunRecord",
    "SegmentRecord",
    "last_of",
    "last_readable",
    "open_model",
]
