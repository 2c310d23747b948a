"""`ddpmctl.evaluate` as in a notebook: typed results, progress through a callback, nothing printed."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

import ddpmctl
from ddpmctl.errors import UsageError
from ddpmctl.registry import Registry
from ddpmctl.registry.evaluations import stored_evaluation


@pytest.fixture
def cached(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model, and one cache for all tests, so that the classifier is trained once."""
    monkeypatch.setenv("DDPMCTL_HOME", str(tiny_home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "evaluated"))
    monkeypatch.setattr("ddpmctl.evaluation.classifier.MIN_STEPS", 200)  # enough for drawn digits


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_one_setting_is_measured_saved_and_shown(capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[str, int, int]] = []
    evaluation = ddpmctl.evaluate("tiny", n=100, steps=2, device="cpu", progress=lambda *call: calls.append(call))
    (result,) = evaluation.results
    assert evaluation.metrics is result.metrics
    assert (result.sampling.steps, result.nfe, result.metrics.count) == (2, 4, 100)
    assert result.metrics.real_accuracy > 0.9
    assert calls[-1] == ("sampling", 200, 200)
    assert evaluation.images.shape == (100, 32, 32)
    saved = stored_evaluation(Registry().open("tiny"))
    assert saved is not None
    assert {name: saved[name] for name in result.to_dict()} == json.loads(json.dumps(result.to_dict()))
    with Image.open(io.BytesIO(evaluation.nearest_grid())) as sheet:
        assert sheet.width > 10 * 3 * 32
    assert all(0 <= score <= 1 for score in evaluation.classification_accuracy_score())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_sweep_measures_every_combination(capfd: pytest.CaptureFixture[str]) -> None:
    evaluation = ddpmctl.evaluate("tiny", n=100, sweep={"steps": [1, 2], "guidance": [1.0, 1.5]}, device="cpu")
    assert [(each.sampling.steps, each.sampling.guidance, each.nfe) for each in evaluation.results] == [
        (1, 1.0, 1), (1, 1.5, 2), (2, 1.0, 2), (2, 1.5, 4),
    ]  # fmt: skip
    assert evaluation.plot()[:4] == b"\x89PNG"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("cached")
def test_a_setting_that_does_not_exist_is_refused_before_anything_is_sampled() -> None:
    with pytest.raises(UsageError, match="unknown setting to sweep 'seeds'"):
        ddpmctl.evaluate("tiny", n=100, sweep={"seeds": [1]})
    with pytest.raises(UsageError, match=r"n must be in 100\.\.1000000, not 99") as caught:
        ddpmctl.evaluate("tiny", n=99)
    assert caught.value.hint == "n=2000"
