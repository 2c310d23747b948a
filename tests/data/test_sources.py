"""Published datasets other than MNIST: small files of each format, written here and read by torchvision too."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import datasets

from ddpmctl.data import downloads, load_dataset
from ddpmctl.data.catalogue import fetch
from ddpmctl.data.sources import SOURCES
from ddpmctl.errors import DataError, DdpmctlError
from ddpmctl.labels import class_names_problem, resolve_label

from .support import idx
from .test_download import know, left_in, mirror, serving, use_mirrors

COUNT = 24
Bytes = NDArray[np.uint8]


def made_up(name: str, seed: int) -> tuple[Bytes, Bytes]:
    """Images uint8[N,H,H] or [N,3,H,H] and class indices."""
    generator, source = np.random.default_rng(seed), SOURCES[name]
    colours = (3,) if source.side == 32 else ()
    images = generator.integers(0, 256, (COUNT, *colours, source.side, source.side), np.uint8)
    return images, generator.integers(0, len(source.classes), COUNT).astype(np.uint8)


def idx_int(array: NDArray[Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 12, array.ndim, *array.shape) + array.astype(">i4").tobytes()


def qmnist_labels(labels: Bytes) -> bytes:
    """The digit and seven more columns."""
    rest = np.arange(7 * len(labels)).reshape(-1, 7)
    return idx_int(np.concatenate([labels[:, None], rest], axis=1))


_Pickler: Any = vars(pickle)["_Pickler"]
"""The pickler that is written in Python, whose parts can be replaced."""


class _Python2Pickler(_Pickler):  # type: ignore[misc]
    """Pickles as Python 2 did: text and the content of arrays are strings of bytes, modules have their old names."""

    dispatch: ClassVar[dict[Any, Any]] = dict(_Pickler.dispatch)

    def save_string(self, value: bytes | str) -> None:
        data = value if isinstance(value, bytes) else value.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{value.__name__}\n".encode())
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string
    dispatch[type(np.empty)] = dispatch[type] = dispatch[type(made_up)] = save_global


def python2_pickle(value: object) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def cifar_batch(images: Bytes, labels: Bytes) -> bytes:
    return python2_pickle({"data": images.reshape(len(images), -1), "labels": labels.tolist(), "batch_label": "part"})


def svhn_file(images: Bytes, labels: Bytes) -> bytes:
    io_module = pytest.importorskip("scipy.io", reason="SciPy, the extra svhn, is not installed")
    file = io.BytesIO()
    ten_for_zero = np.where(labels == 0, 10, labels)[:, None]
    io_module.savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": ten_for_zero}, do_compression=True)
    return file.getvalue()


def emnist_archive(split: str, parts: dict[str, tuple[Bytes, Bytes]]) -> bytes:
    """All splits in one zip, each file compressed; rows and columns of the images are exchanged."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, (images, labels) in parts.items():
            stem = f"gzip/emnist-{split}-{part}"
            archive.writestr(f"{stem}-images-idx3-ubyte.gz", gzip.compress(idx(images.swapaxes(1, 2))))
            stored = labels + 1 if split == "letters" else labels
            archive.writestr(f"{stem}-labels-idx1-ubyte.gz", gzip.compress(idx(stored)))
    return file.getvalue()


def files_of(name: str) -> dict[str, bytes]:
    """Small files of a dataset, by name."""
    train, test = made_up(name, 1), made_up(name, 2)
    if name == "cifar10":
        batches = {f"data_batch_{k + 1}": cifar_batch(train[0][k::5], train[1][k::5]) for k in range(5)}
        return {**batches, "test_batch": cifar_batch(*test)}
    if name == "svhn":
        return {"train_32x32.mat": svhn_file(*train), "test_32x32.mat": svhn_file(*test)}
    if name.startswith("emnist"):
        return {"gzip.zip": emnist_archive(name.removeprefix("emnist-"), {"train": train, "test": test})}
    labelled = qmnist_labels if name == "qmnist" else idx
    contents = [idx(train[0]), labelled(train[1]), idx(test[0]), labelled(test[1])]
    return {file: gzip.compress(data) for file, data in zip(SOURCES[name].files, contents, strict=True)}


def in_order(name: str, images: Bytes, labels: Bytes) -> tuple[Bytes, Bytes]:
    """Images as they come out of five batches; other datasets keep their order."""
    order = [k for part in range(5) for k in range(part, COUNT, 5)] if name == "cifar10" else list(range(COUNT))
    return images[order], labels[order]


def write_known(monkeypatch: pytest.MonkeyPatch, name: str, data_dir: Path) -> None:
    """Write small files of a dataset, which are the ones that are known."""
    files = files_of(name)
    know(monkeypatch, name, files=files)
    folder = data_dir / SOURCES[name].folder
    folder.mkdir(parents=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)


