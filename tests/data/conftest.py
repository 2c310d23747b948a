"""Locations of MNIST, and a network that must not be used."""

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpmctl.data import downloads
from ddpmctl.data.sources import SOURCES

from .support import small_files, write_mnist


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The small MNIST's files, by name; for this test they are the ones that are known."""
    made = small_files()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], files=digests))
    return made


@pytest.fixture
def given(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """A data dir that holds the small MNIST."""
    return write_mnist(tmp_path / "given", files)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, empty."""
    root = tmp_path / "cache" / "datasets"
    monkeypatch.setattr(downloads, "cached_root", lambda: root)
    return root


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any use of the network fails the test, from whatever thread it comes."""
    opened: list[str] = []

    def refuse(*arguments: Any, **settings: Any) -> Any:
        opened.append(f"{arguments} {settings}")
        raise OSError("there is no network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert opened == []
