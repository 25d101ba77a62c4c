"""One photo's answer never stands beside another photo: a visitor in a hurry, in a real browser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.visits import add_photo, assess, chromium
from tests.browser.waiting import until
from tests.helpers.served import ROOT, await_status, serving

pytestmark = pytest.mark.browser
EXAMPLES = ROOT / "assets/examples"
MELANOMA, NEVUS = EXAMPLES / "synthetic_melanoma.jpg", EXAMPLES / "synthetic_nevus.jpg"

# keeps every text that a live region has held, and every key of a visible answer with the photo beside it
WATCH = """() => {
    window.heard = []; window.pairs = [];
    const look = () => {
        for (const region of document.querySelectorAll("[role=status], [aria-live]")) {
            const text = region.textContent.trim();
            if (text && !window.heard.includes(text)) window.heard.push(text);
        }
        const photo = document.querySelector("#preview [data-photo]")?.dataset.photo || "none";
        for (const answer of document.querySelectorAll(".sk-answer")) {
            if (answer.checkVisibility() && answer.dataset.photo !== photo) window.pairs.push(answer.className);
        }
        requestAnimationFrame(look);
    };
    look();
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as page:
        await_status(page.url, page.process)
        yield page.url


@pytest.fixture
def page(server: str) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server)
        page.wait_for_selector("#assess")
        page.evaluate(WATCH)
        yield page
        assert page.evaluate("window.pairs") == []


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def photo_of(page: Page, selector: str) -> str | None:
    return page.locator(f"{selector} [data-photo]").first.get_attribute("data-photo")


def idle(page: Page) -> None:
    """Waits long enough for an answer that should not come."""
    page.wait_for_selector("#assess:not([disabled])", timeout=30_000)
    page.wait_for_timeout(8_000)


@pytest.mark.parametrize("pause", [0, 300, 1_000])
def test_a_photo_added_during_an_assessment_is_not_answered_for_the_one_before(page: Page, pause: int) -> None:
    add_photo(page, MELANOMA)
    page.click("#assess")
    page.wait_for_timeout(pause)
    page.set_input_files("#photo input[type=file]", str(NEVUS))
    page.wait_for_selector(f'#preview [data-photo="{sha256(NEVUS)}"]')
    idle(page)
    assert page.locator(".sk-answer").count() == 0 and "Ready" in page.inner_text("#result")
    assert not page.locator("#figures").is_visible() and not page.locator("#change").is_visible()
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector("#compare >> text=Nothing to compare yet")
    page.get_by_role("tab", name="Assess").click()
    assess(page)
    page.wait_for_selector("#figures img")
    assert photo_of(page, "#result") == photo_of(page, "#figures") == sha256(NEVUS)


def test_the_comparison_belongs_to_the_answer(page: Page) -> None:
    add_photo(page, MELANOMA)
    assess(page)
    page.wait_for_selector("#figures img")
    page.get_by_role("tab", name="Compare explanations").click()  # its layers take their time
    page.wait_for_selector("#compare :text-matches('being computed|Computing:'), #compare .sk-compare")
    page.get_by_role("tab", name="Assess").click()
    page.set_input_files("#photo input[type=file]", str(NEVUS))
    page.wait_for_selector(f'#preview [data-photo="{sha256(NEVUS)}"]')
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector("#compare >> text=Nothing to compare yet", timeout=60_000)
    page.wait_for_timeout(15_000)
    assert page.locator(".sk-compare").count() == 0
    page.get_by_role("tab", name="Assess").click()
    assess(page)
    page.wait_for_selector("#figures img")
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector(".sk-compare", timeout=90_000)
    assert photo_of(page, "#compare") == sha256(NEVUS)


def test_a_part_of_an_answer_that_comes_too_late_is_hidden(page: Page) -> None:
    add_photo(page, NEVUS)
    assess(page)
    page.wait_for_selector("#figures img")
    page.wait_for_selector("#download .sk-answer", state="attached")  # it comes last
    page.evaluate("""() => {
        document.querySelector("#figures .sk-answer").dataset.photo = "0".repeat(64);
        document.querySelector("#download .sk-answer").dataset.answer = "of other entries";
    }""")
    assert not page.locator("#figures img").first.is_visible() and not page.locator(".sk-download").first.is_visible()
    assert page.locator("#result .sk-verdict").is_visible()
    page.evaluate("""() => {
        document.querySelector("#result .sk-answer").dataset.photo = "0".repeat(64);
    }""")
    assert not page.locator("#result .sk-verdict").is_visible() and not page.locator("#side").is_visible()


