"""MNIST and Fashion-MNIST through torchvision: from a given folder, cached, or downloaded."""

import gzip
import hashlib
import io
import logging
import os
import shutil
import socket
import tempfile
import threading
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from filelock import FileLock

from ddpmctl.data.dataset import DIGITS, Dataset, resized
from ddpmctl.errors import DataError, Setting
from ddpmctl.imports import load_torchvision
from ddpmctl.paths import user_cache_path

log = logging.getLogger("ddpmctl")


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset in MNIST's format."""

    name: str
    title: str
    """torchvision's name of the class and of the folder."""
    classes: tuple[str, ...]
    files: Mapping[str, str]
    """sha256 of the four extracted files, by name."""

    @property
    def hint(self) -> tuple[str | Setting, ...]:
        """What to do if it is not available."""
        folder = (f"pass the folder that contains {self.title}/raw as ", Setting("data_dir", "DIR"))
        return (
            (*folder, ", or use ", Setting("dataset", "strokes"), ", which needs no files")
            if self.name == "mnist"
            else folder
        )


MNIST = Source(
    "mnist",
    "MNIST",
    DIGITS,
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
FASHION = Source(
    "fashion-mnist",
    "FashionMNIST",
    (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)  # fmt: skip

PROBE_SECONDS = 3.0
TRANSFER_SECONDS = 20.0


def load_mnist(size: int, data_dir: Path | None, *, train: bool = True, source: Source | None = None) -> Dataset:
    """The 60,000 training images, or the 10,000 test images, at ``size`` pixels a side.

    With ``data_dir``, the folder that contains ``MNIST/raw`` or the files, nothing else is tried or written.
    """
    source = source or MNIST
    root = data_dir if data_dir is not None else cached_root()
    if data_dir is not None:
        check_complete(data_dir, source)
    elif not is_complete(root, source):
        download(root, source)
    # The files that were checked, by torchvision's own readers: its class would prefer pickled files of old versions,
    # which are not checked.
    reader, kind = load_torchvision("datasets.mnist"), "train" if train else "t10k"
    with _extracted(raw_folder(root, source), [f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"]) as paths:
        images, labels = reader.read_image_file(str(paths[0])), reader.read_label_file(str(paths[1]))
    return Dataset(source.name, resized(images[:, None], size), labels.to(torch.int64), source.classes)


def cached_root() -> Path:
    """The folder of downloads, which contains ``MNIST/raw``."""
    return user_cache_path("ddpmctl", appauthor=False) / "datasets"


def raw_folder(root: Path, source: Source) -> Path:
    """The folder of the files: in torchvision's layout, or ``root`` itself."""
    raw = root / source.title / "raw"
    bare = any((root / f"{name}{suffix}").is_file() for name in source.files for suffix in ("", ".gz"))
    return root if bare and not raw.is_dir() else raw


def is_complete(root: Path, source: Source | None = None) -> bool:
    """Whether `check_complete` passes."""
    try:
        check_complete(root, source)
    except DataError:
        return False
    return True


def check_complete(root: Path, source: Source | None = None) -> None:
    """Check the four files and their checksums, optionally gzip-compressed; the error names the first that is wrong."""
    source = source or MNIST
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist", *source.hint)
    raw = raw_folder(root, source)
    for name, digest in source.files.items():
        path = raw / name
        try:
            with _opened(path) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            where = path.relative_to(root)
            raise DataError(f"the folder {root} is incomplete: {where} is missing", *source.hint) from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}.gz is damaged: {error}", *source.hint) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}", *source.hint) from error
        if found != digest:
            expected = f"the {source.title} file of that name"
            raise DataError(f"{path} does not match the checksum of {expected}: wrong or truncated", *source.hint)


def _opened(path: Path) -> io.BufferedIOBase:
    """A file, or the content of its gzip archive."""
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists() and packed.is_file():
        return gzip.open(packed, "rb")
    return path.open("rb")


@contextmanager
def _extracted(raw: Path, names: list[str]) -> Iterator[list[Path]]:
    """Paths of the extracted files, in a temporary folder if they are compressed."""
    with tempfile.TemporaryDirectory(prefix="ddpmctl.") as temporary:
        paths = []
        for name in names:
            path = raw / name
            if not path.exists():
                path = Path(temporary) / name
                with _opened(raw / name) as packed, path.open("wb") as plain:
                    shutil.copyfileobj(packed, plain)
            paths.append(path)
        yield paths


def download(root: Path, source: Source | None = None) -> None:
    """Download a dataset into ``root``: into a temporary folder first, moved into place once it is complete.

    Mirrors that do not answer within 3 seconds are skipped."""
    source = source or MNIST
    title = source.title
    if os.environ.get("DDPMCTL_OFFLINE") == "1":
        raise DataError(f"{title} is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download", *source.hint)
    theirs = getattr(load_torchvision("datasets"), title)
    with ThreadPoolExecutor() as pool:  # together, so that several silent ones cost no more time than one
        answered = pool.map(answers, [mirror + theirs.resources[0][0] for mirror in theirs.mirrors])
        mirrors = [mirror for mirror, yes in zip(theirs.mirrors, answered, strict=True) if yes]
    if not mirrors:
        tried = ", ".join(theirs.mirrors)
        raise DataError(f"{title} is not in the cache and cannot be downloaded: no answer from {tried}", *source.hint)
    hidden = f".{source.name}."
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{hidden}lock"), tempfile.TemporaryDirectory(dir=root, prefix=hidden) as temporary:
            if is_complete(root, source):  # another process was faster
                return
            with _reachable_only(theirs, mirrors):
                theirs(temporary, download=True)
            check_complete(Path(temporary), source)
            _move_into_place(Path(temporary) / title / "raw", root / title / "raw", source)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        raise DataError(f"the download of {title} failed: {error}", *source.hint) from error


def answers(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a server answers for ``url`` in time, DNS included."""
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
def _reachable_only(theirs: type, mirrors: list[str]) -> Iterator[None]:
    """Let torchvision try only these mirrors, and time out a transfer that stalls."""
    all_mirrors, timeout = theirs.mirrors, socket.getdefaulttimeout()  # type: ignore[attr-defined]
    theirs.mirrors = mirrors  # type: ignore[attr-defined]
    socket.setdefaulttimeout(TRANSFER_SECONDS)
    try:
        yield
    finally:
        theirs.mirrors = all_mirrors  # type: ignore[attr-defined]
        socket.setdefaulttimeout(timeout)


def _move_into_place(fetched: Path, target: Path, source: Source) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in source.files:
        (fetched / name).replace(target / name)


def mnist_or_strokes(data_dir: Path | None) -> str:
    """``mnist`` if it is given, cached or can be downloaded; otherwise ``strokes``, the synthetic digits."""
    if data_dir is not None:
        check_complete(data_dir)
        return "mnist"
    if is_complete(cached_root()):
        return "mnist"
    try:
        log.info("downloading MNIST")
        download(cached_root())
    except DataError as error:
        log.info("%s\nusing the built-in synthetic digits instead (dataset strokes)", error.message)
        return "strokes"
    return "mnist"
