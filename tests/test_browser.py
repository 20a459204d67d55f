"""The report in a real browser: headless Chromium without a network looks at it, filters, plays, and presses keys.

The screenshots, wide and narrow, light and dark, are left in the folder of the test run for people to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from aesampler.corpus import Corpus
from aesampler.report.page import report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.long

WIDE, NARROW = (1366, 900), (390, 844)
PARTS = (
    corpora.Part(source="coco", shards=(40,), bare=8, failed=(7,), skipped=(3,)),
    corpora.Part(source="davis", split="validation", kind="clip", frames=5, shards=(14,), bare=2),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(corpora.write(tmp_path_factory.mktemp("browser") / "tiny", PARTS))


@pytest.fixture(scope="module")
def file(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page") / "tiny.html"
    made.write_text(report(corpus), encoding="utf-8")
    return made


class Opened:
    """A page with what it complained of and asked for."""

    def __init__(self, browser: Browser, file: Path, size: tuple[int, int] = WIDE, **options: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **options)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def shown(self) -> list[str]:
        """Keys of the samples that can be seen."""
        return self.page.locator(".card:visible h3").all_inner_texts()

    def field(self, name: str, value: str | None = None) -> Locator:
        """A filter by its name, and one of its radio buttons by its value."""
        return self.page.locator(f"#filters [name={name}]" + ("" if value is None else f'[value="{value}"]'))

    def found(self) -> str:
        return self.page.locator("#found").inner_text()


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Opened]:
    """The page; when the test is done, it has complained of nothing, and asked for nothing but itself."""
    told = Opened(browser, file)
    yield told
    told.page.close()
    assert told.complaints == []
    assert [url for url in told.requests if not url.startswith("data:")] == [file.as_uri()]


def test_the_filters(opened: Opened, corpus: Corpus) -> None:
    page = opened.page
    assert len(opened.shown()) == 12
    assert opened.found() == "12 of 48 shown"
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    everything = opened.shown()
    assert len(set(everything)) == 48
    rows = {key: corpus.row(key) for key in everything}

    def shows(wanted: list[str]) -> None:
        while page.locator("#more").is_visible():
            page.locator("#more").click()
        assert sorted(opened.shown()) == sorted(wanted)

    opened.field("source").select_option("davis")
    shows([key for key, row in rows.items() if row.source == "davis"])
    opened.field("label", "anomalous").check()
    shows([key for key, row in rows.items() if row.source == "davis" and row.anomalous])
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#found")).to_have_text("12 of 48 shown")
    shows(everything)

    opened.field("category").fill("ca")
    shows([key for key, row in rows.items() if any("ca" in name for name in row.categories)])
    opened.field("category").fill("CAT ")
    shows([key for key, row in rows.items() if "cat" in row.categories])
    opened.field("exposed").check()
    exposed = [key for key, row in rows.items() if ("cat", True) in zip(row.categories, row.is_genuine, strict=True)]
    assert exposed
    shows(exposed)
    opened.field("category").fill("no such name")
    shows([])
    assert page.locator("#none").is_visible()


def test_a_click_on_a_name_filters_by_it(opened: Opened, corpus: Corpus) -> None:
    chip = opened.page.locator(".card:visible .chip").first
    name = chip.get_attribute("data-name")
    chip.click()
    assert opened.field("category").input_value() == name
    assert all(name in corpus.row(key).categories for key in opened.shown())
    assert opened.shown()


def test_masks_are_taken_off_and_put_on(opened: Opened) -> None:
    page = opened.page
    layer = page.locator(".card.anomalous:visible .shot.on .layer").first
    before = layer.locator("xpath=..").screenshot()
    assert layer.is_visible()
    page.keyboard.press("m")
    assert not layer.is_visible()
    assert page.locator(".card.anomalous:visible .shot.on").first.screenshot() != before
    opened.field("masks").check()
    assert layer.is_visible()


def test_a_clip_plays_and_can_be_stepped_through_with_keys(opened: Opened) -> None:
    page = opened.page
    opened.field("source").select_option("davis")
    card = page.locator(".card[data-source=davis]").first
    play, slider = card.locator(".play"), card.locator("input[type=range]")

    def place() -> int:
        on = card.locator(".shot.on")
        assert on.count() == 1
        assert on.get_attribute("data-place") == slider.input_value()
        return int(slider.input_value())

    slider.focus()
    page.keyboard.press("Home")
    assert place() == 0
    page.keyboard.press("ArrowRight")
    assert place() == 1
    assert "frame 1" in str(slider.get_attribute("aria-valuetext"))
    play.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert place() == 4
    page.keyboard.press("Space")
    assert play.get_attribute("aria-pressed") == "true"
    expect(slider).not_to_have_value("4")
    page.keyboard.press("Space")
    assert play.get_attribute("aria-pressed") == "false"
    still = place()
    page.wait_for_timeout(400)
    assert place() == still
    card.locator(".stage").click()
    assert play.get_attribute("aria-pressed") == "true"
    opened.field("source").select_option("coco")
    assert play.get_attribute("aria-pressed") == "false"


def test_the_keyboard_reaches_everything(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the samples"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "category"
    page.keyboard.type("m/")
    assert opened.field("category").input_value() == "m/"
    assert opened.field("masks").is_checked()
    opened.field("category").fill("")
    opened.field("label", "").focus()
    page.keyboard.press("ArrowRight")
    assert opened.field("label", "anomalous").is_checked()
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className || document.activeElement.name"))
    assert {"source", "category", "exposed", "masks", "play"} <= reached
    assert any(name.startswith("chip") for name in reached)
    page.locator("#lengths summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#lengths table").is_visible()


def test_without_its_script_everything_is_there(browser: Browser, file: Path) -> None:
    told = Opened(browser, file, java_script_enabled=False)
    assert len(told.shown()) == 48
    assert told.page.locator("figure svg:visible").count() >= 8
    assert not told.page.locator("#filters").is_visible()
    assert told.complaints == []
    told.page.close()


def test_a_script_from_the_data_does_not_run(browser: Browser, file: Path, tmp_path: Path) -> None:
    """Were a name ever not escaped, the policy of the page would still keep it from running or loading."""
    worse = tmp_path / "worse.html"
    bad = '<script>alert(1)</script><img src="https://example.org/x.png"><img src="data:," onerror="alert(2)">'
    worse.write_text(file.read_text(encoding="utf-8").replace("<h1>", f"{bad}<h1>", 1), encoding="utf-8")
    told = Opened(browser, worse)
    while len(told.complaints) < 3:
        told.page.wait_for_event("console")
    assert all("Content Security Policy" in complaint for complaint in told.complaints)
    assert len(told.shown()) == 12
    told.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_fits_the_screen(browser: Browser, file: Path, tmp_path: Path, size: tuple[int, int], scheme: str) -> None:
    told = Opened(browser, file, size, color_scheme=scheme)
    page = told.page
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    picture = tmp_path / f"{size[0]}-{scheme}.png"
    page.screenshot(path=picture, full_page=True)
    with Image.open(picture) as shot:
        paper = np.median(np.asarray(shot.convert("L")))
    assert (paper < 60) if scheme == "dark" else (paper > 200)
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, input:not([type=radio])')].filter(e => e.offsetParent)"
        ".map(e => [e.className || e.name, e.getBoundingClientRect().height]).filter(([, h]) => h < 16)"
    )
    assert small == []
    letters = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(svg => 13 * svg.getBoundingClientRect().width"
        " / svg.viewBox.baseVal.width)"
    )
    assert min(letters) > 9.5
    assert told.complaints == []
    page.close()
