"""Checkpoints of the original scripts: they generate the same digits, and other files are rejected."""

import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ddpmctl.build import build_network
from ddpmctl.config import load_preset
from ddpmctl.errors import DdpmctlError
from ddpmctl.original import to_weights
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.conftest import Cli
from tests.original import NAMES, SHAPES, predict, random_state, sample, save

from .support import alter_manifest, complaint, copy_model, pixels, reported, tree

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return random_state()


@pytest.fixture
def checkpoint(state: State, tmp_path: Path) -> Path:
    return save(tmp_path / "best_mnist_ddpm.pt", state)


def imported(here: Cli, path: Path) -> Registry:
    """The registry with the file imported as ``original``, without a warning."""
    done = here("models", "import", path, "--name", "original")
    assert (done.returncode, done.stdout) == (0, "original\n"), done.stderr
    assert done.stderr == "imported 'original'; try it: ddpmctl grid --model original\n"
    return Registry(path.parent)


@pytest.mark.slow
def test_swapped_tensors_of_one_shape_are_swapped_in_the_model_too(state: State) -> None:
    generator = torch.Generator().manual_seed(1)
    # 16x16 pixels are enough for the bottleneck to have neighbours, and four times as fast.
    given = torch.randn(1, 1, 16, 16, generator=generator), torch.tensor([700]), torch.tensor([9])
    network = build_network(load_preset("classic").config).eval()
    pairs = [(a, b) for a, b in combinations(SHAPES, 2) if SHAPES[a] == SHAPES[b]]
    assert len(pairs) == 295
    with torch.no_grad():
        unswapped = predict(state, *given)
        for a, b in pairs:
            swapped = {**state, a: state[b], b: state[a]}
            network.load_state_dict({name: torch.from_numpy(array) for name, array in to_weights(swapped).items()})
            expected = predict(swapped, *given)
            assert (expected - unswapped).abs().max() > 1e-3, f"{a} and {b} make no difference"
            assert torch.allclose(network(*given), expected, atol=1e-5, rtol=1e-4), f"{a} and {b} are mistaken"


def test_the_chain_is_the_original_one_step_for_step(here: Cli, state: State, checkpoint: Path) -> None:
    engine = Engine(imported(here, checkpoint).open("original"), "cpu", "fp32")
    labels = [3, 8]
    expected = sample(partial(predict, state), labels, seed=7, length=15)
    steps = engine.steps(engine.request(labels, 7, sampler="ddpm", steps=1000))
    for before, step in zip(expected, steps, strict=False):
        assert_close(step.x, before, atol=1e-4, rtol=0)


def test_an_imported_checkpoint_is_a_classic_model(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    done = cli("models", "import", checkpoint, "--name", "original")
    assert (done.returncode, done.stdout) == (0, "original\n"), done.stderr
    shown = cli("inspect", "original")
    assert shown.returncode == 0, shown.stderr
    for words in (
        "classic, 6,593,729 parameters",
        "1000 timesteps, linear schedule, epsilon-prediction",
        "creator someone",
    ):
        assert words in shown.stdout
    # Nothing is shown as a fact that the file does not record.
    assert re.search(r"^dataset +mnist, images not recorded *$", shown.stdout, re.MULTILINE)
    assert re.search(r"^training +preset classic, not recorded *$", shown.stdout, re.MULTILINE)
    assert not re.search(r"^(recipe|machine) ", shown.stdout, re.MULTILINE)
    assert cli("models", "verify", "original").returncode == 0
    drawn = cli("generate", 3, "--seed", 1, "--model", "original", "--steps", 2, "--sampler", "ddim", "-o", "three.png")
    assert drawn.returncode == 0, drawn.stderr
    assert pixels(tmp_path / "three.png").std() > 0
    assert cli("export", "original", "original.zip").returncode == 0
    with zipfile.ZipFile(tmp_path / "original.zip") as archive:
        card = archive.read("README.md").decode()
    assert "mnist; the exact images are not recorded." in card
    assert "- The training run is not recorded\n- Versions:" in card
    assert "ddpmctl train" not in card


@pytest.mark.parametrize("more", [[], ["--epochs", 3]])
def test_the_training_of_an_imported_checkpoint_cannot_be_resumed(here: Cli, checkpoint: Path, more: list[Any]) -> None:
    imported(here, checkpoint)
    message, _ = complaint(here("train", "--resume", "original", *more), 1)
    assert message == "'original' cannot be resumed: its training state was not saved"


def renamed(prefix: str) -> Callable[[State, Path], Path]:
    return lambda state, path: save(path, {f"{prefix}{name}": tensor for name, tensor in state.items()})


def with_optimizer(state: State, path: Path) -> Path:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2)).sum().backward()
    optimizer.step()
    others = {"optimizer_state_dict": optimizer.state_dict(), "epoch": 12, "loss": 0.025, "history": [0.5, 0.25]}
    torch.save({**others, "metadata": {"classes": list(NAMES)}, "state_dict": OrderedDict(state)}, path)
    return path


