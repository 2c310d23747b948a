"""Image files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpmctl.errors import DdpmctlError, ExitCode, UsageError
from ddpmctl.imaging.files import check_target, free_path, npz, numbered_paths, png, safe_stem, write_atomic

from .support import noise


@pytest.mark.parametrize("shape", [(32, 32), (8, 16, 3)])
def test_a_png_holds_the_pixels(shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    read = Image.open(io.BytesIO(png(image)))
    assert (read.format, read.mode) == ("PNG", "RGB" if len(shape) == 3 else "L")
    assert np.array_equal(np.asarray(read), image)


def test_an_array_holds_images_labels_and_seeds() -> None:
    images = noise(2, 32, 32)
    with np.load(io.BytesIO(npz(images, [8, 3], [7, 2**62], ("zero", "été")))) as read:
        arrays = dict(read)
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "images": (np.uint8, (2, 32, 32)),
        "labels": (np.int64, (2,)),
        "seeds": (np.int64, (2,)),
        "classes": (np.dtype("U4"), (2,)),
    }
    assert arrays["classes"].tolist() == ["zero", "été"]
    assert np.array_equal(arrays["images"], images)
    assert (arrays["labels"].tolist(), arrays["seeds"].tolist()) == ([8, 3], [7, 2**62])


@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x.npz"])
def test_a_good_target_is_no_trouble_and_is_not_touched(tmp_path: Path, name: str) -> None:
    check_target(tmp_path / name, [".png", ".npz"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.jpg", "x", ".png", "x.png.txt"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_target(tmp_path / name, [".png", ".npz"])
    assert caught.value.message == f"'{tmp_path / name}' has an unsupported file extension"
    assert caught.value.hint == "use .png or .npz"


def test_a_target_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    missing = tmp_path / "missing" / "x.png"
    for path, message, hint in (
        (tmp_path / "folder.png", f"{tmp_path / 'folder.png'} is a folder", "pass a file as output"),
        (missing, f"the folder {missing.parent} does not exist", f"mkdir -p '{missing.parent}'"),
    ):
        with pytest.raises(DdpmctlError) as caught:
            check_target(path, [".png"])
        assert (caught.value.message, caught.value.hint) == (message, hint)
        assert caught.value.exit_code == ExitCode.FAILED


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_target_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    refused = tmp_path if kind == "folder" else path
    # By a patch, since root may write everywhere.
    monkeypatch.setattr("os.access", lambda asked, mode: Path(asked) != refused)
    with pytest.raises(DdpmctlError) as caught:
        check_target(path, [".png"])
    assert caught.value.message == f"permission denied: {path}"


def test_a_file_is_written_and_overwritten_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    for data in (b"first and longer", b"second"):
        write_atomic(path, data)
        assert path.read_bytes() == data
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("operation", ["ddpmctl.durable.write_file", "pathlib.Path.replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def half(path: Path, argument: Any, **_: Any) -> None:
        if operation.endswith("write_file"):
            path.write_bytes(argument[:3])
        raise OSError("the disk is full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk is full"):
        patched.setattr(operation, half)
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_plain_file_is_written_to(tmp_path: Path) -> None:
    write_atomic(Path("/dev/null"), b"data")
    assert Path("/dev/null").is_char_device()


def test_a_default_name_takes_the_first_free_number(tmp_path: Path) -> None:
    path = tmp_path / "three.gif"
    taken = []
    for _ in range(3):
        free = free_path(path)
        free.touch()
        taken.append(free.name)
    assert taken == ["three.gif", "three-1.gif", "three-2.gif"]


@pytest.mark.parametrize(
    ("present", "count", "fresh", "expected"),
    [
        ([], 2, True, ["x-1.png", "x-2.png"]),
        ([], 10, False, [f"x-{i:02d}.png" for i in range(1, 11)]),
        (["x-1.png", "x-02.png"], 2, False, ["x-1.png", "x-2.png"]),
        (["x-1.png", "x-02.png", "y-9.png", "x-9.jpg", "x-z.png"], 2, True, ["x-3.png", "x-4.png"]),
        (["x-98.png"], 2, True, ["x-099.png", "x-100.png"]),
    ],
)
def test_numbered_names_sort_and_never_meet_when_fresh(
    tmp_path: Path, present: list[str], count: int, fresh: bool, expected: list[str]
) -> None:
    for name in present:
        (tmp_path / name).touch()
    paths = numbered_paths(tmp_path / "x.png", count, fresh=fresh)
    assert paths == [tmp_path / name for name in expected]
    assert sorted(paths) == paths


@pytest.mark.parametrize(
    ("name", "stem"),
    [("three", "three"), ("a/b", "a-b"), ("../x", "x"), ("T-shirt", "T-shirt"), ("é ?", "é"), ("/", "image")],
)
def test_a_class_name_becomes_a_file_name(name: str, stem: str) -> None:
    assert safe_stem(name) == stem


def test_a_long_class_name_leaves_room_for_a_number_and_a_suffix(tmp_path: Path) -> None:
    path = tmp_path / f"{safe_stem('字' * 200)}-training.gif"
    path.touch()
    numbered = numbered_paths(path, 1_000_000, fresh=True)[-1]
    numbered.touch()
    assert len(numbered.name.encode()) < 143
    assert set(numbered.stem) <= set("字-training0123456789")


def test_a_file_of_the_longest_name_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 251}.png"
    for data in (b"one", b"two"):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]
