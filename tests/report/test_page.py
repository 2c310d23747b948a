"""The report: self-contained, escaped, and used in a real browser."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpmctl.report.page import FrameSequence, ModelReport, render_page

REACHES_OUT = re.compile(r"""(src|href)=(?!"data:|"\#)|url\(|@import|https?:""")


def frames(count: int, shade: int = 0) -> list[NDArray[np.uint8]]:
    """Frames of which number k has a bright pixel in column k."""
    made = np.full((count, 32, 64), shade, np.uint8)
    for number in range(count):
        made[number, :, number] = 255
    return list(made)


def model(name: str = "one", **changes: Any) -> ModelReport:
    history = [
        {
            "epoch": str(epoch),
            "step": str(10 * epoch),
            "train_mse": f"{1 / epoch:.6g}",
            "validation_mse": f"{2 / epoch:.6g}",
        }
        for epoch in range(1, 6)
    ]
    settings: dict[str, Any] = {
        "name": name,
        "settings": [("network", "unet"), ("seed", name)],
        "history": history,
        "losses": [1.0, 0.5, 0.25],
        "first_step": 41,
        "signal": [1 - t / 1000 for t in range(1000)],
        "noise": [t / 1000 for t in range(1000)],
        "sheet": np.zeros((80, 200), np.uint8),
        "chain": FrameSequence(frames(50), [f"step {k + 1} of 50" for k in range(50)]),
        "training": FrameSequence(frames(7), [f"after {k}" for k in range(7)]),
        "metrics": {"label accuracy": "98.70%"},
        "evaluation": "2,000 images",
    }
    return ModelReport(**settings | changes)


def test_the_page_reaches_out_for_nothing_and_tells_everything() -> None:
    text = render_page([model(), model("two", metrics={}, evaluation="", training=None)], "three", "Created today")
    assert not REACHES_OUT.search(text)
    assert text.startswith("<!DOCTYPE html>")
    assert "two has not been evaluated" in text
    for words in ("one and two", "Created today", "98.70%", "after 6", "step 50 of 50", "unet"):
        assert words in text
    rows = re.findall(r'<tr( class="differs")?><th scope="row">(\w+)</th>', text)
    assert (' class="differs"', "seed") in rows
    assert ("", "network") in rows


def test_whatever_a_name_holds_is_text_and_no_markup() -> None:
    bad = "<script>alert(1)</script>\"'"
    text = render_page([model(bad)], bad, bad)
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    data = re.search(r"data-lines='([^']*)'", text)
    assert data
    assert json.loads(html.unescape(data[1]))[0]["name"].startswith(bad)


def test_a_model_of_one_epoch_that_kept_nothing_still_has_a_page() -> None:
    poor = model(history=model().history[:1], losses=[], training=None, metrics={}, evaluation="")
    text = render_page([poor], "three", "")
    assert "after each epoch" not in text
    assert 'id="training"' not in text
    assert "Noise schedule" in text


@pytest.fixture
def opened(tmp_path: Path, browser: Any) -> Any:
    """The page of two models on a phone."""
    path = tmp_path / "report.html"
    other = model("two", training=FrameSequence(frames(4), [f"at {k}" for k in range(4)]))
    path.write_text(render_page([model(), other], "three", ""))
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    return browser


def test_in_a_browser_every_image_loads_and_nothing_is_asked_for(opened: Any, tmp_path: Path) -> None:
    widths = opened.execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(widths) == 2 + 4 + 4
    assert all(width >= 64 for width in widths)
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]


def test_a_phone_can_read_it(opened: Any) -> None:
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 360
    smallest = opened.execute_script(
        """return Math.min(...[...document.querySelectorAll(".chart > svg text")].map(
               text => text.getBoundingClientRect().height))"""
    )
    assert smallest >= 9


def shown_frame(browser: Any, section: str, number: int) -> int:
    """Which frame of a film is in its window, from where the reel lies."""
    script = """
    const figure = document.querySelectorAll(`#${arguments[0]} figure`)[arguments[1]];
    const box = figure.querySelector(".window").getBoundingClientRect();
    const reel = figure.querySelector(".window img").getBoundingClientRect();
    return (box.top - reel.top) / box.height"""
    offset: float = browser.execute_script(script, section, number)
    return round(offset)


def test_the_slider_runs_through_the_chain_and_through_films_of_any_length(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def caption(section: str, number: int) -> str:
        return str(opened.find_elements("css selector", f"#{section} figure output")[number].text)

    assert (shown_frame(opened, "chain", 0), caption("chain", 0)) == (49, "step 50 of 50")
    slider = opened.find_element("css selector", "#chain input")
    slider.send_keys(Keys.ARROW_LEFT * 9)
    assert (shown_frame(opened, "chain", 0), caption("chain", 0)) == (40, "step 41 of 50")
    assert shown_frame(opened, "chain", 1) == 40
    slider.send_keys(Keys.HOME)
    assert (shown_frame(opened, "chain", 0), caption("chain", 1)) == (0, "step 1 of 50")
    training = opened.find_element("css selector", "#training input")
    training.send_keys(Keys.ARROW_LEFT * 2)
    assert [shown_frame(opened, "training", k) for k in (0, 1)] == [4, 2]
    assert [caption("training", k) for k in (0, 1)] == ["after 4", "at 2"]
    assert opened.get_log("browser") == []


def test_pointing_at_a_curve_tells_its_values(opened: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    svg = opened.find_element("css selector", ".chart > svg")
    tip = opened.find_element("css selector", ".chart .tip")
    assert tip.value_of_css_property("visibility") == "hidden"
    box = svg.rect
    # Epoch 3 of 1 to 5 lies in the middle between the sides of the frame.
    across = round((200 / 360 - 0.5) * box["width"])
    ActionChains(opened).move_to_element_with_offset(svg, across, 0).perform()
    assert tip.value_of_css_property("visibility") == "visible"
    assert tip.text.splitlines()[:2] == [
        "one, train MSE: epoch 3, step 30: 0.33333",
        "one, validation MSE: epoch 3, step 30: 0.66667",
    ]
    ActionChains(opened).move_to_element(opened.find_element("css selector", "h1")).perform()
    assert tip.value_of_css_property("visibility") == "hidden"


def test_keys_read_a_curve_too(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    svg = opened.find_element("css selector", ".chart > svg")
    svg.send_keys(Keys.ARROW_RIGHT * 2)
    tip = opened.find_element("css selector", ".chart .tip")
    assert tip.text.splitlines()[0] == "one, train MSE: epoch 2, step 20: 0.50000"


def test_dark_and_paper_are_minded(opened: Any) -> None:
    def paper() -> str:
        return str(opened.execute_script("return getComputedStyle(document.body).backgroundColor"))

    light = paper()
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    assert (light, paper()) == ("rgb(255, 255, 255)", "rgb(21, 24, 28)")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    visible = "return getComputedStyle(document.querySelector(arguments[0])).display"
    assert opened.execute_script(visible, "#chain .window") == "none"
    assert opened.execute_script(visible, "#chain .printed") == "block"
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
