"""The clinician's hand, each feature used as a person would, on a page that answers at once (`quick_page`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pypdfium2
import pytest
from playwright.sync_api import Page

from skinclip.core.assessment import Assessment
from tests.browser.visits import FLAGS, add_photo, assess, chromium
from tests.browser.waiting import until
from tests.helpers.served import ROOT

pytestmark = pytest.mark.browser
EXAMPLES = ROOT / "assets/examples"
MELANOMA = EXAMPLES / "synthetic_melanoma.jpg"
DRAWN = """() => [...document.querySelectorAll('#figures [data-pane=main] .sk-region')]
    .filter((g) => g.style.display !== "none").map((g) => g.dataset.ref)"""


@pytest.fixture
def page(quick_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    fake_camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    monkeypatch.setattr("tests.browser.visits.FLAGS", [*FLAGS, *fake_camera])
    with chromium() as browser:
        context = browser.new_context(
            viewport={"width": 1440, "height": 900},
            permissions=["clipboard-read", "clipboard-write", "camera"],
            bypass_csp=True,
        )
        page = context.new_page()
        page.goto(quick_server)
        page.wait_for_selector("#assess")
        yield page


@pytest.fixture
def answered(page: Page) -> Page:
    add_photo(page, MELANOMA)
    assess(page)
    page.wait_for_selector("#heat img", state="attached")
    return page


def test_the_camera_says_how_the_picture_is_and_takes_it(page: Page) -> None:
    time, latest = "document.querySelector('[data-camera]').currentTime", 0.0
    for button, preview in (("camera", "#preview"), ("camera-other", "#other-preview")):
        page.click(f"[data-act={button}]")
        page.wait_for_selector("[data-camera-act=take]:not([disabled])")
        assert any(word in page.inner_text("[data-camera-words]") for word in ("focus", "Too", "good"))
        # Chromium's camera shows the time since it started: its second picture must not be the first one again.
        until(page, f"() => {time} > {latest}")
        latest = page.evaluate(time) + 5
        page.click("[data-camera-act=take]")
        page.wait_for_selector(f"{preview} figure img")
        assert page.locator("figure[data-photo]").count() == (1 if button == "camera" else 2)


def test_a_camera_that_starts_late_takes_nothing_early_and_never_stays_on(page: Page) -> None:
    page.evaluate(
        """() => {
            const own = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            window.given = [];
            navigator.mediaDevices.getUserMedia = async (asked) => {
                await new Promise((resolve) => { window.grant = resolve; });
                window.given.push(await own(asked));
                return window.given.at(-1);
            };
        }"""
    )
    page.click("[data-act=camera]")
    page.evaluate("grant()")
    page.wait_for_selector("[data-camera-act=take]:not([disabled])")
    page.click("#camera-dialog [data-closes]")
    page.click("[data-act=camera]")
    assert page.is_disabled("[data-camera-act=take]") and "starting" in page.inner_text("[data-camera-words]")
    page.click("#camera-dialog [data-closes]")
    page.evaluate("grant()")  # the visitor said yes after the dialog was closed
    until(page, "() => given.length === 2")
    until(page, "() => given.every((s) => s.getTracks().every((t) => t.readyState === 'ended'))")
    assert page.locator("figure[data-photo]").count() == 0


def test_a_photo_is_turned_cropped_and_given_back_whole(page: Page) -> None:
    add_photo(page, MELANOMA)
    page.click("#preview [data-opens=crop-dialog]")
    page.wait_for_selector("#crop-dialog[open] [data-crop-image][src]")
    page.click("[data-crop-act=right]")
    page.wait_for_timeout(300)
    page.focus("[data-crop-box]")
    for key in (*10 * ["Shift+ArrowLeft"], "ArrowRight"):
        page.keyboard.press(key)
    page.click("[data-crop-act=use]")
    page.wait_for_selector("#preview >> text=turned right, cropped to 80 % × 100 %")
    page.wait_for_selector("#preview >> text=384 × 640")
    page.click("#preview [data-opens=crop-dialog]")  # again: what is cropped is what is seen
    page.wait_for_selector("#crop-dialog[open] [data-crop-image][src]")
    page.click("[data-crop-act=left]")
    page.click("[data-crop-act=use]")
    page.wait_for_selector(
        "#preview >> text=640 × 384 pixels · turned right, cropped to 80 % × 100 %, then turned left"
    )
    assess(page)
    page.wait_for_selector("#download button")
    with page.expect_download() as saved:
        page.click("[data-request=json]")
    record = Assessment.from_json(saved.value.path().read_text())
    assert record.clinician and record.clinician.photo_edit.startswith("turned right")
    page.click("[data-request=uncrop]")
    page.wait_for_selector("#preview >> text=640 × 480")


def test_threshold_and_prevalence_change_the_verdict_and_can_be_put_back(answered: Page) -> None:
    page = answered
    page.click("summary >> text=Prevalence in use")
    page.focus("[data-setting=threshold]")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".sk-verdict-figures >> text=threshold 8")
    assert page.evaluate("document.activeElement.dataset.setting") == "threshold"  # the keyboard goes on
    page.locator("[data-setting=prevalence]").fill("5")
    page.wait_for_selector("text=5 % malignant, your choice")
    assert malignant(page) == pytest.approx(posterior(0.928, 0.201, 0.05), abs=0.02)
    page.click("[data-request=reset-settings]")
    page.wait_for_selector("text=that of HAM10000")
    assert malignant(page) == pytest.approx(0.928, abs=0.001)


def malignant(page: Page) -> float:
    """The share in the verdict."""
    figures = re.search(r"([\d.]+)\s%\smalignant", page.inner_text(".sk-verdict-figures"))
    assert figures
    return float(figures[1]) / 100


def posterior(p: float, prevalence: float, other: float) -> float:
    """A probability at another prevalence, by Bayes' rule."""
    odds = p / (1 - p) * other / (1 - other) * (1 - prevalence) / prevalence
    return odds / (1 + odds)