NEW = ("kmnist", "qmnist", "emnist-letters", "emnist-balanced", "cifar10", "svhn")


@pytest.fixture(params=NEW)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def given(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data dir with small files of a dataset, which are the ones that are known."""
    write_known(monkeypatch, name, tmp_path / "given")
    return tmp_path / "given"


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_files_are_read_upright_in_colour_and_with_classes_from_zero(given: Path, name: str, train: bool) -> None:
    source = SOURCES[name]
    data = load_dataset(name, source.side, given, train=train)
    images, labels = made_up(name, 1 if train else 2)
    images, labels = in_order(name, images, labels) if train else (images, labels)
    assert data.images.dtype == torch.uint8
    assert data.images.shape[1] == (3 if source.side == 32 else 1)
    assert data.images.numpy().reshape(images.shape).tolist() == images.tolist()
    assert data.labels.tolist() == labels.tolist()
    assert (data.name, data.classes) == (name, source.classes)
    assert load_dataset(name, 64, given, train=train).images.shape[2:] == (64, 64)


def test_torchvision_reads_the_same_from_the_same_folder(
    given: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCES[name]
    folder = given / source.folder
    if name == "cifar10":
        md5 = {file: hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest() for file in
               source.files}  # fmt: skip
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(source.classes)}))
        for table in ("train_list", "test_list"):
            known = [[file, md5[file]] for file, _ in getattr(datasets.CIFAR10, table)]
            monkeypatch.setattr(datasets.CIFAR10, table, known)
        monkeypatch.setitem(datasets.CIFAR10.meta, "md5", None)
        theirs: Any = datasets.CIFAR10(given)
        theirs.data = theirs.data.transpose(0, 3, 1, 2)
    elif name == "svhn":
        digest = hashlib.md5((folder / "train_32x32.mat").read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(datasets.SVHN.split_list, "train", ["", "train_32x32.mat", digest])
        theirs = datasets.SVHN(folder)
        theirs.targets = theirs.labels
    elif name.startswith("emnist"):
        with zipfile.ZipFile(folder / "gzip.zip") as archive:
            for member in archive.namelist():
                (folder / Path(member).stem).write_bytes(gzip.decompress(archive.read(member)))
        theirs = datasets.EMNIST(given, split=name.removeprefix("emnist-"))
        theirs.data = theirs.data.transpose(1, 2)  # upright
        theirs.targets = theirs.targets - source.first_label
    else:
        for path in list(folder.glob("*.gz")):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        theirs = getattr(datasets, source.title)(given)
        theirs.targets = theirs.targets[:, 0] if name == "qmnist" else theirs.targets
    ours = load_dataset(name, source.side, given)
    assert ours.images.flatten().tolist() == torch.as_tensor(theirs.data).flatten().tolist()
    assert ours.labels.tolist() == list(map(int, theirs.targets))


@pytest.mark.usefixtures("no_sockets")
def test_a_file_that_is_missing_or_altered_is_named(given: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPMCTL_OFFLINE", "0")
    source = SOURCES[name]
    file = list(source.files)[-1]
    path = given / source.folder / file
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DataError) as caught:
        load_dataset(name, 32, given)
    assert caught.value.message == (
        f"{path} does not match the checksum of the {source.title} file of that name: wrong or truncated"
    )
    assert caught.value.hint == f"pass the folder that contains {source.folder} as data_dir='DIR'"
    path.unlink()
    with pytest.raises(DataError, match=f"incomplete: {source.folder}/{file} is missing"):
        load_dataset(name, 32, given)


def test_files_in_a_plain_folder_are_found(given: Path, name: str) -> None:
    folder = given / SOURCES[name].folder
    assert load_dataset(name, 32, folder).digest() == load_dataset(name, 32, given).digest()


def published(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """What a server offers: the files, or an archive of them."""
    if name != "cifar10":
        return files
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for file, data in [*files.items(), ("readme.html", b"not needed")]:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {"cifar-10-python.tar.gz": packed.getvalue()}


def test_it_is_downloaded_into_the_cache_with_its_size_said_before(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DDPMCTL_OFFLINE", "0")
    caplog.set_level("INFO", "ddpmctl")
    files = files_of(name)
    offered = published(name, files)
    know(monkeypatch, name, files=files, archives=offered)
    source = SOURCES[name]
    with serving(mirror(offered)) as address:
        use_mirrors(monkeypatch, address, name=name)
        data = load_dataset(name, source.side)
    assert caplog.messages == [f"downloading {source.title} ({SIZES[name]}) into {cache}"]
    assert [path for path in left_in(cache) if (cache / path).is_file()] == sorted(
        f"{source.folder}/{file}" for file in files
    )
    assert data.digest() == load_dataset(name, source.side).digest()
    assert fetch(name) == cache / Path(source.folder).parts[0]


SIZES = {
    "kmnist": "21 MB", "qmnist": "20 MB", "emnist-letters": "562 MB", "emnist-balanced": "562 MB",
    "cifar10": "170 MB", "svhn": "246 MB",
}  # fmt: skip
"""As the servers tell them; those of QMNIST are of its repository."""


@pytest.mark.usefixtures("no_sockets")
def test_offline_nothing_is_downloaded(name: str, cache: Path) -> None:
    assert os.environ["DDPMCTL_OFFLINE"] == "1"
    if name == "svhn":
        pytest.importorskip("scipy.io", reason="SciPy, the extra svhn, is not installed")
    title = SOURCES[name].title
    with pytest.raises(DataError, match=f"^{title} is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download$"):
        load_dataset(name, 32)
    assert not cache.exists()


def test_a_download_of_another_checksum_is_not_unpacked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPMCTL_OFFLINE", "0")
    files = files_of("cifar10")
    offered = published("cifar10", files)
    know(monkeypatch, "cifar10", files=files)
    monkeypatch.setattr(tarfile, "open", lambda *arguments: pytest.fail("it was opened"))
    with serving(mirror(offered)) as address:
        use_mirrors(monkeypatch, address, name="cifar10")
        with pytest.raises(DataError, match="does not have the expected checksum: wrong or truncated"):
            load_dataset("cifar10", 32)
    assert left_in(cache) == []


@pytest.mark.parametrize("lacking", ["absent", "link"])
def test_an_archive_without_its_files_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: str
) -> None:
    monkeypatch.setenv("DDPMCTL_OFFLINE", "0")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        if lacking == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    offered = {"cifar-10-python.tar.gz": packed.getvalue()}
    know(monkeypatch, "cifar10", archives=offered)
    with serving(mirror(offered)) as address:
        use_mirrors(monkeypatch, address, name="cifar10")
        with pytest.raises(DataError, match=r"^the download of CIFAR10 failed: "):
            load_dataset("cifar10", 32)
    assert left_in(cache) == []


class _Calls:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("known", [False, True], ids=["of another checksum", "of the right checksum"])
def test_no_pickle_calls_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    files = files_of("cifar10") | {"data_batch_3": pickle.dumps(_Calls(str(tmp_path / "called")), protocol=2)}
    if known:
        know(monkeypatch, "cifar10", files=files)
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    refused = (pickle.UnpicklingError, "cannot contain posix.mkdir") if known else (DataError, "checksum")
    with pytest.raises(refused[0], match=refused[1]):
        load_dataset("cifar10", 32, tmp_path)
    assert not (tmp_path / "called").exists()


def test_svhn_without_scipy_is_said_before_anything_else(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ddpmctl.imports.import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name=name))
    )
    monkeypatch.setattr(downloads, "download", lambda *arguments: pytest.fail("it was downloaded"))
    with pytest.raises(DdpmctlError) as caught:
        load_dataset("svhn", 32)
    assert "SciPy" in caught.value.message
    assert caught.value.hint == "in the project's folder: pip install '.[svhn]'"


def test_the_table_agrees_with_torchvision() -> None:
    def urls(name: str) -> set[str]:
        return {mirror + file for mirror in SOURCES[name].mirrors for file in SOURCES[name].archives}

    for name, theirs in (
        ("mnist", datasets.MNIST),
        ("fashion-mnist", datasets.FashionMNIST),
        ("kmnist", datasets.KMNIST),
    ):
        assert urls(name) == {mirror + file for mirror in theirs.mirrors for file, _ in theirs.resources}
    assert urls("qmnist") == {url for part in ("train", "test") for url, _ in datasets.QMNIST.resources[part]}
    assert urls("emnist-letters") == urls("emnist-balanced") == {datasets.EMNIST.url}
    assert urls("cifar10") == {datasets.CIFAR10.url}
    assert urls("svhn") == {datasets.SVHN.split_list[part][0] for part in ("train", "test")}
    for name, source in SOURCES.items():
        assert hasattr(datasets, source.title), name
        assert all(len(digest) == 64 for digest in [*source.files.values(), *source.archives.values()])
    assert SOURCES["kmnist"].classes == tuple(datasets.KMNIST.classes)
    assert SOURCES["fashion-mnist"].classes == tuple(datasets.FashionMNIST.classes)
    assert ("N/A", *SOURCES["emnist-letters"].classes) == tuple(datasets.EMNIST.classes_split_dict["letters"])
    balanced = [character.removeprefix("small ") for character in SOURCES["emnist-balanced"].classes]
    assert balanced == datasets.EMNIST.classes_split_dict["balanced"]


def test_every_class_can_be_typed() -> None:
    for source in SOURCES.values():
        assert class_names_problem(source.classes) is None
        for index, name in enumerate(source.classes):
            assert resolve_label(name, source.classes) == index
