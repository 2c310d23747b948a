"""Every kind of damage to a model is detected."""

from collections.abc import Callable, Iterator

import pytest

from ddpmctl.errors import CheckpointError
from ddpmctl.registry import Checkpoint, Registry
from tests.builders import register


def flipped(data: bytes) -> Iterator[bytes]:
    """The data with each of its bits flipped in turn."""
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def truncated(data: bytes) -> Iterator[bytes]:
    """Every proper beginning of the data."""
    for length in range(len(data)):
        yield data[:length]


def read_everything(registry: Registry) -> None:
    opened = registry.open("tiny")
    opened.weights()
    opened.shapes()
    assert opened.history


@pytest.mark.parametrize("damaged", [flipped, truncated], ids=lambda f: f.__name__)
@pytest.mark.parametrize("file", ["weights.safetensors", "history.csv"])
def test_no_damage_to_a_file_goes_unseen(
    registry: Registry, file: str, damaged: Callable[[bytes], Iterator[bytes]]
) -> None:
    path = register(registry, "tiny") / file
    read_everything(registry)
    for data in damaged(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"^damaged checkpoint: .*{file}: it"):
            read_everything(registry)


def test_an_added_byte_does_not_go_unseen(registry: Registry) -> None:
    path = register(registry, "tiny") / "weights.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError) as caught:
        registry.open("tiny")
    assert caught.value.message == f"damaged checkpoint: {path}: it has {size + 1} bytes and should have {size}"
    assert caught.value.hint == "choose another model (ddpmctl models) or train it again (ddpmctl train)"


@pytest.mark.parametrize("file", ["weights.safetensors", "history.csv", "manifest.json"])
def test_a_missing_file_is_named(registry: Registry, file: str) -> None:
    path = register(registry, "tiny") / file
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{file}: No such file"):
        registry.open("tiny")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05",
        b"\xff" * 16,
        b"\x02" + b"\0" * 7 + b"[]",
        b"\x02" + b"\0" * 7 + b"{x",
        b"\x07" + b"\0" * 7 + b'{"a":1}',
        b"\x0e" + b"\0" * 7 + b'{"a":{"x":[]}}',
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
    ids=["empty", "no length", "endless", "list", "no JSON", "no tensor", "no shape", "deep"],
)
@pytest.mark.parametrize("read", [Checkpoint.weights, Checkpoint.shapes], ids=lambda f: f.__name__)
def test_weights_that_are_none_are_refused_even_if_the_manifest_vouches_for_them(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, data: bytes, read: Callable[[Checkpoint], object]
) -> None:
    monkeypatch.setattr("safetensors.numpy.save", lambda weights: data)
    register(registry, "tiny")
    with pytest.raises(CheckpointError, match=r"^damaged checkpoint: .*weights\.safetensors: "):
        read(registry.open("tiny"))
