"""Models on disk: layout, manifest, durable commits, one loader. No torch."""

from .checkpoint import Checkpoint
from .manifest import (
    DatasetRecord,
    FileRecord,
    Manifest,
    Metric,
    ResumeRecord,
    RunRecord,
    SegmentRecord,
)
from .store import Damaged, Registry, last_of
from .writer import ModelWriter

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
]