def as_parameters(state: State, path: Path) -> Path:
    return save(path, {name: nn.Parameter(tensor) for name, tensor in state.items()})


def not_contiguous(state: State, path: Path) -> Path:
    return save(path, {**state, "embedding_projector.weight": state["embedding_projector.weight"].T.contiguous().T})


def in_old_format(state: State, path: Path) -> Path:
    torch.save({"state_dict": state, "metadata": {"classes": NAMES}}, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize(
    "write",
    [
        renamed("module."), renamed("_orig_mod."), renamed("module._orig_mod."), renamed("_orig_mod.module."),
        with_optimizer, as_parameters, not_contiguous, in_old_format,
        lambda state, path: save(path, {name: tensor.double() for name, tensor in state.items()}),
        lambda state, path: save(path, dict(reversed(state.items()))),
        lambda state, path: save(path, state, note="a note", loss={"train": [0.1]}, architecture=None),
    ],
    ids=[
        "data parallel", "compiled", "compiled, then parallel", "parallel, then compiled",
        "with optimizer", "parameters", "not contiguous", "old format",
        "float64",
        "another order",
        "other metadata",
    ],
)  # fmt: skip
def test_what_else_training_code_saves_is_the_same_model(
    here: Cli, state: State, tmp_path: Path, write: Callable[[State, Path], Path]
) -> None:
    checkpoint = imported(here, write(state, tmp_path / "a.pt")).open("original")
    weights = checkpoint.weights()
    assert weights.keys() == state.keys()
    for name, tensor in state.items():
        assert_close(torch.from_numpy(weights[name]), tensor, atol=0, rtol=0)
    assert checkpoint.manifest.classes == NAMES


def test_float16_weights_are_the_nearest_float32_ones(here: Cli, state: State, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {name: tensor.half() for name, tensor in state.items()})
    weights = imported(here, path).open("original").weights()
    for name, tensor in state.items():
        assert_close(torch.from_numpy(weights[name]), tensor.half().float(), atol=0, rtol=0)


@pytest.mark.parametrize("metadata", [{}, None, "text", {"classes": None}])
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "wrapped"])
def test_classes_that_are_not_recorded_are_assumed_and_said(
    here: Cli, state: State, tmp_path: Path, metadata: Any, bare: bool
) -> None:
    path = tmp_path / "a.pt"
    torch.save(state if bare else {"state_dict": state, "metadata": metadata}, path)
    done = here("models", "import", path, "--name", "original", "--json")
    assert reported(done, "models import") == {"model": "original"}
    assert f"warning: {path} has no class names: assuming {', '.join(NAMES)}" in done.stderr
    assert Registry(tmp_path).open("original").manifest.classes == NAMES


GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (dict(enumerate(GERMAN)), GERMAN),
        ({str(index): name for index, name in enumerate(GERMAN)}, GERMAN),
        (dict(reversed(list(enumerate(GERMAN)))), GERMAN),
        (list(GERMAN), GERMAN),
        (GERMAN, GERMAN),
        ({index: 9 - index for index in range(10)}, tuple("9876543210")),
    ],
    ids=["int keys", "str keys", "another order", "list", "tuple", "numbers"],
)
def test_class_names_come_from_the_metadata(
    here: Cli, state: State, tmp_path: Path, table: Any, expected: tuple[str, ...]
) -> None:
    registry = imported(here, save(tmp_path / "a.pt", state, classes=table))
    assert registry.open("original").manifest.classes == expected


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("zero one two", "its table of classes is a str, expected a dict from index to name"),
        (NAMES[:9], "its table of classes has 9 entries, expected 10"),
        ({**dict(enumerate(NAMES)), 10: "ten"}, "its table of classes has 11 entries, expected 10"),
        (dict(enumerate(NAMES, 1)), "its table of classes has no entry for index 0"),
        ({name: index for index, name in enumerate(NAMES)}, "its table of classes has no entry for index 0"),
        ((*NAMES[:9], ["nine"]), "class 9 has no name of at most 64 characters"),
        ((*NAMES[:9], "nine" * 17), "class 9 has no name of at most 64 characters"),
        ((*NAMES[:9], 10**500), "class 9 has no name of at most 64 characters"),
        ((*NAMES[:9], "  "), "a class has an empty name"),
        (
            (*NAMES[:9], " Eight "),
            "the class names 'eight' and ' Eight ' are ambiguous: they differ only in case, accents or separators",
        ),
        ((*NAMES[:9], "a\x1b[2Jb"), r"the class name 'a\x1b[2Jb' contains characters that cannot be displayed"),
        ((*NAMES[:9], "a\ud800"), r"the class name 'a\ud800' contains characters that cannot be displayed"),
    ],
)
def test_class_names_that_cannot_be_used_are_refused(
    here: Cli, state: State, tmp_path: Path, table: Any, error: str
) -> None:
    path = save(tmp_path / "a.pt", state, classes=table)
    before = tree(tmp_path)
    message, hint = complaint(here("models", "import", path), 1)
    assert message == f"{path} cannot be imported: {error}"
    assert hint == "correct metadata['classes'] in the file: {0: 'zero', 1: 'one', .., 9: 'nine'}"
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Ada\x1b[2J\nLovelace", "Ada\ufffd[2J\ufffdLovelace"),
        ("\u202eAda\ud800", "\ufffdAda\ufffd"),
        ("x" * 5000, "x" * 100),
        (1.5, "1.5"),
        (["Ada"], None),
        pytest.param(10**500, None, id="a long number"),
        ("  ", None),
    ],
)
def test_the_creator_is_kept_as_one_line_that_can_be_displayed(
    here: Cli, state: State, tmp_path: Path, value: Any, shown: str | None
) -> None:
    checkpoint = imported(here, save(tmp_path / "a.pt", state, creator=value)).open("original")
    assert checkpoint.manifest.versions.get("original creator") == shown
    assert json.loads((checkpoint.path / "manifest.json").read_text())["versions"].get("original creator") == shown
    assert "\x1b" not in here("inspect", "original").stdout


def without(state: dict[str, Tensor], key: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if name != key}


def upsampling_exchanged(state: State) -> State:
    other = {"up1": "up3", "up3": "up1"}
    parts = {name: name.partition(".") for name in state}
    return {f"{other.get(part, part)}.{rest}": state[name] for name, (part, _, rest) in parts.items()}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: without(s, "final_out.bias"), "the tensor final_out.bias is missing"),
        (lambda s: {**s, "a\x1b.weight": torch.ones(1)}, "'a\ufffd.weight' is not a tensor of the original network"),
        (lambda s: {**s, "up1.bias": torch.ones(65)}, "up1.bias has shape (65,), expected (256,)"),
        (lambda s: {**s, "up1.bias": torch.ones(256, dtype=torch.long)}, "up1.bias is int64, expected float32"),
        (lambda s: {**s, "up1.bias": [1.0]}, "up1.bias is a list, expected a tensor of shape (256,)"),
        (lambda s: {**s, "up1.bias": torch.full((256,), torch.nan)}, "up1.bias contains values that are not finite"),
        (lambda s: {**s, "up1.bias": s["up1.bias"].double() * 1e300}, "up1.bias contains values that are not finite"),
        (lambda s: {**s, "up1.bias": torch.ones(256).to_sparse()}, "up1.bias is not a dense tensor with values"),
        (lambda s: {**s, "up1.bias": torch.empty(256, device="meta")}, "up1.bias is not a dense tensor with values"),
        (lambda s: {"module.up1.bias": s["up1.bias"]}, "the tensor label_embedding.weight is missing"),
    ],
)
def test_another_network_is_refused(here: Cli, state: State, tmp_path: Path, change: Any, error: str) -> None:
    path = save(tmp_path / "other.pt", change(state))
    before = tree(tmp_path)
    message, hint = complaint(here("models", "import", path), 1)
    assert message.startswith(f"{path} cannot be imported: {error}")
    assert hint.startswith("expected the original network: torch.save(")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("prefix", ["", "module."])
