"""Pixel conversion of image files: the foreground stays visible, scaling is per set, nothing turns blank."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpmctl.data import load_dataset
from ddpmctl.data.dataset import Dataset

SIDE = 32


def save(path: Path, pixels: NDArray[Any] | Image.Image, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **settings)
    return path


def load(path: Path, **settings: Any) -> tuple[Dataset, str]:
    """The set, and all that is said about it."""
    notices: list[str] = []
    return load_dataset(f"folder:{path}", SIDE, notice=notices.append, **settings), "\n".join(notices)


def stroke(ink: int, background: int = 0, alpha: bool = True) -> NDArray[np.uint8]:
    """A cross of ink, 10 pixels wide, on transparent background of some colour that nobody sees."""
    pixels = np.full((SIDE, SIDE, 4), background, np.uint8)
    pixels[..., 3] = 0 if alpha else 255
    for cross in (np.s_[11:21, :], np.s_[:, 11:21]):
        pixels[cross] = (ink, ink, ink, 255)
    return pixels


def grades(top: float, kind: type) -> NDArray[Any]:
    """Columns of 0, half and all of a value."""
    half = top / 2 if np.issubdtype(kind, np.floating) else top // 2
    columns = np.repeat(np.array([0, half, top]), 12)[None]
    return np.repeat(columns, 36, axis=0).astype(kind)


def shades(image: torch.Tensor) -> list[int]:
    """The pixels in the middle of each column of `grades`."""
    return [int(image[0, SIDE // 2, column]) for column in (4, 16, 27)]


@pytest.mark.parametrize("save_as", ["RGBA", "LA", "P", "RGBa in a GIF"])
@pytest.mark.parametrize(("ink", "background"), [(0, 255), (10, 255), (255, 0)])
def test_ink_stays_visible_on_transparent_background(tmp_path: Path, save_as: str, ink: int, background: int) -> None:
    picture = Image.fromarray(stroke(ink))
    suffix = "gif" if "GIF" in save_as else "png"
    if save_as in ("LA", "P"):
        picture = picture.convert(save_as) if save_as == "LA" else picture.quantize(4)
    save(tmp_path / "a" / f"1.{suffix}", picture)
    data, said = load(tmp_path)
    image = data.images[0, 0]
    assert int(image[16, 16]) == pytest.approx(ink, abs=2)
    assert int(image[2, 2]) == background
    assert f"1 image is transparent, composited on a {'white' if background else 'black'} background" in said


@pytest.mark.parametrize(
    ("depth", "key", "row"), [(1, 1, b"\xff\xf0\x0f"), (2, 3, b"\xff\xff\x00"), (4, 15, b"\xff\xff\x00")]
)
def test_one_transparent_grey_level_is_transparent_at_every_depth(
    tmp_path: Path, depth: int, key: int, row: bytes
) -> None:
    """Some optimizers of PNG files store black ink like this."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width = len(row) * 8 // depth
    header = struct.pack(">IIBBBBB", width, width, depth, 0, 0, 0, 0)
    lines = (b"\0" + row) * width
    data = chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", key))
    data += chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    found, said = load(tmp_path)
    assert "is transparent" in said
    assert (int(found.images.min()), int(found.images.max())) == (0, 255)


def test_the_background_is_the_same_in_the_whole_set_whatever_part_is_loaded(tmp_path: Path) -> None:
    for k in range(10):  # the last one, which is light, is kept for evaluation
        save(tmp_path / "a" / f"{k}.png", stroke(200 if k == 9 else 0))
    save(tmp_path / "b" / "opaque.png", np.full((40, 40), 90, np.uint8))
    train, said = load(tmp_path)
    test, _ = load(tmp_path, train=False)
    assert train.images[train.labels == 0][:, 0, 2, 2].unique().tolist() == [255]
    assert int(test.images[0, 0, 2, 2]) == 255
    assert "10 images are transparent, composited on a white background: the foreground is dark" in said


