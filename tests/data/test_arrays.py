"""Arrays of images and labels as a dataset: archives of one's own, those of generate, and folders of shards."""

import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpmctl.data import arrays, load_dataset, resolve_dataset
from ddpmctl.data.dataset import resized
from ddpmctl.data.report import LoadReport
from ddpmctl.errors import DataError, UsageError
from tests.conftest import Cli

NAMES = np.array(["cat", "dog", "bird"])


def images(count: int, side: int = 32, colours: int = 0) -> Any:
    shape = (count, side, side, colours) if colours else (count, side, side)
    return np.random.default_rng(count).integers(0, 256, shape, np.uint8)


def labelled(count: int, classes: int = 3) -> Any:
    return np.arange(count) % classes


def save(path: Path, **values: Any) -> str:
    np.savez_compressed(path, **values)
    return f"arrays:{path}"


@pytest.mark.parametrize("colours", [0, 3])
@pytest.mark.parametrize("size", [32, 16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_images_and_labels_come_back(tmp_path: Path, colours: int, size: int, order: Any) -> None:
    pixels, labels = images(60, colours=colours), labelled(60)
    name = save(tmp_path / "a.npz", images=np.array(pixels, order=order), labels=labels, classes=NAMES)
    train, test = (load_dataset(name, size, train=part) for part in (True, False))
    assert (train.name, train.classes, test.classes) == (name, ("cat", "dog", "bird"), ("cat", "dog", "bird"))
    # Of each class, the tenth and the twentieth image.
    kept = [27, 28, 29, 57, 58, 59]
    expected = torch.from_numpy(pixels.reshape(60, 32, 32, -1).transpose(0, 3, 1, 2))
    trained = [k for k in range(60) if k not in kept]
    assert test.images.equal(resized(expected[kept], size))
    assert test.labels.tolist() == labels[kept].tolist()
    assert train.images.equal(resized(expected[trained], size))
    assert train.labels.tolist() == labels[trained].tolist()
    assert train.images.shape[1] == (3 if colours else 1)
    assert load_dataset(name, size).digest() == train.digest()


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64, ">i8"])
def test_labels_may_be_integers_of_any_type(tmp_path: Path, kind: Any) -> None:
    data = load_dataset(save(tmp_path / "a.npz", images=images(9), labels=labelled(9).astype(kind)), 32)
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [0, 1, 2] * 3
    assert data.classes == ("0", "1", "2")


def test_a_label_that_no_image_has_is_no_class(tmp_path: Path) -> None:
    unnamed = save(tmp_path / "a.npz", images=images(4), labels=np.array([8, 3, 3, 8]))
    assert load_dataset(unnamed, 32).classes == ("3", "8")
    assert load_dataset(unnamed, 32).labels.tolist() == [1, 0, 0, 1]
    report = LoadReport()
    named = save(tmp_path / "b.npz", images=images(4), labels=np.array([2, 0, 0, 2]), classes=NAMES)
    assert load_dataset(named, 32, report=report).classes == ("cat", "bird")
    assert report.notes() == ["there are no images of dog, which are not classes of this dataset"]


