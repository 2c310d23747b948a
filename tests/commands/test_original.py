"""Checkpoints of the original scripts: the same digits from today's code, and nothing else is taken for one."""

import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpmctl.engine import Engine
from ddpmctl.original import import_original
from ddpmctl.registry import Registry
from tests.conftest import Cli

from .support import complaint, tree

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class Original(nn.Module):
    """A network with the parts, and the names of the parts, of the original scripts."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for first in (inputs, outputs):
                layers += [nn.Conv2d(first, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.LeakyReLU(0.1)]
            return nn.Sequential(*layers)

        self.label_embedding = nn.Embedding(10, 256)
        self.embedding_projector = nn.Linear(512, 512)
        self.down1, self.down2, self.down3 = block(1, 64), block(64, 128), block(128, 256)
        self.bottleneck = block(256, 512)
        self.up1, self.up2, self.up3 = (
            nn.ConvTranspose2d(inputs, outputs, 2, stride=2) for inputs, outputs in ((64, 64), (128, 128), (512, 256))
        )
        self.decode3, self.decode2, self.decode1 = block(512, 128), block(256, 64), block(128, 64)
        self.final_out = nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        frequencies = torch.exp(torch.arange(128) * -(math.log(10000) / 127))
        angles = t[:, None].float() * frequencies[None]
        time = torch.cat([angles.sin(), angles.cos()], dim=-1)
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        third = self.down3(F.max_pool2d(second, 2))
        told = self.embedding_projector(torch.cat([self.label_embedding(label), time], dim=1))
        h = self.bottleneck(F.max_pool2d(third, 2)) + told[:, :, None, None]
        h = self.decode3(torch.cat([self.up3(h), third], dim=1))
        h = self.decode2(torch.cat([self.up2(h), second], dim=1))
        return self.final_out(self.decode1(torch.cat([self.up1(h), first], dim=1)))  # type: ignore[no-any-return]


@torch.no_grad()
def original_chain(model: Original, labels: list[int], seed: int, length: int) -> list[Tensor]:
    """The first steps of the original sampling: x_999 and so on, in float32, with the variance beta."""
    betas = torch.linspace(1e-4, 0.02, 1000)
    alphas, alpha_bar = 1 - betas, torch.cumprod(1 - betas, dim=0)
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(labels))]

    def noise() -> Tensor:
        return torch.stack([torch.randn(1, 32, 32, generator=generator) for generator in generators])

    x, label, seen = noise(), torch.tensor(labels), []
    for t in range(999, 999 - length, -1):
        epsilon = model(x, torch.full((len(labels),), t), label)
        x = (x - (1 - alphas[t]) / (1 - alpha_bar[t]).sqrt() * epsilon) / alphas[t].sqrt()
        if t > 0:
            x = x + betas[t].sqrt() * noise()
        seen.append(x)
    return seen


@pytest.fixture
def model() -> Original:
    torch.manual_seed(0)
    return Original()


@pytest.fixture
def checkpoint(model: Original, tmp_path: Path) -> Path:
    return save(tmp_path / "best_mnist_ddpm.pt", model.state_dict())


def save(path: Path, state: dict[str, Any]) -> Path:
    metadata = {"creator": "someone", "version": 2, "architecture": "unet", "classes": dict(enumerate(NAMES))}
    torch.save({"state_dict": state, "metadata": metadata}, path)
    return path


def test_the_chain_is_the_original_one_step_for_step(model: Original, checkpoint: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "home")
    engine = Engine(registry.open(import_original(registry, checkpoint, "original")), "cpu", "fp32")
    labels = [3, 8]
    expected = original_chain(model, labels, seed=7, length=15)
    steps = engine.chain(labels, 7, engine.resolve("ddpm", 1000))
    for before, step in zip(expected, steps, strict=False):
        torch.testing.assert_close(step.x, before, atol=1e-4, rtol=0)


def test_an_imported_checkpoint_is_a_classic_model(cli: Cli, checkpoint: Path) -> None:
    done = cli("models", "import", checkpoint, "--name", "original")
    assert (done.returncode, done.stdout) == (0, "original\n"), done.stderr
    told = cli("inspect", "original")
    assert told.returncode == 0, told.stderr
    for words in ("classic, 6,593,729 parameters", "1000 steps, linear schedule, predicts epsilon", "creator someone"):
        assert words in told.stdout
    assert cli("models", "verify", "original").returncode == 0
    drawn = cli("generate", "eight", "--model", "original", "--steps", 2, "--sampler", "ddim", "-o", "eight.png")
    assert drawn.returncode == 0, drawn.stderr


def without(state: dict[str, Tensor], key: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: without(s, "final_out.bias"), "holds another network than the original: output.bias is missing"),
        (lambda s: {**s, "attention.weight": torch.ones(1)}, "attention.weight is none of its parts"),
        (lambda s: {**s, "up1.bias": torch.ones(65)}, r"up1.bias is \(65,\) and not \(64,\)"),
        (lambda s: {**s, "up1.bias": torch.ones(64, dtype=torch.long)}, r"up1.bias is \(64,\) and not"),
        (lambda s: {**s, "up1.bias": [1.0]}, "up1.bias is list and not"),
        (lambda s: {**s, "up1.bias": torch.full((64,), torch.nan)}, "is damaged: up1.bias holds what is no number"),
    ],
)
def test_another_network_is_refused_in_words(
    here: Cli, model: Original, tmp_path: Path, change: Any, error: str
) -> None:
    path = save(tmp_path / "other.pt", change(model.state_dict()))
    before = tree(tmp_path)
    said, _ = complaint(here("models", "import", path), 1)
    assert re.search(error, said), said
    assert tree(tmp_path) == before


class Bomb:
    """What no checkpoint may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_code_in_a_checkpoint_is_never_run(here: Cli, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": Bomb()}, "metadata": {}}, tmp_path / "bomb.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"state_dict": {"a": Bomb()}}))
    for name in ("bomb.pt", "old.pt"):
        said, hint = complaint(here("models", "import", tmp_path / name), 1)
        assert said.startswith(f"{tmp_path / name} is no checkpoint of the original scripts: ")
        assert hint.startswith("it is to hold ")
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04", pickle.dumps([1, 2])])
def test_what_is_no_checkpoint_is_refused_in_words(here: Cli, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert complaint(here("models", "import", path), 1)[0].startswith(f"{path} is no checkpoint")


def test_a_file_that_unpacks_to_far_more_is_not_unpacked(here: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(300_000_000))
    assert complaint(here("models", "import", path), 1)[0].endswith("it is far too large")


def test_a_file_that_is_not_there_is_said(here: Cli) -> None:
    assert complaint(here("models", "import", "no.pt"), 1)[0] == "there is no file no.pt"
