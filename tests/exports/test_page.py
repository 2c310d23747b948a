"""The page of a model: what is in it, and in a real browser the same images as the program's."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpmctl.errors import DdpmctlError, UsageError
from ddpmctl.exports.api import export
from ddpmctl.exports.page import build_page
from ddpmctl.registry import Registry
from ddpmctl.sampling.engine import Engine
from tests.builders import register
from tests.exports.support import CONFIGS, halves
from tests.report.test_page import REACHES_OUT

WEB = Path(__file__).parents[2] / "ddpmctl" / "exports" / "web"


def test_the_page_is_one_file_that_reaches_out_for_nothing(registry: Registry, tmp_path: Path) -> None:
    size = export(registry.open("guided"), tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert size == len(text.encode()) and text.startswith("<!DOCTYPE html>")
    assert not REACHES_OUT.search(re.sub(r'<script type="text/plain".*?</script>', "", text, flags=re.DOTALL))
    assert "guided</h1>" in text and "trained on strokes" in text and "numpy" not in text


def test_no_name_of_a_class_or_model_ends_a_script(registry: Registry) -> None:
    config = CONFIGS["guided"]
    names = ("</script><script>alert(1)</script>", *"bcdefghij")
    register(registry, "named", weights=halves(config), config=config, classes=names)
    text = build_page(registry.open("named"))
    assert "<script>alert" not in text
    settings = re.search(r'id="model">(.*?)</script>', text)
    assert settings and json.loads(settings[1])["classes"] == list(names)


def test_a_model_that_is_too_large_is_refused_before_anything_is_written(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpmctl.exports.page.MAX_BYTES", 100_000)
    with pytest.raises(UsageError, match=r"the page of 'guided' would have 1 MB; at most 0 MB"):
        export(registry.open("guided"), tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_half_precision_are_refused(registry: Registry, tmp_path: Path) -> None:
    config = CONFIGS["guided"]
    weights = halves(config) | {"conv_in.bias": np.full(16, 7e4, np.float32)}
    register(registry, "large", weights=weights, config=config)
    with pytest.raises(DdpmctlError, match=r"'conv_in.bias' of 'large' exceed half precision"):
        export(registry.open("large"), tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_the_kernel_is_assembled_from_its_source() -> None:
    wasmtime = pytest.importorskip("wasmtime")
    source = (WEB / "multiply.wat").read_text(encoding="utf-8")
    assert bytes(wasmtime.wat2wasm(source)) == (WEB / "multiply.wasm").read_bytes()


# In a browser


class Page:
    """A page in Chromium."""

    def __init__(self, browser: Any, registry: Registry, name: str, folder: Path, fragment: str = "") -> None:
        path = folder / f"{name}.html"
        if not path.exists():
            export(registry.open(name), path)
        browser.set_script_timeout(300)
        browser.get("about:blank")
        browser.get(f"{path.as_uri()}{fragment}")
        self.browser = browser
        self.wait(
            "!document.querySelector('#settings fieldset').disabled && statusLine.textContent.includes('steps in')"
        )

    def run(self, script: str, *arguments: object) -> Any:
        """The result of a script that may wait."""
        result = self.browser.execute_async_script(
            "const [script, args, done] = arguments;"
            "new (Object.getPrototypeOf(async function () {}).constructor)('args', script)(args)"
            ".then(done, (error) => done('error: ' + error));",
            script,
            arguments,
        )
        assert not str(result).startswith("error: "), result
        return result

    def wait(self, condition: str) -> None:
        done = self.run(
            "const start = Date.now(); while (!eval(args[0])) {"
            " if (Date.now() - start > 240000) return statusLine.textContent + find('#problem', Element).textContent;"
            " await new Promise((resolve) => setTimeout(resolve, 20)); } return true;",
            condition,
        )
        assert done is True, done

    def generate(self, **settings: object) -> NDArray[np.uint8]:
        """The image that the page shows for these settings, as on its canvas."""
        pixels = self.run(
            "for (const [name, value] of Object.entries(args[0])) form[name].value = value;"
            "await generate(); return shown(chain);".replace("shown(chain)", SHOWN),
            settings,
        )
        return self.image(pixels)

    def image(self, pixels: list[int]) -> NDArray[np.uint8]:
        side = int(self.run("return page.model.image_size"))
        image = np.array(pixels, np.uint8).reshape(side, side, 4)[..., :3]
        return image if self.run("return page.model.channels") == 3 else image[..., 0]


SHOWN = (
    "((view) => Array.from(view.canvases[0].getContext('2d')"
    ".getImageData(0, 0, page.model.image_size, page.model.image_size).data))(chain)"
)


def difference(one: NDArray[Any], other: NDArray[Any]) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("html")


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_page_makes_the_images_of_the_program(browser: Any, registry: Registry, folder: Path, name: str) -> None:
    page, engine = Page(browser, registry, name, folder), Engine(registry.open(name), "cpu", "fp32")
    few, config = name in ("colour", "classic"), engine.config
    guidable = config.model.supports_guidance and not config.distillation
    for seed, (sampler, steps) in enumerate((("dpmpp", 6), ("dpmpp-sde", 6), ("ddim", 5), ("ddpm", 7))):
        for guidance in (1.0, 2.5) if guidable else (1.0,):
            large = 2**63 - 2 - seed
            shown = page.generate(label="2", seed=str(large), sampler=sampler, steps=steps - 3 * few, guidance=guidance)
            options: dict[str, Any] = {"sampler": sampler, "steps": steps - 3 * few, "guidance": guidance}
            expected = engine.generate([2], large, **options)[0]
            assert difference(shown, expected) <= 1, (sampler, guidance)
            assert expected.std() > 5


@pytest.mark.slow
def test_all_timesteps_of_the_original_chain(browser: Any, registry: Registry, folder: Path) -> None:
    page, engine = Page(browser, registry, "batch", folder), Engine(registry.open("batch"), "cpu", "fp32")
    shown = page.generate(label="1", seed="5", sampler="ddpm", steps=200, guidance=1)
    assert difference(shown, engine.generate([1], 5, sampler="ddpm", steps=200, guidance=1.0)[0]) <= 1


@pytest.mark.slow
def test_without_webassembly_the_images_are_the_same(browser: Any, registry: Registry, folder: Path) -> None:
    page, engine = (
        Page(browser, registry, "gaussian", folder, "#plain"),
        Engine(registry.open("gaussian"), "cpu", "fp32"),
    )
    assert "plain JavaScript" in page.run("return document.querySelector('#engine').textContent")
    shown = page.generate(label="3", seed="1", sampler="dpmpp-sde", steps=6, guidance=2)
    assert difference(shown, engine.generate([3], 1, sampler="dpmpp-sde", steps=6, guidance=2.0)[0]) <= 1


@pytest.mark.slow
def test_someone_plays_with_it(browser: Any, registry: Registry, folder: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    page = Page(browser, registry, "guided", folder)

    def element(selector: str) -> Any:
        return browser.find_element(By.CSS_SELECTOR, selector)

    # An image without being asked; the slider shows every step of it.
    assert len(page.run("return chain.steps")) == 20
    last = page.run(f"return {SHOWN}")
    page.run("chain.slider.value = 0; chain.slider.dispatchEvent(new Event('input'));")
    assert "step 1 of 20" in element("#chain label span").text
    assert page.run(f"return {SHOWN}") != last

    # Every class from the same noise: ten images, all different.
    element("#sheet").click()
    page.wait(
        "document.querySelectorAll('#thumbnails button').length === 10 && statusLine.textContent.startsWith('Every')"
    )
    urls = page.run("return [...document.querySelectorAll('#thumbnails canvas')].map((c) => c.toDataURL())")
    assert len(set(urls)) == 10
    element("#thumbnails button:nth-child(4)").click()
    assert "d: step 20 of 20" in element("#chain label span").text and element("#label").get_attribute("value") == "3"

    # Two labels mixed: neither of the two, and half of each is named.
    mixed = page.generate(label="3", second="5", share="0.5", seed="4")
    assert "50 % d and 50 % f" in element("#status").text
    single = page.generate(second="")
    assert difference(mixed, single) > 5

    # Nothing to edit until something is drawn.
    element("#edit .main").click()
    page.wait("editStatus.textContent.startsWith('Draw something')")
    area = element("#drawing")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", area)
    moves = ActionChains(browser, duration=10).move_to_element(area).click_and_hold()
    moves.move_by_offset(40, 30).move_by_offset(-60, 20).release().perform()
    drawn = page.run("return Array.from(drawn())")
    assert len(drawn) == 32 * 32 and min(drawn) == -1 and max(drawn) > 0.9
    element("#edit .main").click()
    page.wait("editStatus.textContent.includes('steps in')")
    assert page.run("return edited.steps.length") == 12  # of 20 steps those below t = 0.6 T

    element("#classify").click()
    page.wait("document.querySelector('#answer').textContent.startsWith('The model thinks')")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#bars tr")) == 10
    assert len(browser.find_elements(By.CSS_SELECTOR, "#bars .best")) == 1

    # What is wrong is said where one looks.
    for wrong, said in (
        ({"seed": "-1"}, "The seed must be"),
        ({"seed": "0", "steps": "0"}, "The number of steps must be"),
    ):
        page.run("for (const [k, v] of Object.entries(args[0])) form[k].value = v; await generate();", wrong)
        assert element("#status").text.startswith(said)
    problems = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []


@pytest.mark.slow
def test_the_model_continues_a_drawing_as_the_formula_says(browser: Any, registry: Registry, folder: Path) -> None:
    """SDEdit in NumPy with the program's network, from the picture that the page says it starts from."""
    import torch

    from ddpmctl.core.noise import normal
    from ddpmctl.core.samplers import ddim, trailing_timesteps

    page, engine = Page(browser, registry, "student", folder), Engine(registry.open("student"), "cpu", "fp32")
    start = np.linspace(-1, 1, 32 * 32, dtype=np.float32)
    shown = page.run(
        "const start = new Float32Array(args[0]); const steps = [];"
        "await sample({...chosen(), mixture: [[2, 1]], seed: 3n, sampler: 'ddim', steps: 10, start, strength: 0.5},"
        " (step) => steps.push(step)); return [steps.map(({t}) => t), Array.from(steps.at(-1).x)];",
        start.tolist(),
    )
    timesteps = [t for t in trailing_timesteps(1000, 10) if t <= 499]
    assert shown[0] == timesteps == [499, 399, 299, 199, 99]
    signal = engine.diffusion.schedule.signal(499)
    x = torch.from_numpy(start).view(1, 1, 32, 32) * signal**0.5 + normal([3], 0, (1, 32, 32)) * (1 - signal) ** 0.5

    def predict_x0(x: torch.Tensor, t: int) -> torch.Tensor:
        return engine.predict_x0(x, t, [2]).clamp(-1, 1)

    last = list(ddim(predict_x0, engine.diffusion.schedule, x, timesteps, lambda: x))[-1].x
    expected = ((last.clamp(-1, 1) + 1) * 127.5).round().numpy()[0, 0]
    assert difference(np.array(shown[1]).reshape(32, 32), expected) <= 1