def test_of_light_and_dark_ink_neither_vanishes(tmp_path: Path) -> None:
    for k in range(6):
        save(tmp_path / "ab"[k % 2] / f"{k}.png", stroke(255 * (k % 2)))
    data, said = load(tmp_path)
    spread = data.images.flatten(1).max(1).values.int() - data.images.flatten(1).min(1).values.int()
    assert spread.min() > 100
    assert len(data.images[:, 0, 2, 2].unique()) == 1, "one background for all"
    assert "grey background: the foreground is light and dark" in said


def test_a_single_picture_that_does_not_suit_the_background_is_named(tmp_path: Path) -> None:
    for k in range(20):
        save(tmp_path / "a" / f"{k:02}.png", stroke(250 if k == 3 else 0))
    _, said = load(tmp_path)
    assert "1 image is hardly visible on the white background" in said
    assert "a/03.png" in said


def test_transparent_pictures_are_padded_with_their_background(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", stroke(0)[8:24])
    image = load(tmp_path, fit="pad")[0].images[0, 0]
    assert image[:6].unique().tolist() == [255]


@pytest.mark.parametrize(
    ("kind", "suffix", "top", "white"),
    [
        (np.uint16, "png", 65535, 65535),
        (np.uint16, "tif", 40000, 65535),
        (np.uint16, "png", 4000, 4095),
        (np.uint16, "tif", 4095, 4095),
        (np.uint16, "png", 250, 255),
        (np.int32, "tif", 100, 255),
        (np.int32, "tif", 3000, 4095),
        (np.int32, "tif", 60000, 65535),
        (np.int32, "tif", 1_000_000, 2**20 - 1),
        (np.float32, "tif", 1.0, 1),
        (np.float32, "tif", 0.5, 1),
        (np.float32, "tif", 200.0, 255),
        (np.float32, "tif", 9.0, 9),
        (np.float32, "tif", 5000.0, 5000),
        (np.uint8, "png", 1, 1),
        (np.uint8, "png", 9, 15),
        (np.uint8, "bmp", 6, 7),
        (np.uint8, "png", 200, 255),
    ],
)
def test_the_range_is_that_of_the_format_and_of_the_whole_set(
    tmp_path: Path, kind: type, suffix: str, top: float, white: float
) -> None:
    for k in range(9):
        save(tmp_path / "a" / f"{k}.{suffix}", grades(top / 8 if kind is np.float32 else 0, kind))
    save(tmp_path / "a" / f"9.{suffix}", grades(top, kind))  # kept for evaluation
    train, said = load(tmp_path)
    test, _ = load(tmp_path, train=False)
    half = top / 2 if kind is np.float32 else top // 2
    assert shades(test.images[0]) == pytest.approx([0, 255 * half / white, 255 * top / white], abs=1.5)
    if kind is np.float32:
        assert shades(train.images[0])[2] == pytest.approx(255 * top / 8 / white, abs=1.5)
    if (kind, white) != (np.uint8, 255):
        assert f"0 becomes black and {white:g} white" in said


def test_negative_numbers_are_not_cut_off(tmp_path: Path) -> None:
    centred = grades(2, np.float32) - 1
    save(tmp_path / "centred" / "a" / "x.tif", centred)
    save(tmp_path / "tomography" / "a" / "x.tif", (centred * 1000).astype(np.int32))
    for name in ("centred", "tomography"):
        assert shades(load(tmp_path / name)[0].images[0]) == pytest.approx([0, 127.5, 255], abs=1)


def test_colours_of_16_bits_are_scaled_like_grey_ones(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "a").mkdir()
    for suffix in ("png", "tiff"):
        blue_green_red = np.zeros((40, 40, 3), np.uint16)
        blue_green_red[..., 2], blue_green_red[..., 0] = 4095, 1000
        assert cv2.imwrite(str(tmp_path / "a" / f"x.{suffix}"), blue_green_red)
    data, said = load(tmp_path)
    for image in data.images:
        assert image[:, 16, 16].tolist() == pytest.approx([255, 0, 62], abs=1)
    assert "2 images with 16-bit pixels: 0 becomes black and 4095 white" in said


def test_ink_of_16_bits_stays_visible(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "a").mkdir()
    assert cv2.imwrite(str(tmp_path / "a" / "x.png"), stroke(0).astype(np.uint16) * 257)
    image = load(tmp_path)[0].images[0, 0]
    assert (int(image[16, 16]), int(image[2, 2])) == (0, 255)


def test_a_mask_among_photographs_is_not_stretched_but_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    save(tmp_path / "a" / "photo.png", noise)
    save(tmp_path / "b" / "mask.png", grades(9, np.uint8))
    data, said = load(tmp_path)
    assert int(data.images[1].max()) <= 10
    assert "1 image is almost without contrast after conversion: b/mask.png" in said
    assert "becomes black" not in said


def test_pictures_of_one_colour_are_counted_and_named(tmp_path: Path) -> None:
    for k in range(7):
        save(tmp_path / "a" / f"{k}.png", Image.new("RGB", (9, 9), (k, 200, 30)))
    save(tmp_path / "b" / "x.png", np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    save(tmp_path / "c" / "nothing.png", Image.new("RGBA", (9, 9), (5, 5, 5, 0)))
    _, said = load(tmp_path)
    assert "8 images are uniform after conversion: a/0.png, a/1.png, a/2.png, a/3.png, a/4.png, and 3 more" in (said)


@pytest.mark.parametrize(
    "make",
    [
        lambda grey: grey.convert("CMYK"),
        lambda grey: grey.convert("RGB").convert("YCbCr"),
        lambda grey: grey.convert("RGB"),
        lambda grey: grey.convert("P"),
        lambda grey: grey,
    ],
    ids=["CMYK", "YCbCr", "RGB", "P", "L"],
)
def test_other_modes_keep_their_brightness(tmp_path: Path, make: Callable[[Image.Image], Image.Image]) -> None:
    grey = Image.fromarray(grades(255, np.uint8))
    picture = make(grey)
    save(tmp_path / "a" / ("x.tif" if picture.mode in ("CMYK", "YCbCr") else "x.png"), picture)
    assert shades(load(tmp_path)[0].images[0]) == pytest.approx([0, 127, 255], abs=3)


def test_pixels_that_are_not_numbers_are_refused_with_the_reason(tmp_path: Path) -> None:
    good, nan, infinite = (grades(1, np.float32) for _ in range(3))
    nan[3, 3], infinite[3, 3] = np.nan, np.inf
    for name, pixels in (("good", good), ("nan", nan), ("infinite", infinite)):
        save(tmp_path / "a" / f"{name}.tif", pixels)
    data, said = load(tmp_path)
    assert len(data) == 1
    assert "a/infinite.tif: contains pixels that are NaN or infinite; a/nan.tif: contains pixels" in said
    assert shades(data.images[0])[2] == 255


def test_of_several_frames_or_pages_the_first_is_used_and_that_is_said(tmp_path: Path) -> None:
    first, second = (Image.fromarray(grades(top, np.uint8)) for top in (255, 128))
    for suffix in ("gif", "webp", "tif", "png"):
        save(tmp_path / "a" / f"x.{suffix}", first, save_all=True, append_images=[second])
    save(tmp_path / "a" / "still.gif", first)
    data, said = load(tmp_path)
    for image in data.images:
        assert shades(image) == pytest.approx([0, 127, 255], abs=6)
    assert ("4 images are multi-frame; only the first frame is used: a/x.gif, a/x.png, a/x.tif, a/x.webp") in said


def test_truncated_files_are_skipped_with_the_reason(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "tif", "webp"):
        whole = save(tmp_path / "a" / f"x.{suffix}", noise).read_bytes()
        (tmp_path / "a" / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    data, said = load(tmp_path)
    assert len(data) == 4
    assert "4 files and folders are not used: a/cut.jpg: " in said
