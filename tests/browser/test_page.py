"""The page in a real browser: a photo goes in, the result is read. A missing browser is a failure, not a skip."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, TimeoutError, sync_playwright

from skinclip import RESEARCH_USE_ONLY

ROOT = Path(__file__).parents[2]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, "the page did not start"
            try:
                urlopen(url, timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def page(server: str) -> Iterator[Page]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert executable, "no Chromium: install it (Debian, Ubuntu: apt-get install chromium)"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.foreign = []  # type: ignore[attr-defined]
        page.on(
            "request",
            lambda r: page.foreign.append(r.url) if not r.url.startswith((server, "data:", "blob:")) else None,  # type: ignore[attr-defined]
        )
        page.goto(server)
        page.wait_for_selector("#assess")
        yield page
        browser.close()


def upload(page: Page, path: Path) -> None:
    """Chooses a file, again where the page was drawn but not yet listening, and waits until it was sent."""
    for _ in range(8):
        try:
            with page.expect_response(lambda r: "/upload" in r.url, timeout=4_000):
                page.set_input_files("#photo input[type=file]", str(path))
            return
        except TimeoutError:
            page.set_input_files("#photo input[type=file]", [])
    raise AssertionError("the page did not take the photo")


def test_an_example_is_assessed_and_the_result_can_be_read(page: Page) -> None:
    assert RESEARCH_USE_ONLY in page.inner_text("#banner")
    upload(page, ROOT / "assets/examples/synthetic_melanoma.jpg")
    page.wait_for_selector("#photo img")
    page.click("#assess")
    page.wait_for_selector("#result h2:has-text('Differential diagnosis')", timeout=60_000)
    result = page.inner_text("#result")
    for name in ("melanoma", "melanocytic nevus", "basal cell carcinoma", "dermatofibroma", "vascular lesion"):
        assert name in result
    page.wait_for_selector("#figures figure img")
    pictures = page.locator("#figures figure img")
    assert pictures.count() == 2
    boxes = [pictures.nth(i).bounding_box() for i in range(2)]
    assert boxes[0] and boxes[1] and boxes[0]["y"] == boxes[1]["y"] and abs(boxes[0]["width"] - boxes[1]["width"]) < 1
    before = pictures.nth(0).get_attribute("src")
    options = page.locator("#finding label")
    if options.count() > 1:
        options.nth(1).click()
        page.wait_for_function("src => document.querySelector('#figures img').src !== src", arg=before)
    examples = page.locator("img[src*='synthetic_']")  # still there for the next visitor
    assert all(examples.nth(i).evaluate("e => e.naturalWidth > 0") for i in range(examples.count()))
    assert not page.foreign, "the page asked other hosts"  # type: ignore[attr-defined]


def test_a_bad_file_is_told_clearly_and_nothing_is_lost(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "photo.jpg"
    bad.write_text("just some text")
    page.get_by_label("Age", exact=True).fill("61")
    upload(page, bad)
    page.wait_for_timeout(1500)
    page.click("#assess")
    page.wait_for_selector("text=could not be assessed", timeout=30_000)
    assert "holds text, not a photo" in page.inner_text("#result")
    assert page.get_by_label("Age", exact=True).input_value() == "61"


def test_phone_width_does_not_overflow(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert page.locator("#banner").is_visible()
