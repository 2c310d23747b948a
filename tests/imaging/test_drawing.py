"""Pictures as people make them, prepared as MNIST's digits are."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ddpmctl.data.dataset import resized
from ddpmctl.errors import DataError
from ddpmctl.imaging.drawing import Drawing, open_picture, prepare_drawing
from ddpmctl.model_images import default_fit, prepare_for_model
from ddpmctl.registry import DatasetRecord, FileRecord
from tests.builders import manifest, tiny_config

Floats = NDArray[np.float32]

THREE = [(20, 15), (45, 3), (74, 12), (74, 32), (44, 47), (76, 56), (84, 78), (52, 97), (14, 86)]
"""A three in percent of its box."""


def ink(
    height: int = 300, width: int = 400, box: tuple[int, int, int, int] = (120, 50, 280, 250), pen: int = 14
) -> Floats:
    """A three drawn with a pen, 0 for paper and 1 for ink."""
    left, top, right, bottom = box
    points = [(left + x * (right - left) / 100, top + y * (bottom - top) / 100) for x, y in THREE]
    drawn = np.zeros((height, width), np.uint8)
    cv2.polylines(drawn, [np.rint(np.array(points) * 8).astype(np.int32)], False, 255, pen, cv2.LINE_AA, 3)
    return np.asarray(drawn / 255, np.float32)


def picture(levels: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8))


def likeness(one: Drawing, other: Drawing) -> float:
    """Correlation of the pixels of two drawings, one of them moved by a pixel if that helps."""
    moved = (np.roll(other.pixels, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
    return max(float(np.corrcoef(one.pixels.ravel(), each.ravel())[0, 1]) for each in moved)


CLEAN = prepare_drawing(picture(255 - 255 * ink()))


FILES = {name: FileRecord(size=1, sha256="0" * 64) for name in ("weights.safetensors", "history.csv")}


# Against MNIST itself


def test_digits_of_mnist_come_back_from_pictures_of_them(mnist_dir: Path) -> None:
    from ddpmctl.data import load_dataset

    generator, apart, offsets = np.random.default_rng(0), [], []
    for digit in load_dataset("mnist", 28, mnist_dir, train=False).images[:20, 0].numpy():
        large = Image.fromarray(255 - digit).resize((336, 336), Image.Resampling.BICUBIC)
        width, height = (int(side) for side in generator.integers(340, 900, 2))
        page = Image.new("L", (width, height), 255)
        page.paste(large, (int(generator.integers(0, width - 335)), int(generator.integers(0, height - 335))))
        prepared = prepare_drawing(page)
        assert prepared.inverted
        apart.append(np.abs(prepared.pixels.astype(int) - digit).mean())
        offsets.append(np.subtract(centre(prepared.pixels), centre(digit)))
    # MNIST's mean is 33 grey levels; a shift by one pixel costs 18.
    assert np.mean(apart) < 8
    assert np.abs(offsets).max() <= 1
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.2


def centre(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """The centre of mass in pixels, counted from 0."""
    mass = pixels.astype(float)
    rows, columns = np.indices(pixels.shape)
    return float((mass * rows).sum() / mass.sum()), float((mass * columns).sum() / mass.sum())


@pytest.mark.parametrize(
    "box", [(120, 50, 280, 250), (10, 5, 60, 60), (300, 200, 390, 290), (5, 100, 395, 200), (180, 2, 200, 298)]
)
def test_a_digit_fills_a_box_of_twenty_pixels_around_its_centre_of_mass(box: tuple[int, int, int, int]) -> None:
    pixels = prepare_drawing(picture(255 - 255 * ink(box=box, pen=6))).pixels
    assert (pixels.shape, pixels.dtype, pixels.max()) == ((28, 28), np.uint8, 255)
    rows, columns = (np.flatnonzero((pixels > 127).any(axis)) for axis in (1, 0))
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    assert np.abs(np.subtract(centre(pixels), 14)).max() <= 0.6


# What a picture may look like


@pytest.mark.parametrize("scale", [0.25, 3])
def test_the_size_of_the_picture_does_not_matter(scale: float) -> None:
    size = (round(400 * scale), round(300 * scale))
    other = prepare_drawing(picture(255 - 255 * ink()).resize(size, Image.Resampling.LANCZOS))
    assert likeness(CLEAN, other) > 0.97


def test_light_on_dark_is_the_same_digit_and_not_inverted() -> None:
    other = prepare_drawing(picture(255 * ink()))
    assert (CLEAN.inverted, other.inverted) == (True, False)
    assert likeness(CLEAN, other) > 0.999


def test_the_recognition_can_be_overruled() -> None:
    blob = 255 * ink(pen=90)
    assert not prepare_drawing(picture(blob)).inverted
    assert prepare_drawing(picture(blob), fit="pad", invert=True).inverted
    assert not prepare_drawing(picture(255 - blob), fit="pad", invert=False).inverted


def uneven(levels: Floats, kind: str) -> Floats:
    """A picture of this drawing as a bad photograph."""
    height, width = levels.shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    noise = np.random.default_rng(0).normal(0, 5, levels.shape)
    light = {
        "gradient": 0.4 + 0.6 * x,
        "vignette": 1 - 0.7 * ((x - 0.5) ** 2 + (y - 0.5) ** 2),
        "lamp": 0.35 + 0.65 * np.exp(-4 * ((x - 0.2) ** 2 + (y - 0.3) ** 2)),
        "shadow": cv2.GaussianBlur(np.where(x + 0.6 * y > 1.05, 0.5, 1.0), (0, 0), 4),
    }[kind]
    return np.asarray(levels * light + noise, np.float32)


@pytest.mark.parametrize("kind", ["gradient", "vignette", "lamp", "shadow"])
@pytest.mark.parametrize(("paper", "pen"), [(240, 40), (190, 120), (60, 230)], ids=["ink", "pencil", "chalk"])
def test_uneven_light_is_divided_out(kind: str, paper: int, pen: int) -> None:
    photograph = prepare_drawing(picture(uneven(paper + (pen - paper) * ink(), kind)))
    assert photograph.inverted == (pen < paper)
    assert likeness(CLEAN, photograph) > 0.95


def test_a_sheet_that_lies_on_a_table_in_perspective() -> None:
    paper = 235 - 200 * ink(600, 500, (140, 140, 360, 460), 16)
    seen = cv2.getPerspectiveTransform(
        np.array([[0, 0], [500, 0], [500, 600], [0, 600]], np.float32),
        np.array([[120, 30], [560, 60], [630, 470], [20, 440]], np.float32),
    )
    sheet = cv2.warpPerspective(paper, seen, (640, 480), borderValue=-1)
    photograph = prepare_drawing(picture(uneven(np.where(sheet < 0, 85, sheet).astype(np.float32), "gradient")))
    assert photograph.inverted
    assert likeness(CLEAN, photograph) > 0.7  # perspective has changed its shape


@pytest.mark.parametrize("dark", [True, False])
def test_a_drawing_may_touch_every_side_of_its_picture(dark: bool) -> None:
    drawn = ink()
    rows, columns = (np.flatnonzero((drawn > 0.5).any(axis)) for axis in (1, 0))
    tight = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    prepared = prepare_drawing(picture(255 - 255 * tight if dark else 255 * tight))
    assert prepared.inverted is dark
    assert likeness(CLEAN, prepared) > 0.98


def test_dust_is_not_a_part_of_the_digit() -> None:
    dusty = 255 - 255 * ink()
    dusty[5:9, 5:9] = dusty[280:284, 390:394] = 0
    assert likeness(CLEAN, prepare_drawing(picture(dusty))) > 0.999


@pytest.mark.parametrize(("colour", "inverted"), [(0, True), (255, False)], ids=["black", "white"])
def test_ink_on_nothing_stands_out(colour: int, inverted: bool) -> None:
    alpha = np.rint(255 * ink()).astype(np.uint8)
    drawn = np.dstack([np.full_like(alpha, colour)] * 3 + [alpha])
    prepared = prepare_drawing(Image.fromarray(drawn))
    assert prepared.inverted is inverted
    assert likeness(CLEAN, prepared) > 0.999


def test_paper_with_holes_is_paper() -> None:
    drawn = np.dstack([np.rint(255 - 255 * ink()).astype(np.uint8)] * 3 + [np.full((300, 400), 255, np.uint8)])
    drawn[:40, :60] = 0
    assert likeness(CLEAN, prepare_drawing(Image.fromarray(drawn))) > 0.999


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16", "I", "F", "LA"])
def test_every_mode_of_an_image_is_read(mode: str) -> None:
    levels = picture(255 - 255 * ink())
    if mode in ("I;16", "I", "F"):
        deep = np.asarray(levels).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        converted = Image.fromarray(deep * 200)
    else:
        converted = levels.convert(mode)
    assert converted.mode == mode
    assert likeness(CLEAN, prepare_drawing(converted)) > 0.97


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(255 - 255 * ink()).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned = prepare_drawing(tmp_path / "turned.jpg")
    assert turned.picture_size == (400, 300)
    assert likeness(CLEAN, turned) > 0.99


def test_thin_lines_are_thickened_until_they_are_seen() -> None:
    thin = prepare_drawing(picture(255 - 255 * ink(900, 1200, (360, 150, 840, 750), 2)))
    assert thin.thickened
    assert not prepare_drawing(picture(255 - 255 * ink(pen=24))).thickened
    # Without that, the mean of the ink would be a tenth of this.
    assert thin.pixels.mean() > 0.5 * CLEAN.pixels.mean()
    assert thin.pixels.max() == 255


# Pictures that are as they should be, and those that are made square


def test_a_picture_of_the_right_size_is_taken_as_it_is() -> None:
    digit = CLEAN.pixels
    kept = prepare_drawing(Image.fromarray(digit), keep=(28, 32))
    assert (kept.kept, kept.inverted) == (True, False)
    assert np.array_equal(kept.pixels, digit)
    inverted = prepare_drawing(Image.fromarray(255 - digit), keep=(28, 32))
    assert (inverted.kept, inverted.inverted) == (False, True)
    assert not prepare_drawing(Image.fromarray(digit), keep=(32,)).kept


@pytest.mark.parametrize(("fit", "sides"), [("crop", (100, 0, 300)), ("pad", (0, -100, 500))])
def test_other_pictures_are_cropped_or_padded(fit: str, sides: tuple[float, float, float]) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    made = prepare_drawing(Image.fromarray(colours), 32, 3, fit, invert=False)
    assert (made.pixels.shape, made.frame) == ((32, 32, 3), sides)
    if fit == "pad":
        assert not made.pixels[:6].any()
        assert made.pixels[10:22].mean() == pytest.approx(127, abs=3)


def test_a_mask_is_cut_where_the_digit_was() -> None:
    drawn = picture(255 - 255 * ink())
    for fit in ("digit", "crop", "pad"):
        made = prepare_drawing(drawn, 28, 1, fit)
        again = Image.fromarray(255 - made.cut(drawn, 28))
        assert np.corrcoef(np.asarray(again).ravel(), made.pixels.ravel())[0, 1] > 0.9, fit
    # Beyond the picture, a mask goes on as it ends.
    assert (prepare_drawing(drawn).cut(Image.new("L", (400, 300), 255), 28) == 255).all()


@pytest.mark.parametrize("sample_size", [28, 32])
def test_a_model_gets_it_resized_as_its_data_was(sample_size: int) -> None:
    import torch

    config = tiny_config(model={"sample_size": sample_size})
    digits = manifest(FILES, config=config, dataset=DatasetRecord(name="mnist", digest="0" * 64, count=1, fit=""))
    made = prepare_for_model(digits, picture(255 - 255 * ink()))
    expected = resized(torch.from_numpy(CLEAN.pixels)[None, None], sample_size)[0, 0].numpy()
    assert np.array_equal(made.pixels, expected)
    assert (made.inverted, made.frame) == (True, CLEAN.frame)
    kept = prepare_for_model(digits, Image.fromarray(CLEAN.pixels))
    assert kept.kept
    assert np.array_equal(kept.pixels, expected)
    assert not prepare_for_model(digits, Image.fromarray(CLEAN.pixels), keep=False).kept


def test_pictures_for_models_of_photographs_keep_their_brightness() -> None:
    config = tiny_config(model={"channels": 3})
    own = manifest(FILES, config=config, dataset=DatasetRecord(name="folder:/x", digest="0" * 64, count=1, fit="pad"))
    assert default_fit(own) == "pad"
    made = prepare_for_model(own, Image.new("RGB", (60, 40), (250, 240, 230)))
    assert (made.pixels.shape, made.inverted) == ((32, 32, 3), False)
    assert made.pixels[16, 16].tolist() == [250, 240, 230]
    clothes = manifest(FILES, dataset=DatasetRecord(name="fashion-mnist", digest="0" * 64, count=1, fit=""))
    assert default_fit(clothes) == "crop"
    assert prepare_for_model(clothes, picture(255 - 255 * ink())).inverted


# Errors


@pytest.mark.parametrize(
    "empty",
    [
        np.full((200, 300), 255.0),
        np.zeros((200, 300)),
        np.full((28, 28), 255.0),
        np.random.default_rng(0).normal(200, 10, (300, 400)),
        np.linspace(120, 220, 400)[None].repeat(300, 0),
        np.full((1, 1), 9.0),
    ],
    ids=["white", "black", "small", "noise", "gradient", "pixel"],
)
def test_a_page_without_ink_is_an_error(empty: NDArray[np.floating]) -> None:
    with pytest.raises(DataError, match=r"^there is no ink in the picture$") as caught:
        prepare_drawing(picture(empty))
    assert caught.value.hint


def test_nothing_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="no ink"):
        prepare_drawing(Image.new("RGBA", (50, 50), (0, 0, 0, 0)))


def test_files_that_are_not_pictures_are_errors(tmp_path: Path) -> None:
    data = io.BytesIO()
    picture(255 * ink()).save(data, "PNG")
    (tmp_path / "cut.png").write_bytes(data.getvalue()[:300])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    reasons = {
        "gone.png": "file not found",
        "cut.png": "cannot be read",
        "text.png": "is not an image in a supported format",
        "folder.png": "cannot be read: Is a directory",
        "huge.png": "has more than 80,000,000 pixels",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason) as caught:
            open_picture(tmp_path / name)
        assert name in caught.value.message
        assert caught.value.hint