def test_the_viewer_shows_one_finding_all_of_them_and_both_panes_together(answered: Page) -> None:
    page = answered
    assert page.evaluate(DRAWN) == ["r6"]  # what weighs most
    page.hover(".sk-finding >> nth=1")
    assert page.evaluate(DRAWN) == ["r2"]
    page.mouse.move(2, 2)
    page.click('[data-view-act="all"]')
    assert len(page.evaluate(DRAWN)) == 8
    page.click('[data-view-act="both"]')
    pane = page.locator("#figures .sk-pane").first
    pane.focus()
    page.keyboard.press("+")
    moved = page.evaluate("[...document.querySelectorAll('#figures .sk-canvas')].map(c => c.style.transform)")
    assert moved[0] == moved[1] and "scale(1.25)" in moved[0]
    page.keyboard.press("0")
    page.keyboard.down("p")
    assert page.evaluate(DRAWN) is not None and not page.locator("#figures .sk-regions").first.is_visible()
    page.keyboard.up("p")
    page.fill("[data-view-scale]", "12")
    assert "mm" in page.locator("[data-scale-bar]").first.inner_text()


def test_corrections_are_answered_kept_and_discarded(answered: Page) -> None:
    page = answered
    page.click("[data-strike=r1]")
    page.wait_for_selector("#revision >> text=irregular dots and globules struck out")
    page.select_option("[data-add]", "blue_whitish_veil:present")
    page.wait_for_selector("#revision >> text=blue-whitish veil added")
    page.click("[data-outline=start]")
    box = page.locator("#figures .sk-pane").first.bounding_box()
    assert box
    for x, y in ((0.3, 0.3), (0.6, 0.3), (0.7, 0.6), (0.4, 0.7)):
        page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    page.click("[data-outline=use]")
    page.wait_for_selector("#revision >> text=outline redrawn")
    page.fill("[data-case]", "C-17")
    files = {}
    for kind in ("pdf", "json"):
        with page.expect_download() as saved:
            page.click(f"[data-request={kind}]")
        files[kind] = saved.value.path().read_bytes()
    record = Assessment.from_json(files["json"].decode())
    assert record.clinician and record.clinician.case_id == "C-17" and record.clinician.revision
    assert record.clinician.revision.struck_out == ("r1",) and len(record.clinician.revision.outline) == 4
    with pypdfium2.PdfDocument(files["pdf"]) as document:
        words = document[0].get_textpage().get_text_range()
    assert "Case C-17" in words and "clinician's version" in words
    page.click("[data-outline=discard]")
    page.wait_for_selector("#revision .sk-revised", state="hidden")


def test_a_letter_is_edited_before_it_is_copied(answered: Page) -> None:
    page = answered
    page.click("[data-request=letter]")
    page.wait_for_selector("#letter-dialog[open]")
    text = page.locator("[data-letter]")
    assert "Dear colleague" in text.input_value()
    text.fill("My own words")
    page.click("[data-act=copy-letter]")
    page.wait_for_selector("text=Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "My own words"


def test_my_diagnosis_first_hides_the_answer(page: Page) -> None:
    page.check("#first-mode input")
    add_photo(page, EXAMPLES / "synthetic_nevus.jpg")
    page.click("#assess")
    page.wait_for_selector("[data-first=ready]")
    assert "%" not in page.inner_text("#answer")
    page.select_option("[data-first-diagnosis]", "mel")
    page.click("[data-request=first]")
    page.wait_for_selector("#result .sk-verdict")
    assert "Your diagnosis first: melanoma" in page.inner_text("#agreement")


def test_the_keyboard_reaches_everything_and_a_sheet_says_how(answered: Page) -> None:
    page = answered
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+v")
    assert page.evaluate("document.activeElement.className") == "sk-verdict"
    page.keyboard.press("Alt+i")
    assert page.evaluate("document.activeElement.className") == "sk-pane"


def test_the_viewers_bar_is_one_stop_and_arrow_keys_go_along_it(answered: Page) -> None:
    answered.focus("[data-view=photo]")
    seen = []
    for key in ("ArrowRight", "End", "ArrowRight", "ArrowLeft"):
        answered.keyboard.press(key)
        seen.append(
            answered.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )
    assert seen == ["Regions", "Full screen", "Photo", "Full screen"]
    assert answered.locator(".sk-viewer-bar button[tabindex='0']").count() == 1
    answered.keyboard.press("Tab")
    assert answered.evaluate("document.activeElement.className") == "sk-pane"  # where arrow keys move the photo


def test_printing_prints_the_report_and_not_the_form(answered: Page) -> None:
    answered.emulate_media(media="print")
    assert answered.locator("#result .sk-verdict").is_visible() and not answered.locator("#form").is_visible()


def test_by_keyboard_the_focus_goes_to_the_verdict_and_stops_nowhere_else(page: Page) -> None:
    add_photo(page, MELANOMA)
    page.focus("#site input")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#first-mode') !== null")  # no box that scrolls between
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Assess
    page.wait_for_selector("#download button")
    until(page, "() => document.activeElement.matches('#result h2.sk-verdict')")


def test_beside_a_long_form_the_result_comes_into_sight(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 500})
    add_photo(page, MELANOMA)
    page.wait_for_selector("#kind input")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    assert page.locator("#assess").bounding_box()["y"] < 500  # type: ignore[index]
    page.click("#assess")
    page.wait_for_selector("#download button")
    top = page.locator("#result").bounding_box()["y"]  # type: ignore[index]
    assert 0 <= top < 340