@pytest.mark.slow
def test_a_slow_model_starts_with_fewer_steps_and_says_so(browser: Any, registry: Registry, folder: Path) -> None:
    page = Page(browser, registry, "batch", folder)
    said = page.run(
        "seconds = 1; form.sampler.value = 'ddpm'; form.steps.value = 200; await generateFirst();"
        "return [form.sampler.value, form.steps.value, statusLine.textContent];"
    )
    assert said[:2] == ["ddim", "50"]
    assert said[2].startswith("The recommended ddpm with 200 steps would take")


@pytest.mark.slow
def test_a_browser_without_workers_gets_a_sentence(browser: Any, registry: Registry, folder: Path) -> None:
    path = folder / "workers.html"
    page = build_page(registry.open("guided")).replace("<script>\n", "<script>\ndelete globalThis.Worker;\n", 1)
    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())
    text = browser.execute_script("return document.querySelector('#problem').textContent")
    assert text.startswith("This browser has no Web Workers")
    assert browser.execute_script("return document.querySelector('#settings fieldset').disabled")


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1100])
def test_it_fits_a_phone_and_every_control_has_a_name(
    browser: Any, registry: Registry, folder: Path, width: int
) -> None:
    page = Page(browser, registry, "colour", folder)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert page.run("return document.documentElement.scrollWidth") <= width
        unnamed = page.run(
            "return [...document.querySelectorAll('button, input, select, canvas')]"
            ".filter((e) => e.checkVisibility() && !e.labels?.length && !e.ariaLabel && !e.textContent.trim())"
            ".map((e) => e.outerHTML)"
        )
        assert unnamed == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
