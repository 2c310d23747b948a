"""Runs experiments: trains their arms, measures their images, draws their figures and renders their texts."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddpmctl.data import OWN, default_sample_size, load_dataset
from ddpmctl.devices import choose_device, choose_precision, describe_device
from ddpmctl.durations import format_duration
from ddpmctl.errors import DataError, DdpmctlError, Setting, UsageError
from ddpmctl.evaluation.api import Progress, no_progress
from ddpmctl.imaging.files import write_atomic
from ddpmctl.lessons import batchnorm, one_shot, pixel_range
from ddpmctl.lessons.arms import ArmTrainer
from ddpmctl.lessons.experiment import PRESET, SETTINGS, Experiment, Trial
from ddpmctl.lessons.figures import CHAIN, CHAIN_STEPS, both_chains, curves, sheet
from ddpmctl.lessons.metrics import COLUMNS, ImageEvaluator
from ddpmctl.lessons.page import render_page
from ddpmctl.lessons.result import LESSONS, PAGE, Conditions, Picture, Result, Table
from ddpmctl.paths import check_folder
from ddpmctl.registry import Registry
from ddpmctl.templates import load_template
from ddpmctl.training.execution import Execution
from ddpmctl.training.run_spec import RunSpec

log = logging.getLogger("ddpmctl")

EXPERIMENTS = {each.lesson: each for each in (one_shot.EXPERIMENT, pixel_range.EXPERIMENT, batchnorm.EXPERIMENT)}

COUNTS = range(50, 100_001)


class Texts:
    """The texts of a lesson: the blocks of its template, with the measured values in them."""

    def __init__(self, lesson: str, values: Mapping[str, Any]) -> None:
        self.template = load_template("ddpmctl.lessons", f"{lesson}.txt.j2")
        self.values = {
            **values, "chain": CHAIN, "chain_steps": CHAIN_STEPS, "percent": "{:.1%}".format, "number": "{:.3g}".format,
        }  # fmt: skip

    def paragraphs(self, block: str) -> tuple[str, ...]:
        """The paragraphs of a block, each in one line."""
        text = "".join(self.template.blocks[block](self.template.new_context(self.values)))
        return tuple(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))

    def __getitem__(self, block: str) -> str:
        return " ".join(self.paragraphs(block))


@dataclass(frozen=True, slots=True)
class ExperimentRunner:
    """Runs experiments in a folder, which gets their figures.

    Attributes:
        count: images per set.
    """

    folder: Path
    arms: ArmTrainer
    evaluator: ImageEvaluator
    count: int

    @classmethod
    def create(
        cls, folder: Path, spec: RunSpec, budget: float = 60, count: int = 500, progress: Progress = no_progress
    ) -> "ExperimentRunner":
        """Load the data, and its classifier if one is available.

        Args:
            spec: dataset, device, precision and seed of all arms.
            budget: seconds of training per network.
        """
        device = choose_device(spec.device)
        execution = Execution(device=device, precision=choose_precision(spec.precision, device)[0])
        model = PRESET.config.model
        usual = default_sample_size(model, spec.dataset, device.type, execution.precision)
        side = None if usual == model.sample_size else model.sample_size
        spec = replace(spec.checked(), **SETTINGS, sample_size=side)
        train = load_dataset(spec.dataset, model.image_size, spec.data_dir, fit=spec.fit or "", notice=log.warning)
        channels = int(train.images.shape[1]) if spec.dataset.startswith(f"{OWN}:") else None
        test = load_dataset(
            spec.dataset, model.image_size, spec.data_dir, train=False, fit=spec.fit or "", channels=channels
        )
        evaluator = ImageEvaluator(
            train, test, device, lambda done, total: progress("training the classifier", done, total)
        )
        arms = ArmTrainer(Registry(folder), spec, train, execution, budget, progress)
        return cls(folder, arms, evaluator, count)

    def run(self, experiment: Experiment) -> Result:
        """Run one experiment."""
        pairs = {pair.name: self.arms.train_pair(pair) for pair in experiment.pairs}
        trap, fix = next(iter(pairs.values()))
        trial = Trial(
            data=self.arms.data, evaluator=self.evaluator, seed=self.arms.spec.seed, count=self.count,
            pairs=pairs, trap=trap, fix=fix, metrics={},
        )  # fmt: skip
        _, labels = self.evaluator.real_images(self.count)
        for image_set in experiment.image_sets:
            trial.metrics[image_set.key] = self.evaluator.measure(trial.images(image_set, labels), labels)
        trial.metrics["real"] = self.evaluator.measure_real(self.count)
        reproduced, analysis = experiment.reproduced(trial), experiment.analyse(trial)
        texts = Texts(experiment.lesson, {**trial.metrics, **analysis.values, "reproduced": reproduced})
        names = (*(image_set.name for image_set in experiment.image_sets), "real images")
        comparison = Table(
            title=f"Metrics of {self.count} images per set",
            columns=("", *COLUMNS),
            rows=tuple((name, *each.cells()) for name, each in zip(names, trial.metrics.values(), strict=True)),
            note=f"{texts['comparison_note']} The Frechet distance of the real images is the real-data floor: that of "
            "the same number of real test images.",
        )
        details = (replace(table, note=texts[name]) for name, table in analysis.tables.items())
        return Result(
            lesson=experiment.lesson,
            reproduced=reproduced,
            why=texts.paragraphs("why"),
            tables=(comparison, *details),
            pictures=tuple(self._pictures(experiment, trial, analysis.figures, texts)),
            networks=tuple(arm.network for pair in pairs.values() for arm in pair),
            papers=experiment.papers,
            conditions=self._conditions(),
            **{name: texts[name] for name in ("title", "trap", "fix", "claim", "verdict", "formula")},
        )

    def _pictures(
        self, experiment: Experiment, trial: Trial, more: Mapping[str, bytes], texts: Texts
    ) -> Iterator[Picture]:
        """Draw the figures and write them into the folder."""
        name, labels = experiment.lesson, list(range(len(trial.titles)))
        rows = {title: trial.images(image_set, labels) for title, image_set in experiment.sheet.items()}
        rows["real"] = self.evaluator.real_images(len(labels))[0]
        arms = dict(zip(experiment.names, (trial.trap, trial.fix), strict=True))
        if experiment.chains:
            chains = experiment.chains(trial)
        else:
            chains = both_chains(trial.trap.engine, trial.fix.engine, labels, trial.seed, experiment.names)
        panels = {
            experiment.loss_title: {title: arm.losses for title, arm in arms.items()},
            "gradient norm": {title: arm.norms for title, arm in arms.items()},
        }
        figures = {
            "sheet": (f"{name}.png", sheet(rows, trial.titles)),
            "chains": (f"{name}.gif", chains),
            "curves": (f"{name}-curves.png", curves(panels)),
            **{suffix: (f"{name}-{suffix}.png", data) for suffix, data in more.items()},
        }
        for block, (file, data) in figures.items():
            write_atomic(self.folder / file, data)
            yield Picture(file=file, caption=texts[block])

    def _conditions(self) -> Conditions:
        arms = self.arms
        return Conditions(
            dataset=arms.spec.dataset,
            budget=arms.budget,
            seed=arms.spec.seed,
            device=describe_device(arms.execution.device),
            precision=arms.execution.precision,
            count=self.count,
            classifier=self.evaluator.classifier,
            date=datetime.now(UTC).date().isoformat(),
        )


def run_lessons(
    lessons: Sequence[str],
    folder: Path,
    spec: RunSpec,
    *,
    budget: float = 60,
    count: int = 500,
    progress: Progress = no_progress,
) -> Iterator[Result]:
    """Run lessons one after the other; each is saved and added to the page of the folder before it is yielded.

    Args:
        lessons: some of `LESSONS`.
        spec: dataset, device, precision and seed.
        budget: seconds of training per network.
        count: images per measured set.
    """
    if count not in COUNTS:
        raise UsageError(f"n must be in {COUNTS.start}..{COUNTS.stop - 1}, not {count}", Setting("n", 500))
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot create the folder {folder}: {error.strerror}"
        raise DdpmctlError(message, "choose a writable folder with ", Setting("output")) from error
    seconds = budget * (1 + sum(EXPERIMENTS[lesson].budgets for lesson in lessons))
    log.info("%s: about %s of training plus measurements", ", ".join(lessons), format_duration(seconds))
    runner = ExperimentRunner.create(folder, spec, budget, count, progress)
    for lesson in lessons:
        result = runner.run(EXPERIMENTS[lesson])
        save(result, folder)
        yield result


def save(result: Result, folder: Path) -> None:
    """Write a result, and the page of all results in the folder."""
    write_atomic(folder / f"{result.lesson}.json", json.dumps(result.to_dict(), indent=2).encode())
    results = []
    for lesson in LESSONS:
        path = folder / f"{lesson}.json"
        if not path.exists():
            continue
        try:
            found = Result.read(path)
            render_page([found], folder)
        except (DataError, OSError) as error:
            log.warning("%s is omitted from the page: %s", lesson, error)
            continue
        results.append(found)
    write_atomic(folder / PAGE, render_page(results, folder).encode())