def test_changed_entries_mark_the_answer_and_one_click_updates_it(page: Page) -> None:
    add_photo(page, NEVUS)
    page.get_by_label("Age", exact=True).fill("61")
    assess(page)
    page.wait_for_selector("#figures img")
    first = page.locator("#result .sk-answer").get_attribute("data-answer")
    assert not page.locator("#outdated").is_visible()
    page.get_by_label("Age", exact=True).fill("25")
    page.wait_for_selector("#outdated >> text=age 61")
    page.get_by_label("Age", exact=True).fill("61")
    page.wait_for_selector("#outdated", state="hidden")
    page.locator("#site input").click()
    page.get_by_role("option", name="back").first.click()
    page.wait_for_selector("#outdated >> text=age 61")
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector(".sk-compare-outdated", timeout=90_000)
    assert "age 61" in page.inner_text("#compare")
    page.get_by_role("tab", name="Assess").click()
    page.click("#update")
    page.wait_for_selector("#outdated", state="hidden", timeout=60_000)
    page.wait_for_selector("#rationale:not(:has([aria-busy])) >> text=age 61, back", timeout=60_000)
    assert page.locator("#result .sk-answer").get_attribute("data-answer") != first


def test_entries_changed_during_an_assessment_mark_it_too(page: Page) -> None:
    add_photo(page, NEVUS)
    page.click("#assess")
    page.get_by_label("Age", exact=True).fill("44")
    page.wait_for_selector("#figures img", timeout=60_000)
    page.wait_for_selector("#outdated >> text=no age, sex or body site")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("large.jpg", b"\xff\xd8\xff" + bytes(20_500_000), "larger than 20 MB"),
        ("letter.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "PDF"),
        ("notes.txt", b"just some text", "holds text, not a photo"),
        ("empty.jpg", b"", "empty"),
    ],
)
@pytest.mark.parametrize("way", ["choose", "drop"])
def test_a_refusal_stays_on_the_page_and_clears_the_answer(
    page: Page, tmp_path: Path, name: str, data: bytes, words: str, way: str
) -> None:
    add_photo(page, NEVUS)
    assess(page)
    page.wait_for_selector("#figures img")
    (tmp_path / name).write_bytes(data)
    if way == "choose":
        page.set_input_files("#photo input[type=file]", str(tmp_path / name))
    else:
        page.evaluate(DROP, [name, len(data) if len(data) > 1_000_000 else list(data)])
    page.wait_for_selector("#preview [role=alert]", timeout=30_000)
    page.wait_for_timeout(6_000)
    assert words in page.inner_text("#preview")
    assert page.locator("#preview img").count() == 0 and page.locator(".sk-answer").count() == 0
    assert page.locator("[data-testid=toast-body]").count() == 0 and ".heic" not in page.inner_text("body")
    add_photo(page, NEVUS)  # and the next photo is taken
    assert photo_of(page, "#preview") == sha256(NEVUS)


DROP = """([name, data]) => {
    const files = new DataTransfer();
    const bytes = typeof data === "number" ? new Uint8Array(data) : Uint8Array.from(data);
    files.items.add(new File([bytes], name));
    const options = { bubbles: true, cancelable: true, dataTransfer: files };
    document.querySelector("#photo .sk-drop").dispatchEvent(new DragEvent("drop", options));
}"""


def test_an_upload_that_fails_is_said_on_the_page(page: Page) -> None:
    add_photo(page, NEVUS)
    assess(page)
    page.route("**/upload*", lambda route: route.abort())
    page.set_input_files("#photo input[type=file]", str(MELANOMA))
    page.wait_for_selector("#preview >> text=did not reach the program", timeout=30_000)
    assert page.locator(".sk-answer").count() == 0


@pytest.mark.parametrize("locale", ["en-US", "de-DE"])
def test_keyboard_and_screen_reader_come_to_the_answer(server: str, locale: str) -> None:
    with chromium() as browser:
        page = browser.new_page(locale=locale)
        page.goto(server)
        page.wait_for_selector("#assess")
        page.evaluate(WATCH)
        add_photo(page, NEVUS)
        page.locator("#assess").focus()
        page.keyboard.press("Enter")
        until(page, "document.activeElement.id === 'result'")
        page.wait_for_selector("#figures img", timeout=60_000)
        until(page, "document.activeElement.matches('#result h2')")
        page.wait_for_timeout(6_000)
        heard = page.evaluate("window.heard")
        assert any(text.startswith("Assessment ready.") for text in heard), heard
        assert not [text for text in heard if "common." in text], heard
        assert any(text.startswith("Photo added") for text in heard), heard
        add_photo(page, MELANOMA)  # no answer is left in a live region beside another photo
        page.wait_for_selector(f'#preview [data-photo="{sha256(MELANOMA)}"]')
        said = page.locator("[role=status]").all_text_contents()
        assert not [text for text in said if "Assessment ready" in text], said


def test_on_a_phone_the_page_goes_to_the_answer(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    add_photo(page, NEVUS)
    assess(page)
    page.wait_for_selector("#figures img")
    until(page, "document.activeElement.matches('#result h2')")
    until(page, "document.querySelector('#result').getBoundingClientRect().top < 100")