def test_exchanged_upsampling_layers_are_explained(here: Cli, state: State, tmp_path: Path, prefix: str) -> None:
    path = renamed(prefix)(upsampling_exchanged(state), tmp_path / "other.pt")
    message, hint = complaint(here("models", "import", path), 1)
    assert message == f"{path} cannot be imported: up1.weight has shape (64, 64, 2, 2), expected (512, 256, 2, 2)"
    assert hint.startswith("up1 and up3 are swapped: up1 is the deepest upsampling (512 to 256 channels)")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"model": {"a": torch.ones(1)}}, "it contains no state_dict"),
        ({}, "it contains no state_dict"),
        ({"state_dict": [1]}, "its state_dict is a list, not a dict"),
        ({"state_dict": {}}, "the tensor label_embedding.weight is missing"),
        (torch.ones(1), "it contains a Tensor, not a state_dict"),
        ({"a": torch.ones(1)}, "the tensor label_embedding.weight is missing"),
    ],
)
def test_other_files_of_torch_are_refused(here: Cli, tmp_path: Path, content: Any, error: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    message, _ = complaint(here("models", "import", tmp_path / "a.pt"), 1)
    assert message == f"{tmp_path / 'a.pt'} cannot be imported: {error}"


class Bomb:
    """What no checkpoint may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_code_in_a_checkpoint_is_never_run(here: Cli, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": Bomb()}, "metadata": {}}, tmp_path / "bomb.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"state_dict": {"a": Bomb()}}))
    for name in ("bomb.pt", "old.pt"):
        message, hint = complaint(here("models", "import", tmp_path / name), 1)
        assert message.startswith(f"{tmp_path / name} cannot be imported: ")
        assert hint.startswith("expected the original network: torch.save(")
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize("old_format", [False, True])
def test_a_whole_module_is_refused_by_the_name_of_its_class(here: Cli, tmp_path: Path, old_format: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=not old_format)
    message, _ = complaint(here("models", "import", path), 1)
    assert message == (
        f"{path} cannot be imported: it contains a Python object (torch.nn.modules.linear.Linear); "
        "only tensors and plain values are loaded"
    )


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04", pickle.dumps([1, 2])])
def test_what_is_not_a_checkpoint_is_refused(here: Cli, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    message, _ = complaint(here("models", "import", path), 1)
    assert message.startswith(f"{path} cannot be imported: ")
    assert message.isprintable()


def test_a_file_that_unpacks_to_far_more_is_not_unpacked(here: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(300_000_000))
    assert complaint(here("models", "import", path), 1)[0].endswith("it unpacks to more than 200 MB")


def test_a_missing_file_is_reported(here: Cli) -> None:
    assert complaint(here("models", "import", "no.pt"), 1)[0] == "no.pt does not exist"


@pytest.mark.parametrize(("digest", "warned"), [("0" * 64, True), ("", False)])
def test_evaluate_warns_of_other_images_only_where_the_images_are_recorded(
    here: Cli, tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str, warned: bool
) -> None:
    def stop(*_: object) -> None:
        raise DdpmctlError("stopped before the classifier is trained", "none")

    monkeypatch.setattr("ddpmctl.evaluation.api.cached_classifier", stop)
    commit = copy_model(tiny_home, tmp_path, "tiny")
    alter_manifest(commit, dataset={"name": "strokes:300", "digest": digest, "count": 300, "fit": ""})
    done = here("evaluate", "tiny", "--device", "cpu")
    assert "stopped before the classifier is trained" in done.stderr
    assert ("is not the one that this model was trained on" in done.stderr) is warned