def test_without_ten_images_of_a_class_there_is_nothing_to_evaluate_on(tmp_path: Path) -> None:
    name = save(tmp_path / "a.npz", images=images(27), labels=labelled(27))
    assert len(load_dataset(name, 32)) == 27
    with pytest.raises(DataError) as caught:
        load_dataset(name, 32, train=False)
    assert caught.value.message == f"{tmp_path / 'a.npz'} contains no test images"
    assert caught.value.hint == "provide at least 10 images of a class"


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no labels": ({"images": images(9)}, "contains no array 'labels', only images", "numpy.savez_compressed"),
    "no images": ({"x": images(9), "labels": labelled(9)}, "contains no array 'images', only x, labels", "save one"),
    "floats": ({"images": images(9) / 255, "labels": labelled(9)}, "images has the type float64, not uint8", "astype"),
    "objects": (
        {"images": np.array([None, 1]), "labels": labelled(2)}, "images has the type object, not uint8", "astype",
    ),
    "not square": (
        {"images": images(9)[:, :30], "labels": labelled(9)},
        "images has the shape (9, 30, 32), not [N,H,H] or [N,H,H,3]", "an archive has images",
    ),
    "channels first": (
        {"images": images(9, colours=3).transpose(0, 3, 1, 2), "labels": labelled(9)},
        "images has the shape (9, 3, 32, 32), not [N,H,H] or [N,H,H,3]", "images.transpose(0, 2, 3, 1)",
    ),
    "one channel": (
        {"images": images(9)[:, None], "labels": labelled(9)}, "images has the shape (9, 1, 32, 32)", "images[:, 0]",
    ),
    "one colour": (
        {"images": images(9)[..., None], "labels": labelled(9)}, "images has the shape (9, 32, 32, 1)",
        "images[..., 0]",
    ),
    "one image": ({"images": images(9)[0], "labels": labelled(9)}, "images has the shape (32, 32)", "[N,H,H]"),
    "no image": ({"images": images(9)[:0], "labels": labelled(0)}, "images has the shape (0, 32, 32)", "[N,H,H]"),
    "few labels": (
        {"images": images(9), "labels": labelled(8)},
        "labels has the type int64 and the shape (8,), not 9 integers", "labels int[N]",
    ),
    "soft labels": (
        {"images": images(9), "labels": labelled(9) / 2}, "labels has the type float64 and the shape (9,)", "int[N]",
    ),
    "one-hot labels": (
        {"images": images(9), "labels": np.eye(9, dtype=int)}, "labels has the type int64 and the shape (9, 9)", "int",
    ),
    "negative labels": ({"images": images(9), "labels": labelled(9) - 1}, "labels contains -1", "from 0"),
    "huge labels": (
        {"images": images(9), "labels": np.full(9, 2**63, np.uint64)}, "labels contains -9223372036854775808", "from 0",
    ),
    "few names": (
        {"images": images(9), "labels": labelled(9), "classes": NAMES[:2]},
        "the label 2 has no name, classes has 2", "classes, the names by label",
    ),
    "numbers as names": (
        {"images": images(9), "labels": labelled(9), "classes": np.arange(3)},
        "classes has the type int64 and the shape (3,), not a list of text", "names",
    ),
    "equal names": (
        {"images": images(9), "labels": labelled(9), "classes": np.array(["a b", "A_B", "c"])},
        "the class names 'a b' and 'A_B' are ambiguous", "rename the classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arrays_are_refused_with_what_would_be_right(tmp_path: Path, kind: str) -> None:
    values, message, hint = WRONG[kind]
    with pytest.raises(DataError) as caught:
        load_dataset(save(tmp_path / "a.npz", **values), 32)
    assert message in caught.value.message
    assert str(tmp_path / "a.npz") in caught.value.message
    assert hint in (caught.value.hint or "")


def test_too_many_classes_are_refused(tmp_path: Path) -> None:
    name = save(tmp_path / "a.npz", images=np.zeros((10_001, 1, 1), np.uint8), labels=np.arange(10_001))
    with pytest.raises(DataError, match=r"has 10,001 different labels, more than 10,000"):
        load_dataset(name, 32)


def test_what_does_not_fit_into_memory_is_refused_by_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file of a megabyte that unpacks to a gigabyte.
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, shape, kind in (("images", (1000, 1024, 1024), "|u1"), ("labels", (1000,), "<i8")):
            with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for _ in range(1000):
                    file.write(bytes(int(np.prod(shape)) * np.dtype(kind).itemsize // 1000))
    monkeypatch.setattr(arrays, "available_memory", lambda: 2_000_000_000)
    monkeypatch.setattr(np, "load", lambda *arguments, **settings: pytest.fail("its arrays were read"))
    with pytest.raises(DataError) as caught:
        load_dataset(f"arrays:{tmp_path / 'a.npz'}", 32)
    assert caught.value.message == (
        f"{tmp_path / 'a.npz'} contains 1,000 images of 1024x1024 pixels: they need 2.1 GB of memory, "
        "and 2.0 GB are available"
    )
    assert caught.value.hint == "use fewer or smaller images"


def test_the_available_memory_is_that_of_this_machine() -> None:
    assert 10**8 < arrays.available_memory() < 10**14


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is not a valid \.npz archive: ") as caught:
        load_dataset(f"arrays:{tmp_path / 'a.npz'}", 32)
    assert caught.value.hint == arrays.FORM
    with pytest.raises(DataError, match=r"the file .*/b\.npz does not exist"):
        load_dataset(f"arrays:{tmp_path / 'b.npz'}", 32)


def test_damaged_archives_are_refused_whatever_the_damage(tmp_path: Path) -> None:
    generator, path = random.Random(0), tmp_path / "a.npz"
    pixels = np.repeat(images(3), 10, axis=0)
    name = save(path, images=pixels, labels=labelled(30), classes=NAMES)
    whole, original = path.read_bytes(), load_dataset(name, 32).digest()
    taken = 0
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        if generator.random() < 0.2:
            del changed[generator.randrange(len(changed)) :]
        path.write_bytes(changed)
        try:
            data = load_dataset(name, 32)
        except DataError:
            continue
        # Names of members and dates have no checksum, and neither has anything else that was not read.
        assert data.digest() == original or data.classes != ("cat", "dog", "bird")
        taken += 1
    assert taken < 150


def test_nothing_in_an_archive_is_unpickled(tmp_path: Path) -> None:
    name = save(
        tmp_path / "a.npz", images=images(9), labels=labelled(9), classes=np.array(["a", "b", None], dtype=object)
    )
    with pytest.raises(DataError, match="classes has the type object"):
        load_dataset(name, 32)


@pytest.mark.parametrize(("typed", "message"), [("arrays", "requires a path"), ("arrays:", "requires a path")])
def test_arrays_need_a_path(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(typed, 32)
    assert caught.value.hint == "dataset='arrays:FILE.npz'"


def test_the_path_is_made_absolute_and_the_options_of_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_dataset("arrays:a.npz") == (f"arrays:{tmp_path / 'a.npz'}", "", None)
    with pytest.raises(UsageError, match=r"^channels applies only to image folders, not to arrays$"):
        resolve_dataset("arrays:a.npz", channels=3)
    with pytest.raises(UsageError) as caught:
        load_dataset("a.npz", 32)
    assert (caught.value.message, caught.value.hint) == ("unknown dataset 'a.npz'", "for an archive: arrays:a.npz")


@pytest.fixture
def shards(tiny: Cli, tmp_path: Path) -> Path:
    """What ``generate --all`` writes: 50 images of ten classes in shards of 20."""
    made = tiny("generate", "--all", "-n", 50, "-o", tmp_path / "made", "--shard-size", 20, "--steps", 1, "--seed", 0)
    assert made.returncode == 0, made.stderr
    return tmp_path / "made"


def test_a_folder_of_shards_is_one_dataset(shards: Path) -> None:
    files = sorted(shards.glob("*.npz"))
    assert len(files) == 3
    data = load_dataset(f"arrays:{shards}", 32)
    pixels = np.concatenate([np.load(file)["images"] for file in files])
    assert data.images[:, 0].numpy().tolist() == pixels.tolist()
    assert data.labels.tolist() == [k % 10 for k in range(50)]
    assert data.classes == tuple("0123456789")
    files[1].unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(f"arrays:{shards}", 32)
    assert caught.value.message == f"1 of 3 shards are missing in {shards}"
    assert caught.value.hint == f"generate them: ddpmctl generate --all -o '{shards}'"


def test_shards_of_two_jobs_are_refused(shards: Path) -> None:
    (shards / "shard-00000-of-00003.npz").rename(shards / "shard-00000-of-00001.npz")
    with pytest.raises(DataError, match="shards are missing"):
        load_dataset(f"arrays:{shards}", 32)
    save(shards / "shard-00000-of-00003.npz", images=images(20), labels=labelled(20))
    with pytest.raises(DataError, match="is of another job"):
        load_dataset(f"arrays:{shards}", 32)
    (shards / "shard-00000-of-00001.npz").unlink()
    save(shards / "shard-00000-of-00003.npz", images=images(20, 28), labels=labelled(20))
    with pytest.raises(DataError, match="has images of another shape than the first shard"):
        load_dataset(f"arrays:{shards}", 32)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(f"arrays:{tmp_path}", 32)
    assert caught.value.message == f"{tmp_path} contains no shards of 'generate --all'"
    assert caught.value.hint == f"for a folder of images: folder:{tmp_path}"
