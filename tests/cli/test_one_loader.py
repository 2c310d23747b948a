"""All code reads models through `Checkpoint.open`, which validates them."""

import ast
from pathlib import Path

import pytest

import ddpmctl
from ddpmctl.errors import CheckpointError
from ddpmctl.registry import Checkpoint
from ddpmctl.sampling.engine import Engine
from tests.conftest import Cli

READERS = [
    ("generate", "3"),
    ("grid",),
    ("animate", "3"),
    ("inspect",),
    ("evaluate", "-n", "100"),
    ("export", "tiny", "x.zip"),
    ("evaluate", "--classify"),
    ("classify", "drawing.png"),
    ("train", "--resume", "tiny"),
    ("train", "--resume", "latest"),
]


@pytest.mark.parametrize("typed", READERS, ids=" ".join)
def test_every_command_that_reads_a_model_uses_it(
    tiny_here: Cli, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...]
) -> None:
    asked: list[Path] = []

    def refuse(name: str, path: Path) -> Checkpoint:
        asked.append(path)
        raise CheckpointError("the one loader refuses", "as it was told")

    monkeypatch.setattr(Checkpoint, "open", refuse)
    done = tiny_here(*typed)
    assert done.returncode == 1
    assert asked
    assert "Traceback" not in done.stderr


def test_so_do_the_lists_and_the_python_interface(tiny_here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, path: Path) -> Checkpoint:
        raise CheckpointError("the one loader refuses")

    monkeypatch.setattr(Checkpoint, "open", refuse)
    assert "the one loader refuses" in tiny_here("models").stderr
    assert "the one loader refuses" in tiny_here("models", "verify").stdout
    for load in (Engine.load, ddpmctl.Engine.load):
        with pytest.raises(CheckpointError, match=r"the one loader refuses|every model is damaged"):
            load("tiny")


def test_nothing_else_reads_tensors_from_files() -> None:
    package = Path(ddpmctl.__file__).parent
    suspects = {"load", "load_file", "safe_open", "loads", "unpickle"}
    readers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("safetensors", "pickle")):
                readers |= {str(path.relative_to(package)) for name in node.names if name.name in suspects}
            # CIFAR-10 is pickled: an unpickler that refuses all but arrays reads it, once its digest is right.
            allowed = {"pickle"} if path.name == "readers.py" else set()
            if isinstance(node, ast.Import):
                assert not {name.name for name in node.names} & {"pickle", "shelve", "marshal", "dill"} - allowed, path
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                assert node.attr in ("Unpickler", "UnpicklingError")
    # The evaluation keeps a classifier of its own making, checked by its digest.
    assert readers == {"registry/checkpoint.py", "evaluation/cache.py"}


def test_torch_never_unpickles() -> None:
    package = Path(ddpmctl.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
