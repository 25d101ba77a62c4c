"""Two photos of one lesion, as a person would use them, on a page that answers at once (`quick_page`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from playwright.sync_api import Page

from skinclip.core.assessment import Assessment
from tests.browser.visits import add_photo, assess, chromium
from tests.browser.waiting import until
from tests.helpers.served import ROOT

pytestmark = pytest.mark.browser
EXAMPLES = ROOT / "assets/examples"
DERMOSCOPY, CLOSE_UP = EXAMPLES / "synthetic_melanoma.jpg", EXAMPLES / "synthetic_angioma.jpg"
WIDTHS = (1440, 390)


@pytest.fixture(scope="module")
def pages(quick_server: str) -> Iterator[dict[int, Page]]:
    with chromium() as browser:
        opened = {}
        for width in WIDTHS:
            opened[width] = browser.new_page(viewport={"width": width, "height": 900}, bypass_csp=True)
        yield opened


@pytest.fixture
def page(quick_server: str, pages: dict[int, Page]) -> Page:
    return fresh(pages[1440], quick_server)


def fresh(page: Page, quick_server: str) -> Page:
    page.goto(quick_server)
    page.wait_for_selector("#assess")
    return page


def add_other(page: Page, file: Path) -> None:
    """Presses the button and chooses a file, as a person does."""
    with page.expect_file_chooser() as chooser:
        page.click("#other-slot [data-act=choose-other] >> visible=true")
    chooser.value.set_files(str(file))
    page.wait_for_selector("#other-preview figure img, #other-preview [role=alert]")


def choose_kind(page: Page, field: str, kind: str) -> None:
    page.locator(f"{field} input").click()
    page.get_by_role("option", name=kind, exact=True).click()


def saved(page: Page, kind: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"[data-request={kind}]")
    return download.value.path().read_bytes()


def test_both_photos_are_answered_named_and_corrected(page: Page) -> None:
    assert not page.locator("#other-slot").is_visible() and not page.locator("#kind").is_visible()
    add_photo(page, CLOSE_UP)  # the wrong way round: the close-up comes first
    add_other(page, DERMOSCOPY)
    until(page, "() => document.querySelector('#other-kind input').value === 'recognised: dermoscopy'")
    assert page.locator("#kind input").input_value() == "recognised: clinical close-up"
    assert "these two photos alone: dermoscopy and clinical close-up" in assess(page)
    page.wait_for_selector("#heat img", state="attached")
    assert "clinical close-up: read together" in page.inner_text(".sk-second-photo")

    choose_kind(page, "#kind", "dermoscopy")
    page.wait_for_selector("#kinds-note >> text=Both photos are taken for dermoscopy")
    page.wait_for_selector("#outdated >> text=of the kind recognised")
    page.click("#update")
    page.wait_for_selector("#result >> text=dermoscopy as given")
    page.wait_for_selector("#outdated", state="hidden")
    record = Assessment.from_json(saved(page, "json").decode())
    assert [(p.kind_given, p.kind_recognised) for p in record.photos] == [
        ("dermoscopy", "clinical"),
        (None, "dermoscopy"),
    ]
    with pypdfium2.PdfDocument(saved(page, "pdf")) as document:
        words = document[0].get_textpage().get_text_range()
    assert all(photo.sha256[:8] in words for photo in record.photos) and "dermoscopy as given" in words


def test_removing_or_replacing_either_clears_the_answer(page: Page) -> None:
    add_photo(page, DERMOSCOPY)
    add_other(page, CLOSE_UP)
    assess(page)
    page.click("#other-preview [data-request=remove]")
    page.wait_for_selector("#result >> text=Ready")
    page.wait_for_selector("#other-preview figure", state="detached")
    assert page.locator(".sk-answer:visible").count() == 0
    add_other(page, DERMOSCOPY)
    page.wait_for_selector("#other-preview [role=alert] >> text=there already")
    assert page.locator("#preview figure img").count() == 1  # the first photo stays
    add_other(page, CLOSE_UP)
    assess(page)
    page.click("#preview [data-request=remove]")  # the other one takes its place
    page.wait_for_selector("#result >> text=Ready")
    until(page, "() => document.querySelector('#kind input').value === 'recognised: clinical close-up'")
    side = assess(page)
    assert "ABCD" in side and "7-point" not in side and "streaks" not in side
    add_other(page, DERMOSCOPY)
    page.click("#synthetic_nevus")  # another lesion: the other photo of the one before must not stay
    page.wait_for_selector("#other-preview >> text=a new photo begins a new lesion")
    assert "this photo alone" in assess(page)


def test_the_other_photo_is_turned_cropped_and_given_back_whole(page: Page) -> None:
    add_photo(page, DERMOSCOPY)
    add_other(page, CLOSE_UP)
    first = page.locator("#preview figure").get_attribute("data-photo")
    page.click("#other-preview [data-opens=crop-dialog]")
    page.wait_for_selector("#crop-dialog[open] [data-crop-image][src]")
    page.click("[data-crop-act=right]")
    page.click("[data-crop-act=use]")
    page.wait_for_selector("#other-preview >> text=480 × 640 pixels · turned right")
    assert page.locator("#preview figure").get_attribute("data-photo") == first
    assess(page)
    page.wait_for_selector("#download button")
    clinician = Assessment.from_json(saved(page, "json").decode()).clinician
    assert clinician and clinician.photo_edit == "turned right (the photo added second)"
    page.click("#other-preview [data-request=uncrop]")
    page.wait_for_selector("#other-preview >> text=640 × 480 pixels")
    page.wait_for_selector("#result >> text=Ready")
    page.click("#other-preview [data-opens=crop-dialog]")
    page.click("[data-crop-act=left]")
    page.click("[data-crop-act=use]")
    page.wait_for_selector("#other-preview >> text=turned left")
    page.click("#preview [data-request=remove]")  # it takes the first one's place as it is
    page.wait_for_selector("#preview >> text=480 × 640 pixels · turned left")
    page.click("#preview [data-request=uncrop]")
    page.wait_for_selector("#preview >> text=640 × 480 pixels")


def test_on_a_phone_the_form_folds_to_both_photos(quick_server: str, pages: dict[int, Page]) -> None:
    page = fresh(pages[390], quick_server)
    add_photo(page, DERMOSCOPY)
    add_other(page, CLOSE_UP)
    assess(page)
    page.wait_for_selector("#heat img", state="attached")
    page.wait_for_selector("#stop", state="detached")
    assert page.locator("#preview img").is_visible() and page.locator("#other-preview img").is_visible()
    assert not page.locator("#other-kind").is_visible() and not page.locator("#assess").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click(".sk-fold")
    page.click("#other-preview [data-request=remove]")
    page.wait_for_selector("#result >> text=Ready")
    assert page.locator("#other-slot [data-act=choose-other]").is_visible()
