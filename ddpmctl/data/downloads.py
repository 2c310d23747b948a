"""Published datasets as files: in a given folder, in the cache, or downloaded. No torch."""

import gzip
import hashlib
import io
import logging
import os
import shutil
import tarfile
import tempfile
import threading
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from ddpmctl.data.report import byte_count
from ddpmctl.data.sources import SOURCES, Source
from ddpmctl.errors import DataError
from ddpmctl.paths import user_cache_path

log = logging.getLogger("ddpmctl")

PROBE_SECONDS = 3.0
TRANSFER_SECONDS = 20.0
"""How long a server may be silent in the middle of a file."""
PROGRESS_SECONDS = 10.0
HEADERS = {"User-Agent": "ddpmctl"}
"""Some servers refuse the name that urllib gives itself."""
CHUNK = 1 << 18
"""Bytes read at a time."""


def find_files(data_dir: Path | None, source: Source) -> Path:
    """The folder of the checked files of a dataset, which are downloaded into the cache if they are not there.

    With ``data_dir``, the folder that contains the dataset's folder or the files, nothing else is tried or written.
    """
    root = data_dir if data_dir is not None else cached_root()
    if data_dir is not None:
        check_complete(data_dir, source)
    elif not is_complete(root, source):
        download(root, source)
    return files_folder(root, source)


def cached_root() -> Path:
    """The folder of downloads, which contains ``MNIST/raw``."""
    return user_cache_path("ddpmctl", appauthor=False) / "datasets"


def files_folder(root: Path, source: Source) -> Path:
    """The folder of the files: in torchvision's layout, or ``root`` itself."""
    folder = root / source.folder
    bare = any((root / f"{name}{suffix}").is_file() for name in source.files for suffix in ("", ".gz"))
    return root if bare and not folder.is_dir() else folder


def is_complete(root: Path, source: Source) -> bool:
    """Whether `check_complete` passes."""
    try:
        check_complete(root, source)
    except DataError:
        return False
    return True


def check_complete(root: Path, source: Source) -> None:
    """Check all files and their checksums; the error names the first that is wrong."""
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist", *source.hint)
    folder = files_folder(root, source)
    for name, digest in source.files.items():
        path = folder / name
        try:
            with open_file(path) as file:
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


def open_file(path: Path) -> io.BufferedIOBase:
    """A file, or the content of its gzip archive."""
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists() and packed.is_file():
        return gzip.open(packed, "rb")
    return path.open("rb")


def download(root: Path, source: Source) -> None:
    """Download a dataset into ``root``: into a temporary folder first, moved into place once it is complete.

    Mirrors that do not answer within 3 seconds are skipped. The size is logged before anything is transferred."""
    title = source.title
    if os.environ.get("DDPMCTL_OFFLINE") == "1":
        raise DataError(f"{title} is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download", *source.hint)
    first = next(iter(source.archives))
    with ThreadPoolExecutor() as pool:  # together, so that several silent ones cost no more time than one
        answered = list(pool.map(answers, [mirror + first for mirror in source.mirrors]))
    mirrors = [mirror for mirror, yes in zip(source.mirrors, answered, strict=True) if yes]
    if not mirrors:
        tried = ", ".join(source.mirrors)
        raise DataError(f"{title} is not in the cache and cannot be downloaded: no answer from {tried}", *source.hint)
    hidden = f".{title}."
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{hidden}lock"), tempfile.TemporaryDirectory(dir=root, prefix=hidden) as temporary:
            if is_complete(root, source):  # another process was faster
                return
            log.info("downloading %s (%s) into %s", title, byte_count(source.size), root)
            _fetch_archives(mirrors, source, Path(temporary) / source.folder)
            check_complete(Path(temporary), source)
            _move_into_place(Path(temporary) / source.folder, root / source.folder, source)
    except (OSError, ValueError, EOFError, LookupError, zlib.error, tarfile.TarError, HTTPException) as error:
        raise DataError(f"the download of {title} failed: {error}", *source.hint) from error


def answers(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a server answers for ``url`` in time, DNS included."""
    outcome: list[bool] = []

    def probe() -> None:
        try:
            request = urllib.request.Request(url, headers=HEADERS, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                outcome.append(True)
        except (OSError, ValueError, HTTPException):
            outcome.append(False)

    # A thread, since looking up a name has no time limit of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome == [True]


def _fetch_archives(mirrors: list[str], source: Source, folder: Path) -> None:
    """Download each archive from the first mirror that has it, and unpack it once its checksum is right."""
    folder.mkdir(parents=True)
    for name, digest in source.archives.items():
        for mirror in mirrors:
            try:
                _transfer(mirror + name, folder / name, digest)
            except (OSError, ValueError, HTTPException):
                if mirror == mirrors[-1]:
                    raise
            else:
                break
        if name not in source.files:
            _unpack(folder / name, source)


def _transfer(url: str, path: Path, digest: str) -> None:
    """Download a file; ValueError if it has another checksum."""
    found, received, reported = hashlib.sha256(), 0, time.monotonic()
    request = urllib.request.Request(url, headers=HEADERS)
    with urllib.request.urlopen(request, timeout=TRANSFER_SECONDS) as response, path.open("wb") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            found.update(chunk)
            received += len(chunk)
            if time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                log.info("%s: %s received", path.name, byte_count(received))
    if found.hexdigest() != digest:
        raise ValueError(f"{url} does not have the expected checksum: wrong or truncated")


def _unpack(path: Path, source: Source) -> None:
    """Extract the files of a dataset from an archive beside them, and remove it."""
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            for name in source.files:
                member = archive.extractfile(f"{source.folder}/{name}")
                if member is None:
                    raise ValueError(f"{path.name} does not contain {name}")
                with member, (path.parent / name).open("wb") as file:
                    shutil.copyfileobj(member, file)
    else:
        with gzip.open(path, "rb") as packed, path.with_suffix("").open("wb") as file:
            shutil.copyfileobj(packed, file)
    path.unlink()


def _move_into_place(fetched: Path, target: Path, source: Source) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in source.files:
        (fetched / name).replace(target / name)


def mnist_or_strokes(data_dir: Path | None) -> str:
    """``mnist`` if it is given, cached or can be downloaded; otherwise ``strokes``, the synthetic digits."""
    mnist = SOURCES["mnist"]
    try:
        find_files(data_dir, mnist)
    except DataError as error:
        if data_dir is not None:
            raise
        log.info("%s\nusing the built-in synthetic digits instead (dataset strokes)", error.message)
        return "strokes"
    return "mnist"
