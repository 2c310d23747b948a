"""Declaration of an experiment: arms that differ in one setting, the images compared, and the claim checked.

`ExperimentRunner` runs it. Its texts are in ``<lesson>.txt.j2``, one block for each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpmctl.config import load_preset
from ddpmctl.data.dataset import Dataset
from ddpmctl.lessons.figures import Curve
from ddpmctl.lessons.metrics import ImageEvaluator, ImageMetrics
from ddpmctl.lessons.result import Network, Paper, Table
from ddpmctl.sampling.engine import Engine
from ddpmctl.sampling.loop import Images

PRESET = load_preset("quick")
"""The common preset of all networks, small and fast."""

SETTINGS: Mapping[str, Any] = {
    "preset": PRESET.name,
    "target": "epsilon",
    "gaussian_rank": 0,
}
"""`RunSpec` settings of all networks: predicting the noise is the fix of the first lesson, and a closed-form denoiser
would hide the mistakes of the others."""

MAX_CLASSES = 10
"""Columns of a grid."""

BATCH_SIZE = 50
"""Batch size where the engine does not split into batches itself."""

SETTLED = 0.1
"""Share of the steps at the start whose gradient norms are ignored: they are always large."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A network to train: `RunSpec` settings that override the common ones."""

    name: str
    role: str
    settings: Mapping[str, Any] = field(default_factory=dict)


FIX = Arm("fix", "the fix")
"""The network without a mistake, shared by all experiments."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms trained for the same number of steps: as many as the fix takes in a share of the budget."""

    trap: Arm
    fix: Arm = FIX
    share: float = 1.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class TrainedArm:
    """A trained arm, with loss and gradient norm before clipping of each step, float32[steps]."""

    network: Network
    engine: Engine
    losses: Curve
    norms: Curve

    @property
    def settled_norms(self) -> Curve:
        """The norms after the first steps; a NaN if there are none."""
        norms = self.norms[int(SETTLED * len(self.norms)) :]
        return norms if len(norms) else np.array([np.nan], np.float32)


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images that are measured, sampled from one of the arms of the first pair.

    Attributes:
        key: key of its metrics in texts and conditions.
        name: name in tables.
    """

    key: str
    name: str
    from_trap: bool
    sample: Callable[[Engine, list[int], int], Images] = Engine.generate


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An experiment whose arms are trained and whose images are measured.

    Attributes:
        pairs: mistake and fix of each pair by its name; ``trap`` and ``fix`` are those of the first.
        metrics: of each set of images by its key, and of ``real`` ones.
    """

    data: Dataset
    evaluator: ImageEvaluator
    seed: int
    count: int
    pairs: Mapping[str, tuple[TrainedArm, TrainedArm]]
    trap: TrainedArm
    fix: TrainedArm
    metrics: dict[str, ImageMetrics]

    @property
    def titles(self) -> tuple[str, ...]:
        """Classes shown in a grid."""
        return self.data.classes[:MAX_CLASSES]

    def images(self, image_set: ImageSet, labels: list[int]) -> Images:
        """Sample a set for these labels."""
        return image_set.sample((self.trap if image_set.from_trap else self.fix).engine, labels, self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Measurements of an experiment in addition to those of its images.

    Attributes:
        tables: by the name of the block that has their note.
        figures: PNG by the suffix of its file, which is also the name of the block that has its caption.
        values: for the texts.
    """

    tables: dict[str, Table]
    values: dict[str, Any]
    figures: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One lesson, declared.

    Attributes:
        pairs: the images of the first one are compared.
        sheet: rows of the grid of all classes, by their titles; real images are added.
        names: names of mistake and fix in curves and trajectories.
        reproduced: the condition under which the claim holds.
        chains: a GIF of both trajectories; None for the default one.
    """

    lesson: str
    pairs: tuple[Pair, ...]
    image_sets: tuple[ImageSet, ...]
    sheet: Mapping[str, ImageSet]
    names: tuple[str, str]
    papers: tuple[Paper, ...]
    reproduced: Callable[[Trial], bool]
    analyse: Callable[[Trial], Analysis]
    chains: Callable[[Trial], bytes] | None = None
    loss_title: str = "loss"

    @property
    def budgets(self) -> float:
        """Total training budget in addition to that of `FIX`."""
        return sum(pair.share for pair in self.pairs for arm in (pair.trap, pair.fix) if arm is not FIX)
