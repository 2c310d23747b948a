"""Image folders: any shape, colour and format; unused files are reported, and nothing is misread."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset
from ddpmctl.errors import DataError, UsageError


def write(path: Path, colour: tuple[int, int, int] | int = (200, 30, 30), size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)
    return path


def load(path: Path, **settings: object) -> Dataset:
    return load_dataset(f"folder:{path}", 32, **settings)  # type: ignore[arg-type]


def test_folders_are_classes_and_pictures_of_any_kind_are_squares_of_one_size(tmp_path: Path) -> None:
    write(tmp_path / "red cats" / "wide.jpg", size=(200, 20))
    write(tmp_path / "red cats" / "deep" / "tall.png", size=(5, 90))
    write(tmp_path / "Dogs" / "a.webp", (0, 0, 250))
    write(tmp_path / "Dogs" / "b.gif", 90)
    write(tmp_path / "Dogs" / "c.bmp", 0, (1, 1))
    write(tmp_path / ".hidden" / "x.png")
    write(tmp_path / "Dogs" / ".thumbnails" / "x.png")
    data = load(tmp_path)
    assert data.classes == ("Dogs", "red cats")
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.images.shape == (5, 3, 32, 32)
    assert data.images.dtype == torch.uint8
    blue, grey = data.images[0].float(), data.images[1]
    assert blue[2].mean() > 200
    assert blue[0].mean() < 60
    assert grey.unique().tolist() == [90]
    red = data.images[3].float()
    assert red[0].mean() == pytest.approx(200, abs=8)


def test_pictures_without_colour_are_grey_whatever_their_mode(tmp_path: Path) -> None:
    write(tmp_path / "a" / "grey.png", 77)
    write(tmp_path / "a" / "rgb.png", (77, 77, 77))
    Image.new("1", (9, 9), 1).save(tmp_path / "a" / "bit.png")
    Image.fromarray(np.full((9, 9), 65535, np.uint16)).save(tmp_path / "a" / "deep.png")
    data = load(tmp_path)
    assert data.images.shape == (4, 1, 32, 32)
    assert [int(image.max()) for image in data.images] == [255, 255, 77, 77]
    assert load(tmp_path, channels=3).images.shape == (4, 3, 32, 32)


def test_channels_may_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a" / "red.png", (255, 0, 0))
    assert load(tmp_path).images.shape[1] == 3
    grey = load(tmp_path, channels=1).images
    assert grey.shape[1] == 1
    assert int(grey[0, 0, 0, 0]) == 76  # the weight of red in brightness


def test_cropping_cuts_the_ends_and_padding_shows_them_beside_black(tmp_path: Path) -> None:
    stripes = np.zeros((20, 60), np.uint8)
    stripes[:, :20], stripes[:, 40:] = 255, 255
    (tmp_path / "a").mkdir()
    Image.fromarray(stripes).save(tmp_path / "a" / "x.png")
    cropped, padded = (load(tmp_path, fit=fit).images[0, 0] for fit in ("crop", "pad"))
    assert cropped.float().mean() < 40  # the dark middle
    assert padded[0].max() == 0
    assert padded[16, :8].min() > 240
    assert padded[16, 14:18].max() < 15


def test_what_is_turned_is_turned_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    upside = np.zeros((32, 32), np.uint8)
    upside[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(upside).save(tmp_path / "a" / "b.jpg", exif=exif, quality=95)
    Image.fromarray(upside.astype(np.uint16) * 257).save(tmp_path / "a" / "c.png", exif=exif)
    for picture in load(tmp_path).images[:, 0].float():
        assert picture[:14].max() < 40
        assert picture[18:].min() > 215


def test_files_that_are_not_pictures_are_named_with_the_reason(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / "a" / f"{k}.png")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "cut.png").write_bytes(write(tmp_path / "b" / "whole.png", size=(300, 300)).read_bytes()[:200])
    notices: list[str] = []
    data = load(tmp_path, notice=notices.append)
    assert len(data) == 4
    assert notices[0].startswith("2 files and folders are not used: ")
    assert "a/notes.txt: not an image in a supported format" in notices[0]
    assert "a/cut.png: " in notices[0]


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_600, 12_000, 60_000])
def test_a_decompression_bomb_is_never_unpacked(tmp_path: Path, side: int) -> None:
    write(tmp_path / "a" / "fine.png")
    (tmp_path / "a" / "bomb.png").write_bytes(bomb(side))
    notices: list[str] = []
    assert len(load(tmp_path, notice=notices.append)) == 1
    assert "a/bomb.png: " in notices[0]


def test_a_tenth_of_each_class_is_kept_apart(tmp_path: Path) -> None:
    for name, count in (("a", 25), ("b", 12), ("c", 3)):
        for k in range(count):
            write(tmp_path / name / f"{k:02}.png", k)
    train, test = load(tmp_path), load(tmp_path, train=False)
    assert [int((train.labels == k).sum()) for k in range(3)] == [23, 11, 3]
    assert [int((test.labels == k).sum()) for k in range(3)] == [2, 1, 0]
    assert train.classes == test.classes == ("a", "b", "c")
    assert load(tmp_path).digest() == train.digest()


def test_captions_beside_pictures_do_not_take_the_test_part(tmp_path: Path) -> None:
    for k in range(20):
        write(tmp_path / "a" / f"{k:02}.png", k)
        (tmp_path / "a" / f"{k:02}.txt").write_text("every second file, and so every tenth")
    assert (len(load(tmp_path)), len(load(tmp_path, train=False))) == (18, 2)


def test_a_set_without_test_pictures_says_how_to_get_some(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match="contains no test images") as caught:
        load(tmp_path, train=False)
    assert caught.value.hint == (
        "provide at least 10 images of a class, or PATH/train and PATH/test with the same class folders"
    )


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="contains no class folder with images") as caught:
        load(tmp_path)
    assert caught.value.hint == "one folder per class: PATH/cats/1.jpg, PATH/dogs/2.png"
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="contains no class folder with images"):
        load(tmp_path)
    (tmp_path / "a" / "x.txt").write_text("x")
    notices: list[str] = []
    with pytest.raises(DataError, match="contains no class folder with images"):
        load(tmp_path, notice=notices.append)
    assert "a/: contains no images" in notices[0], "the reason, although there is nothing to load"
    write(tmp_path / "loose.png")
    with pytest.raises(DataError, match="contains 1 image outside class folders"):
        load(tmp_path)
    (tmp_path / "a" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no readable image in"):
        load(tmp_path)
    with pytest.raises(UsageError, match="requires a path, as in folder:PATH"):
        load_dataset("folder", 32)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (
            "black cats",
            "black-cats",
            "the class names 'black cats' and 'black-cats' are ambiguous: "
            "they differ only in case, accents or separators",
        ),
        ("b", "B", "the class names 'B' and 'b' are ambiguous: they differ only in case, accents or separators"),
        ("caf\u00e9", "cafe\u0301", "are ambiguous: they differ only in case, accents or separators"),
        ("a", "  ", "a class has an empty name"),
        ("a", "red\x1b[31m", r"the class name 'red\x1b[31m' contains characters that cannot be displayed"),
        ("a", "b\udcff", r"the class name 'b\udcff' contains characters that cannot be displayed"),
    ],
)
def test_class_names_that_cannot_be_typed_or_shown_are_refused(
    tmp_path: Path, first: str, second: str, error: str
) -> None:
    write(tmp_path / first / "x.png")
    write(tmp_path / second / "x.png")
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert error in caught.value.message
    assert caught.value.hint == "rename one of the folders"


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "2", "1", "class 11", "class 9"):
        write(tmp_path / name / "x.png")
    assert load(tmp_path).classes == ("1", "2", "10", "class 9", "class 11")


def test_a_path_that_cannot_be_displayed_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "own\n" / "a" / "x.png")
    with pytest.raises(DataError, match="contains characters that cannot be displayed") as caught:
        load(tmp_path / "own\n")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "rename the folder"


def test_the_home_directory_may_be_written_short_if_the_user_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "own" / "a" / "x.png")
    assert len(load_dataset("folder:~/own", 32)) == 1
    with pytest.raises(UsageError) as caught:
        load_dataset("folder:~nosuchuser/x", 32)
    assert caught.value.message == "'~nosuchuser/x': unknown home directory ~nosuchuser"
