"""ONNX files, computed by onnxruntime."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpmctl.errors import DdpmctlError
from ddpmctl.exports.api import export
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.exports.support import CONFIGS

README = Path(__file__).parents[2] / "ddpmctl" / "exports" / "README.md"


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_onnxruntime_predicts_what_torch_does(registry: Registry, tmp_path: Path, name: str) -> None:
    import onnxruntime

    export(registry.open(name), tmp_path / "x.onnx", "CC0-1.0")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    engine = Engine(registry.open(name), "cpu", "fp32")
    model, length = engine.config.model, engine.config.diffusion.timesteps
    labels = model.num_classes + model.supports_guidance
    for batch in (1, 2, 7):
        generator = torch.Generator().manual_seed(batch)
        x = torch.randn(batch, model.channels, model.sample_size, model.sample_size, generator=generator)
        t = torch.randint(length, (batch,), generator=generator)
        label = torch.randint(labels, (batch,), generator=generator)
        with torch.inference_mode():
            outputs = engine.network(x, t, label)
            for k in range(batch):
                if t[k] >= engine.config.chain_length:
                    scale = 1.5 if t[k] <= 0.9 * length else 1.0
                    row = slice(k, k + 1)
                    outputs[k] = engine.sampling_step.closed_form(x[row], t[row], label[row], scale)[0]
            expected = outputs.numpy()
        (output,) = session.run(None, {"x": x.numpy(), "t": t.numpy(), "label": label.numpy()})
        np.testing.assert_allclose(output, expected, atol=1e-4 * max(1, np.abs(expected).max()))
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["licence"] == "CC0-1.0" and metadata["parameterization"] == engine.config.diffusion.parameterization
    assert len(json.loads(metadata["classes"])) == model.num_classes
    assert len(json.loads(metadata["alpha_bar"])) == length
    if name == "beginning":
        # Three steps of the closed form down to 0.7 T, then four of the network.
        assert json.loads(metadata["ddim_timesteps"]) == [999, 899, 799, 699, 524, 349, 174]


@pytest.mark.slow
def test_the_program_in_the_readme_samples(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are those of the program's own sampler from the same noise."""
    from ddpmctl.core.samplers import ddim, trailing_timesteps

    export(registry.open("guided"), tmp_path / "model.onnx")
    program = README.read_text(encoding="utf-8").split("```py\n")[1].split("```")[0]
    assert len(program.strip().splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(program, names)
    assert (tmp_path / "digits.png").stat().st_size > 1000
    engine = Engine(registry.open("guided"), "cpu", "fp32")
    noise = np.random.default_rng(0).standard_normal((10, 1, 32, 32), np.float32)
    labels = list(range(10))

    def predict_x0(x: torch.Tensor, t: int) -> torch.Tensor:
        cond, uncond = engine.predict_x0(x, t, labels), engine.predict_x0(x, t, [10] * 10)
        return (uncond + 1.3 * (cond - uncond)).clamp(-1, 1)

    timesteps = trailing_timesteps(1000, 50)
    steps = ddim(predict_x0, engine.diffusion.schedule, torch.from_numpy(noise), timesteps, lambda: torch.zeros(1))
    expected = list(steps)[-1].x0.numpy()
    np.testing.assert_allclose(np.asarray(names["x0"]), expected, atol=2e-3)


def test_without_the_extra_it_says_what_to_install(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpmctl.exports.onnx.find_spec", lambda name: None)
    with pytest.raises(DdpmctlError, match="onnx and onnxscript not installed") as caught:
        export(registry.open("guided"), tmp_path / "x.onnx")
    assert str(caught.value.hint) == "in the project's folder: pip install '.[onnx]'"
    assert list(tmp_path.iterdir()) == []
