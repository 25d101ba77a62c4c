"""A server that is full, as the visitor sees it whom it turns away: told in words, with all that was entered kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import quick_page
from tests.browser.visits import add_photo, assess, send_photo
from tests.browser.waiting import until
from tests.helpers.served import ROOT

pytestmark = pytest.mark.browser
PHOTO = ROOT / "assets/examples/synthetic_melanoma.jpg"
CARD = "#refused:visible"


@pytest.fixture(scope="module")
def one_place() -> Iterator[str]:
    """The address of a page for one visitor at once."""
    with quick_page("0", "1") as url:
        yield url


@pytest.fixture
def occupant(one_place: str, browser: Browser) -> Iterator[Page]:
    """A visitor who takes the place."""
    page = visitor(one_place, browser)
    add_photo(page, PHOTO)
    yield page
    leave(page)


def visitor(url: str, browser: Browser, width: int = 1440) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 800}, bypass_csp=True).new_page()
    page.goto(url)
    page.wait_for_selector("#assess")
    return page


def leave(page: Page) -> None:
    """Takes the photo away, with which the place becomes free."""
    if page.is_closed():
        return
    if page.locator("#preview figure").count():
        page.click("#preview [data-request=remove]")
        page.wait_for_selector("#preview figure", state="detached")
    page.context.close()


def test_a_photo_that_is_turned_away_is_told_and_taken_later(one_place: str, browser: Browser, occupant: Page) -> None:
    page = visitor(one_place, browser)
    page.locator("#age input, #age textarea").press_sequentially("55")  # the first digit is turned away
    page.wait_for_selector(CARD)
    assert page.locator("#age input, #age textarea").input_value() == "55"
    send_photo(page, PHOTO)
    words = page.inner_text(CARD)
    assert "The server is full" in words and "try again" in words
    assert page.locator("#refused").get_attribute("role") == "alert"
    until(page, "() => !document.body.classList.contains('sk-uploading')")
    until(page, "() => document.activeElement.matches('[data-again]')")  # a press of Enter tries again
    page.keyboard.press("Enter")  # still full
    page.wait_for_selector(CARD)
    leave(occupant)
    page.click("[data-again]")
    page.wait_for_selector("#preview figure img")
    page.wait_for_selector("#refused", state="hidden")
    assert page.locator("#age input, #age textarea").input_value() == "55"
    assess(page)
    page.wait_for_selector("#rationale >> text=age 55")
    leave(page)


def test_an_example_and_assess_are_told_of_as_well(one_place: str, browser: Browser, occupant: Page) -> None:
    page = visitor(one_place, browser, 390)
    page.click("#assess")
    assert "The server is full" in page.inner_text(CARD)
    assert page.locator("[data-testid=toast-body]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator(CARD).bounding_box()
    assert box is not None and 0 <= box["y"] < 800  # in sight
    page.click("#synthetic_nevus")
    page.wait_for_selector(CARD)
    leave(occupant)
    page.click("[data-again]")
    page.wait_for_selector("#preview figure img")
    page.wait_for_selector("#refused", state="hidden")
    leave(page)


def test_a_full_queue_is_told_and_leaves_nobody_in_line(one_place: str, browser: Browser) -> None:
    page = visitor(one_place, browser)
    add_photo(page, PHOTO)
    full = {"detail": "Queue is full. Max size is 16 and size is 16."}
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json=full))
    page.click("#assess")
    page.wait_for_selector("#result >> text=Nothing was assessed")
    assert page.is_enabled("#assess") and "The server is full" in page.inner_text(CARD)
    page.wait_for_selector("[data-testid=toast-body]", state="detached")
    page.unroute("**/queue/join*")
    page.click("[data-again]")
    page.wait_for_selector("#result .sk-verdict")
    assert page.locator(CARD).count() == 0
    leave(page)
