"""A browser, and what a visitor of the model's page does first. A missing browser is a failure, not a skip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert executable, "no Chromium: install it (Debian, Ubuntu: apt-get install chromium)"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


def add_photo(page: Page, file: Path) -> None:
    """Chooses a file and waits until it is shown or refused."""
    send_photo(page, file)
    page.wait_for_selector("#preview figure img, #preview [role=alert]", timeout=30_000)


def send_photo(page: Page, file: Path) -> None:
    """Chooses a file, again where the page was drawn but not yet listening, and waits until it is sent."""
    for _ in range(8):
        try:
            with page.expect_response(lambda r: "/upload" in r.url, timeout=4_000):
                page.set_input_files("#photo input[type=file]", str(file))
            break
        except TimeoutError:
            continue


def assess(page: Page) -> str:
    """Presses the button; the text of the answer."""
    page.click("#assess")
    page.wait_for_selector("#assess:not([disabled])", state="attached", timeout=60_000)  # folded away on a phone
    page.wait_for_selector("#result:has(.sk-card):not(:has([aria-busy]))", timeout=60_000)
    return page.inner_text("#answer")
