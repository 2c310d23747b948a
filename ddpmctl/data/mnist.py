"""The real MNIST, through torchvision's class: given, cached, or downloaded."""

import hashlib
import os
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch
from filelock import FileLock
from platformdirs import user_cache_path

from ddpmctl.errors import DataError
from ddpmctl.imports import load_torchvision

from .dataset import DIGITS, Dataset, resized

FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""sha256 of the four extracted files."""

PROBE_SECONDS = 3.0
TRANSFER_SECONDS = 20.0
HINT = "give the folder that holds MNIST/raw with --data-dir DIR, or use --dataset strokes, which needs no files"


def load_mnist(size: int, data_dir: Path | None, *, train: bool = True) -> Dataset:
    """The 60,000 training digits, or the 10,000 test digits, at ``size`` pixels a side.

    Args:
        size: side of an image.
        data_dir: the folder that holds ``MNIST/raw``. When given, nothing else is tried and nothing is written.
        train: the training digits, or else the test digits.

    Raises:
        DataError: when the data is not to be had whole, naming what was tried.
    """
    root = data_dir if data_dir is not None else cached_root()
    if data_dir is not None:
        check_whole(data_dir)
    elif not is_whole(root):
        download(root)
    # The files that were checked, by torchvision's own readers: its class would prefer what old versions left beside
    # them, unchecked and pickled.
    reader, raw, kind = load_torchvision("datasets.mnist"), root / "MNIST" / "raw", "train" if train else "t10k"
    images = reader.read_image_file(str(raw / f"{kind}-images-idx3-ubyte"))
    labels = reader.read_label_file(str(raw / f"{kind}-labels-idx1-ubyte"))
    return Dataset("mnist", resized(images[:, None], size), labels.to(torch.int64), DIGITS)


def cached_root() -> Path:
    """Where downloads are kept: ``MNIST/raw`` lies in it."""
    return user_cache_path("ddpmctl", appauthor=False) / "datasets"


def is_whole(root: Path) -> bool:
    """Whether the four files are there, each with its digest."""
    try:
        check_whole(root)
    except DataError:
        return False
    return True


def check_whole(root: Path) -> None:
    """See that the four files are there, each with its digest.

    Raises:
        DataError: naming the first that is not.
    """
    if not root.is_dir():
        raise DataError(f"the data dir {root} does not exist", HINT)
    raw = root / "MNIST" / "raw"
    for name, digest in FILES.items():
        path = raw / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise DataError(f"the data dir {root} is incomplete: it lacks MNIST/raw/{name}", HINT) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}", HINT) from error
        if found != digest:
            raise DataError(f"{path} is not the MNIST file of that name: wrong or cut short", HINT)


def download(root: Path) -> None:
    """Fetch MNIST into ``root``: into a temporary folder first, moved into place once it is whole.

    Raises:
        DataError: when no mirror answers in 3 seconds, or what came is not MNIST.
    """
    if os.environ.get("DDPMCTL_OFFLINE") == "1":
        raise DataError("MNIST is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download", HINT)
    mnist = load_torchvision("datasets").MNIST
    with ThreadPoolExecutor() as pool:  # together, so that several silent ones cost no more time than one
        answered = pool.map(answers, [mirror + mnist.resources[0][0] for mirror in mnist.mirrors])
        mirrors = [mirror for mirror, yes in zip(mnist.mirrors, answered, strict=True) if yes]
    if not mirrors:
        tried = ", ".join(mnist.mirrors)
        raise DataError(f"MNIST is not in the cache and cannot be downloaded: no answer from {tried}", HINT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".mnist.lock"), tempfile.TemporaryDirectory(dir=root, prefix=".mnist.") as temporary:
            if is_whole(root):  # another process was faster
                return
            with _reachable_only(mnist, mirrors):
                mnist(temporary, download=True)
            check_whole(Path(temporary))
            _move_into_place(Path(temporary) / "MNIST" / "raw", root / "MNIST" / "raw")
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        raise DataError(f"the download of MNIST failed: {error}", HINT) from error


def answers(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a server answers for ``url`` in time, the look-up of its name included."""
    outcome: list[bool] = []

    def probe() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                outcome.append(True)
        except (OSError, ValueError, HTTPException):
            outcome.append(False)

    # A thread, since looking up a name has no time limit of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome == [True]


@contextmanager
def _reachable_only(mnist: type, mirrors: list[str]) -> Iterator[None]:
    """Let torchvision try the mirrors that answered, and give up on a transfer that stalls."""
    all_mirrors, timeout = mnist.mirrors, socket.getdefaulttimeout()  # type: ignore[attr-defined]
    mnist.mirrors = mirrors  # type: ignore[attr-defined]
    socket.setdefaulttimeout(TRANSFER_SECONDS)
    try:
        yield
    finally:
        mnist.mirrors = all_mirrors  # type: ignore[attr-defined]
        socket.setdefaulttimeout(timeout)


def _move_into_place(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (source / name).replace(target / name)
