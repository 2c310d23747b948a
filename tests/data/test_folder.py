"""One's own images: any shape, colour and format; what is none is named, and nothing is taken for what it is not."""

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


def test_what_is_transparent_is_black_and_what_is_turned_is_turned_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    clear = np.zeros((10, 10, 4), np.uint8)
    clear[..., :3], clear[:5, :, 3] = 255, 255
    Image.fromarray(clear).save(tmp_path / "a" / "a.png")
    upside = np.zeros((32, 32), np.uint8)
    upside[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(upside).save(tmp_path / "a" / "b.jpg", exif=exif, quality=95)
    first, second = load(tmp_path).images[:, 0].float()
    assert first[:14].min() > 240
    assert first[18:].max() < 15
    assert second[:14].max() < 40
    assert second[18:].min() > 215


def test_files_that_are_no_images_are_skipped_and_named(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / "a" / f"{k}.png")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "cut.png").write_bytes(write(tmp_path / "b" / "whole.png", size=(300, 300)).read_bytes()[:200])
    told: list[str] = []
    data = load(tmp_path, notice=told.append)
    assert len(data) == 4
    (words,) = told
    assert words.startswith("skipped 2 files that are no images: a/cut.png: ")
    assert "a/notes.txt: no format that is known" in words


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
    told: list[str] = []
    assert len(load(tmp_path, notice=told.append)) == 1
    assert "a/bomb.png: " in told[0]


def test_a_tenth_of_each_class_is_kept_apart(tmp_path: Path) -> None:
    for name, count in (("a", 25), ("b", 12), ("c", 3)):
        for k in range(count):
            write(tmp_path / name / f"{k:02}.png", k)
    train, test = load(tmp_path), load(tmp_path, train=False)
    assert [int((train.labels == k).sum()) for k in range(3)] == [23, 11, 3]
    assert [int((test.labels == k).sum()) for k in range(3)] == [2, 1, 0]
    assert train.classes == test.classes == ("a", "b", "c")
    assert load(tmp_path).digest() == train.digest()


def test_too_few_to_keep_some_apart_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match="is too small to keep images apart for judging"):
        load(tmp_path, train=False)


def test_folders_that_hold_no_images_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="holds no folder of images") as caught:
        load(tmp_path)
    assert caught.value.hint == "a folder a class: PATH/cats/1.jpg, PATH/dogs/2.png"
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no image that can be read"):
        load(tmp_path)
    (tmp_path / "a" / "x.txt").write_text("x")
    with pytest.raises(DataError, match="holds no image that can be read"):
        load(tmp_path)
    write(tmp_path / "b" / "x.png")
    with pytest.raises(DataError, match=r"no image of a in .* can be read"):
        load(tmp_path)
    write(tmp_path / "B" / "x.png")
    with pytest.raises(DataError, match="differ in nothing but their case"):
        load(tmp_path)
    with pytest.raises(UsageError, match="needs a path after a colon"):
        load_dataset("folder", 32)
