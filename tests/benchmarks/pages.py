"""The page of a model in headless Chromium: size, speed, responsiveness, what half precision changes, screenshots."""

import base64
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ddpmctl.exports.api import export
from ddpmctl.registry import Checkpoint, open_model
from ddpmctl.sampling.engine import Engine

from .machine import about_this_machine, markdown

IMAGES = 5
SCREENS = {
    "page.png": (1100, 1340, "body"),
    "page-drawing.png": (1100, 1580, "#draw-title"),
    "page-phone.png": (360, 1500, "body"),
}
"""Width and height of each screenshot, and what is at its top."""
STEPS_IN = "statusLine.textContent.includes('steps in') && statusLine.ariaBusy === 'false'"

OBSERVE = """
window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((entry) => entry.duration)))
  .observe({ type: "longtask", buffered: true });
"""

USE = """
const [count, done] = arguments;
(async () => {
  const times = [];
  for (let seed = 1; seed <= count; seed++) {
    form.seed.value = String(seed);
    await generate();
    times.push(chain.steps.at(-1).seconds);
  }
  done({ times, evaluations: chain.steps.at(-1).evaluations, seconds, engine });
})();
"""


def pages(names: list[str]) -> None:
    """Measure the pages of registered models; screenshots of the first into the current folder."""
    rows = []
    for number, name in enumerate(names):
        checkpoint = open_model(name)
        change = _half_precision(checkpoint)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            size = export(checkpoint, path)
            for fragment in ("", "#plain"):
                browser = _browser()
                browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OBSERVE})
                browser.get(path.as_uri() + fragment)
                _wait(browser, STEPS_IN)
                used = browser.execute_async_script(USE, IMAGES)
                longest = max(browser.execute_script("return window.tasks"), default=0)
                rows.append(
                    [name, f"{size / 1e6:.1f} MB", used["engine"], f"{1000 * used['seconds']:.0f} ms",
                     str(used["evaluations"]), f"{statistics.median(used['times']):.2f} s",
                     f"{longest:.0f} ms" if longest else "none over 50 ms", change]
                )  # fmt: skip
                if number == 0 and not fragment:
                    _screenshots(browser)
                browser.quit()
    print(about_this_machine(), flush=True)
    print(
        markdown(
            ["model", "page", "computed by", "per evaluation", "evaluations", "one image, median of 5",
             "longest task of the page", "half precision: mean and largest change in grey levels"],
            rows,
        )
    )  # fmt: skip


def _half_precision(checkpoint: Checkpoint) -> str:
    """How much the images of a hundred seeds change when the weights are rounded."""
    engine = Engine(checkpoint, "cpu", "fp32")
    labels = [k % len(engine.classes) for k in range(100)]
    full = engine.generate(labels)
    with torch.no_grad():
        for tensor in engine.network.state_dict().values():
            tensor.copy_(tensor.half().float())
    change = np.abs(full.astype(int) - engine.generate(labels).astype(int))
    return f"{change.mean():.3f}, {change.max()}"


def _browser() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "window-size=1100,1500"):
        options.add_argument(f"--{switch}")
    browser = webdriver.Chrome(options=options)
    browser.set_script_timeout(600)
    return browser


def _wait(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 600, 0.1).until(lambda opened: opened.execute_script(f"return {condition}"))


def _screenshots(browser: Any) -> None:
    """The page in use: every class generated, a seven drawn, continued and classified."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser.execute_script("form.seed.value = '7'; form.label.value = '7'")
    browser.find_element(By.ID, "sheet").click()
    _wait(browser, "statusLine.textContent.startsWith('Every class from')")
    browser.execute_script("[...document.querySelectorAll('#thumbnails button')].at(7)?.click(); chain.show(5)")
    area = browser.find_element(By.ID, "drawing")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", area)
    stroke = ActionChains(browser, duration=10).move_to_element_with_offset(area, -45, -70).click_and_hold()
    stroke.move_by_offset(85, -5).move_by_offset(-35, 80).move_by_offset(-15, 60).release().perform()
    browser.find_element(By.CSS_SELECTOR, "#edit .main").click()
    _wait(browser, "editStatus.textContent.includes('steps in')")
    browser.find_element(By.ID, "classify").click()
    _wait(browser, "document.querySelector('#answer').textContent.startsWith('The model thinks')")
    for file, (width, height, top) in SCREENS.items():
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView()", top)
        data = browser.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
        Path(file).write_bytes(base64.b64decode(data))
