"""Manifests that do not hold what they must."""

import json
import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from ddpmctl.errors import CheckpointError
from ddpmctl.registry import Manifest, Registry
from ddpmctl.registry.manifest import SCHEMA
from tests.builders import register, reseal

from .test_checkpoint import truncated

SHRAPNEL = [
    b"",
    b"0",
    b"-1",
    b"1e999",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"\\u0000",
    b"9" * 5000,
]


def test_a_truncated_manifest_does_not_go_unseen(registry: Registry) -> None:
    path = register(registry, "tiny") / "manifest.json"
    # A prime stride meets every kind of place and saves most of the time.
    for data in islice(truncated(path.read_bytes().rstrip()), 0, None, 7):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"^damaged checkpoint: .*manifest\.json: "):
            registry.open("tiny")


def test_an_altered_manifest_is_read_or_refused_but_no_crash(registry: Registry) -> None:
    text = (register(registry, "tiny") / "manifest.json").read_bytes()
    refused = 0
    for seed in range(500):
        generator = random.Random(seed)
        data = bytearray(text)
        for _ in range(generator.randint(1, 3)):
            start = generator.randrange(len(data))
            data[start : start + generator.randint(0, 4)] = generator.choice(SHRAPNEL)
        try:
            read = Manifest.from_json(reseal(data.decode()))
        except ValueError as error:
            assert str(error)
            refused += 1
        else:
            assert Manifest.from_json(read.to_json()) == read
    assert 250 < refused < 500


def edited(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda values: values | changes


def inside(table: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda values: values | {table: values[table] | changes}


RATES = {"start": 0, "end": 9, "level": 1.0, "warmup_steps": 0, "decay_steps": 9}
PLAN = {"steps": 9, "steps_per_epoch": 3, "batch_size": 8, "peak_lr": 0.1, "limit": None, "segments": [RATES]}
RESUME = {"plan": PLAN, "device": "cpu", "within_epochs": False, "epochs_without_better": 0, "rollbacks": 0}


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda values: {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda values: [values], "it is not a JSON object"),
        (
            edited(schema=SCHEMA + 1),
            f"it has schema {SCHEMA + 1} but this ddpmctl supports up to {SCHEMA}: upgrade ddpmctl",
        ),
        (
            lambda values: {"schema": 99},
            f"it has schema 99 but this ddpmctl supports up to {SCHEMA}: upgrade ddpmctl",
        ),
        (
            edited(schema=SCHEMA - 1),
            f"it has schema {SCHEMA - 1} and was written by an earlier version of ddpmctl: train the model again",
        ),
        (edited(schema=0), "it has no valid schema version"),
        (edited(schema="1"), "it has no valid schema version"),
        (edited(schema=True), "it has no valid schema version"),
        (without("schema"), "it has no valid schema version"),
        (without("config"), "Object missing required field `config`"),
        (without("created"), "Object missing required field `created`"),
        (edited(code="import os"), "unknown field code - at `$`"),
        (edited(parameters="6"), "Expected `int`, got `str` - at `$.parameters`"),
        (edited(classes=["a", "b"]), "the number of classes must equal config.model.num_classes"),
        (
            edited(classes=[*"abcdefghi", "A"]),
            "the class names 'a' and 'A' are ambiguous: they differ only in case, accents or separators",
        ),
        (edited(created="2000-01-01"), "created must have a time zone"),
        (edited(created="yesterday"), "Invalid isoformat string: 'yesterday'"),
        (edited(files={}), "files must be weights.safetensors and history.csv"),
        (
            edited(files={"../../x": {"sha256": "0" * 64, "size": 1}}),
            "files must be weights.safetensors and history.csv",
        ),
        (
            edited(files={"weights.safetensors": {"sha256": "0", "size": 1}}),
            "sha256 must be 64 hexadecimal digits - at `$.files[...]`",
        ),
        (
            edited(files={"weights.safetensors": {"sha256": "0" * 64, "size": -1}}),
            "size must be in 0..4294967296 - at `$.files[...]`",
        ),
        (edited(files=[]), "Expected `object`, got `array` - at `$.files`"),
        (
            edited(files={"weights.safetensors": {"sha256": "0" * 64, "size": 10**12}}),
            "size must be in 0..4294967296 - at `$.files[...]`",
        ),
        (inside("run", seconds=float("nan")), "NaN is not a number in JSON"),
        (inside("run", step=1_000_001), "the counts of the run are inconsistent - at `$.run`"),
        (inside("run", step=-1), "the counts of the run are inconsistent - at `$.run`"),
        (inside("run", stopped="never"), "Invalid enum value 'never' - at `$.run.stopped`"),
        (edited(best=None), "metric requires best"),
        (edited(resume={}), "Object missing required field `plan` - at `$.resume`"),
        (edited(resume=RESUME | {"plan": PLAN | {"steps": 0}}), "the plan is inconsistent - at `$.resume.plan`"),
        (
            edited(resume=RESUME | {"plan": PLAN | {"segments": [RATES, RATES]}}),
            "the plan is inconsistent - at `$.resume.plan`",
        ),
        (
            edited(resume=RESUME | {"plan": PLAN | {"segments": [RATES | {"level": 2}]}}),
            "the plan is inconsistent - at `$.resume.plan.segments[0]`",
        ),
        (
            edited(resume=RESUME | {"plan": PLAN | {"steps": 1_000_000, "segments": [RATES | {"end": 1_000_000}]}}),
            "files must be weights.safetensors and state.safetensors and history.csv",
        ),
    ],
)
def test_a_manifest_that_does_not_hold_what_it_must_is_refused(
    registry: Registry, edit: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    path = register(registry, "tiny") / "manifest.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError) as caught:
        registry.open("tiny")
    assert caught.value.message == f"damaged checkpoint: {path}: {complaint}"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"null", b"7", b"[" * 100_000, b'{"schema": 1' + b" " * 2_000_000 + b"}", b"NaN"],
    ids=["empty", "cut", "no text", "null", "number", "deep", "huge", "not a number"],
)
def test_a_manifest_that_is_none_is_refused(registry: Registry, data: bytes) -> None:
    path = register(registry, "tiny") / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"^damaged checkpoint: .*manifest\.json: "):
        registry.open("tiny")


def test_a_changed_figure_does_not_go_unseen(registry: Registry) -> None:
    path = register(registry, "tiny") / "manifest.json"
    text = path.read_text()
    for old, new in (('"seed": 0', '"seed": 1'), ("0.5", "0.4"), ("  ", "   ")):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(CheckpointError, match=r"manifest\.json: its checksum does not match its content$"):
            registry.open("tiny")


def test_another_manifest_than_the_pointer_means_does_not_go_unseen(registry: Registry) -> None:
    path = register(registry, "tiny") / "manifest.json"
    other = register(registry, "other", value=0.25) / "manifest.json"
    path.write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match=r"refers to a different version of 00000010$"):
        registry.open("tiny")
