"""The page of the lessons: self-contained, escaped, and displayed in a real browser."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpmctl.errors import DataError
from ddpmctl.lessons.page import render_page
from ddpmctl.lessons.result import Result

from .support import made_up

REACHES_OUT = re.compile(r"""(src|href)=(?!"data:|"\#)|url\(|@import|http""")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the pictures of a made-up result."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 900), dtype=np.uint8))
    noise.save(tmp_path / "one.png")
    noise.save(tmp_path / "two.gif")
    return tmp_path


def test_the_page_holds_all_that_was_found_and_reaches_out_for_nothing(folder: Path) -> None:
    text = render_page([made_up(), made_up("one-shot", reproduced=True, verdict="It did.")], folder)
    for text_part in (
        "A title",
        "a mistake",
        "a fix",
        "a claim",
        "It did not.",
        "It did.",
        "12.3%",
        "1,234 steps",
        "A note.",
    ):
        assert text_part in text
    assert "arXiv 2006.11239" in text
    assert text.count('src="data:image/png;base64,') == text.count('src="data:image/gif;base64,') == 2
    assert not REACHES_OUT.search(text)
    assert "<script" not in text
    assert text.startswith("<!DOCTYPE html>")


def test_whatever_a_name_holds_is_text_and_no_markup(folder: Path) -> None:
    text = render_page([made_up(title="<script>alert(1)</script>", formula='a "quoted" < b & c')], folder)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "&lt; b &amp; c" in text


def test_a_picture_that_is_not_there_is_no_empty_picture(folder: Path) -> None:
    (folder / "two.gif").unlink()
    with pytest.raises(FileNotFoundError):
        render_page([made_up()], folder)


def test_what_is_kept_of_a_lesson_is_read_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "range.json"
    path.write_text(json.dumps(made_up().to_dict()))
    assert Result.read(path) == made_up()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**made_up().to_dict(), "reproduced": "no"})])
def test_what_is_no_lesson_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "range.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is not a lesson result") as caught:
        Result.read(path)
    assert caught.value.hint == "ddpmctl lessons range"


def test_in_a_browser_every_image_loads_nothing_is_asked_for_and_a_phone_can_read_it(
    folder: Path, browser: Any
) -> None:
    path = folder / "lessons.html"
    path.write_text(render_page([made_up(lesson) for lesson in ("one-shot", "range", "batchnorm")], folder))
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    widths = browser.execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert widths == [900] * 6
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.execute_script("return getComputedStyle(document.querySelector('figure img')).display") == "block"
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    # Printed, each lesson begins on a page of its own.
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert len(pdf) > 10_000
