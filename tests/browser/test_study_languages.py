"""A study in three languages in a real browser, and one step on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.test_study import SMALL, Served, await_next, confirm, fill, serving, shown, sign_in
from tests.browser.waiting import until

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}
SCREENS = 2  # at most, of a step with a photo
WORDS = {
    language: {"title": "Studie", "consent_text": f"consent in {language}", "retention": f"retention in {language}"}
    for language in ("de", "es")
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("study"), languages=["en", "de", "es"], translations=WORDS) as one:
        yield one


@contextmanager
def visit(browser: Browser, url: str, locale: str = "en-GB", phone: bool = False) -> Iterator[Page]:
    size = PHONE if phone else {"width": 1280, "height": 900}
    context = browser.new_context(viewport=size, locale=locale, is_mobile=phone, has_touch=phone)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#study-code")
    yield page
    context.close()


def around(page: Page) -> tuple[str, str, str, str]:
    """The page's language, title, notice and first tab."""
    tab = page.locator("[role=tab]:visible").first.inner_text()
    language = page.evaluate("document.documentElement.lang")
    return language, page.title(), page.inner_text("#banner"), tab


GERMAN = ("de", "Leserstudie", "Nur für Forschungszwecke - kein Medizinprodukt", "Leserstudie")
SPANISH = (
    "es",
    "Estudio de lectores",
    "Solo para investigación - no es un producto sanitario",
    "Estudio de lectores",
)


def test_the_link_of_an_invitation_opens_the_page_in_its_language(browser: Browser, served: Served) -> None:
    reader = served.reader()
    with visit(browser, f"{served.url}/#code={reader.code}&lang=de") as page:
        assert around(page) == GERMAN and page.input_value("#study-code") == reader.code
        assert page.evaluate("location.hash") == ""
        page.click("button[type=submit]")
        page.wait_for_selector("[data-step]")
        assert page.get_attribute(".sk-step", "lang") == "de"
        assert "Schritt 1 von 30: Einwilligung" in page.inner_text("[data-announce]")
        page.click("button[type=submit]")
        page.wait_for_selector("[data-saving] >> text=Eine Frage ist noch zu beantworten.")
        confirm(page)
        page.reload()
        page.wait_for_selector("[data-step]")
        assert around(page) == GERMAN and shown(page)[1] == "instructions"
        page.click("[data-act=withdraw]")
        page.fill("dialog input", "nein")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog >> text=Geben Sie zur Bestätigung WIDERRUF ein")
        page.fill("dialog input", "widerruf")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-kind=withdrawn] >> text=Vielen Dank für Ihre Zeit.")


def test_a_reader_chooses_the_language_at_sign_in_and_the_browser_proposes_one(
    browser: Browser, served: Served
) -> None:
    with visit(browser, served.url, locale="es-MX") as page:
        assert around(page) == SPANISH
        page.fill("#study-code", "AAAA-BBBB")
        page.click("[data-language=de]")
        assert around(page) == GERMAN and page.input_value("#study-code") == "AAAA-BBBB"
        assert page.get_attribute("[data-language=de]", "aria-pressed") == "true"
        page.keyboard.press("Tab")
        page.click("button[type=submit]")
        page.wait_for_selector("#study-signin-problem >> text=Dieser Code ist nicht bekannt")
        page.reload()
        page.wait_for_selector("#study-code")
        assert around(page) == GERMAN
    with visit(browser, f"{served.url}/#lang=constructor", locale="fr-FR") as page:
        assert around(page)[:2] == ("en", "Reader study")


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_on_a_phone_a_step_takes_two_screens_at_most(browser: Browser, served: Served, language: str) -> None:
    with visit(browser, f"{served.url}/#lang={language}", phone=True) as page:
        assert page.evaluate(SMALL) == []
        sign_in(page, served.reader().code)
        looked: dict[str, float] = {}
        for _ in range(60):
            step, kind = shown(page)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), kind
            assert page.evaluate(SMALL) == [], kind
            fill(page)
            if kind in ("before", "after", "preference"):
                looked[kind] = max(looked.get(kind, 0.0), height(page))
            if kind == "debrief":
                break
            page.click("button[type=submit]")
            await_next(page, step)
        assert looked.keys() == {"before", "after", "preference"}
        assert {kind: tall for kind, tall in looked.items() if tall > SCREENS * PHONE["height"]} == {}


def height(page: Page) -> float:
    """From the top of the step to the bottom of its button, in pixels."""
    until(page, "[...document.querySelectorAll('.sk-step img')].every((image) => image.complete)")
    return page.evaluate(
        "document.querySelector('.sk-confirm').getBoundingClientRect().bottom"
        " - document.querySelector('.sk-step').getBoundingClientRect().top"
    )
