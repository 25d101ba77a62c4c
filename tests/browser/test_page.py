"""The page in a real browser: a photo goes in, the result is read. A missing browser is a failure, not a skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image, ImageFilter
from playwright.sync_api import Page

from skinclip import RESEARCH_USE_ONLY
from tests.browser.contrast import pale
from tests.browser.visits import add_photo, assess, chromium
from tests.browser.waiting import until
from tests.helpers.served import await_status, serving

pillow_heif.register_heif_opener()

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def upload_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def server(upload_folder: Path) -> Iterator[str]:
    with serving(environment={"GRADIO_TEMP_DIR": str(upload_folder)}) as page:
        await_status(page.url, page.process)
        yield page.url


@pytest.fixture
def page(server: str) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.foreign = []  # type: ignore[attr-defined]
        page.on(
            "request",
            lambda r: page.foreign.append(r.url) if not r.url.startswith((server, "data:", "blob:")) else None,  # type: ignore[attr-defined]
        )
        page.goto(server)
        page.wait_for_selector("#assess")
        yield page


def test_an_example_is_assessed_and_the_result_can_be_read(page: Page) -> None:
    assert RESEARCH_USE_ONLY in page.inner_text("#banner")
    add_photo(page, ROOT / "assets/examples/synthetic_melanoma.jpg")
    result = assess(page)
    assert "Refer" in result and "malignant, threshold" in result
    assert "are referred and" in result  # what the threshold costs, in words
    for name in ("melanoma", "melanocytic nevus"):
        assert name in result
    assert not page.locator("#side .sk-row", has_text="vascular lesion").is_visible()  # not among the three leading
    page.click("#side summary >> text=others, together")
    for name in ("basal cell carcinoma", "dermatofibroma", "vascular lesion"):
        assert page.locator("#side .sk-row", has_text=name).is_visible()
    assert not page.foreign, "the page asked other hosts"  # type: ignore[attr-defined]


def test_what_it_cannot_tell_is_one_click_from_the_verdict(page: Page) -> None:
    page.click("#synthetic_melanoma")
    page.wait_for_selector("#preview figure img")
    assess(page)
    page.click("#result >> text=What it cannot tell")
    dialog = page.locator("#limits-dialog")
    words = dialog.inner_text()
    expected = (
        "It knows",
        "cannot name",
        "calibration photos look more usual",
        "Errors by kind of photo",
        "skin tone",
        "body site",
    )
    for said in expected:
        assert said in words
    assert page.evaluate("document.activeElement.id") == "limits-heading"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def choose(page: Page, field: str, option: str) -> None:
    """Picks the last option of a dropdown whose label holds `option`: the first may say "as seen: ..."."""
    page.locator(f"#{field} input").click()
    page.get_by_role("option", name=option).last.click()


def test_the_answer_is_asked_again_with_another_checklist_and_without_a_region(page: Page) -> None:
    page.click("#synthetic_nevus")
    page.wait_for_selector("#preview figure img")
    assess(page)
    page.click("#change button")
    choose(page, "if-blue_whitish_veil", "present")
    page.wait_for_selector("#changed table")
    assert "with the checklist as you set it" in page.inner_text("#changed").lower()
    rows = page.locator("#changed tbody tr").all_inner_texts()
    melanoma = next(row for row in rows if row.startswith("melanoma"))
    assert "▼" not in melanoma  # a veil never makes melanoma less likely
    choose(page, "without", "1 ")
    page.wait_for_selector("#changed img")
    assert page.locator("#changed table").count() == 2


def test_explanations_are_compared_by_mouse_and_keyboard(page: Page) -> None:
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector("#compare >> text=Nothing to compare yet")
    page.get_by_role("tab", name="Assess").click()
    page.click("#synthetic_melanoma")
    page.wait_for_selector("#preview figure img")
    assess(page)
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector("#compare >> text=Computing")
    page.wait_for_selector(".sk-compare", timeout=90_000)
    pane, divider = page.locator("#compare .sk-pane"), page.locator("#compare .sk-divider")
    box = pane.bounding_box()
    assert box
    # the divider is dragged on the picture itself
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, middle, steps=4)
    page.mouse.up()
    assert abs(int(divider.get_attribute("aria-valuenow") or 0) - 25) <= 1
    divider.focus()
    page.keyboard.press("Home")
    assert divider.get_attribute("aria-valuenow") == "0"
    page.locator('.sk-compare [data-side="right"]').select_option("occlusion")
    assert page.locator('[data-method="occlusion"]').is_visible()
    assert not page.locator('[data-method="grad_cam"]').is_visible()
    how = page.locator('[data-how="occlusion"]')
    assert how.is_visible() and not page.locator('[data-how="grad_cam"]').is_visible()
    assert "experts drew" in how.inner_text() and "deletion" not in how.inner_text()  # one click deeper
    how.locator("summary").click()
    assert "deletion" in how.inner_text()
    shown = page.locator('.sk-compare [data-show="lesion"]')
    shown.focus()
    page.keyboard.press("Space")
    assert not page.locator('#compare [data-part="lesion"]').is_visible()
    # zoom goes to the cursor: the place under it stays under it
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()  # what was clicked below may have moved it
    assert box
    spot = [box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6]
    before = page.evaluate(UNDER, spot)
    page.mouse.move(*spot)
    for _ in range(5):
        page.mouse.wheel(0, -200)
    after = page.evaluate(UNDER, spot)
    assert page.inner_text("#compare [data-zoom]") != "100 %"
    assert abs(before[0] - after[0]) < 0.01 and abs(before[1] - after[1]) < 0.01


# the place of the photo, in shares of its sides, that lies under a point of the window
UNDER = """([x, y]) => {
    const shown = [...document.querySelectorAll(".sk-pane .sk-canvas")].find((c) => c.checkVisibility());
    const box = shown.getBoundingClientRect();
    return [(x - box.left) / box.width, (y - box.top) / box.height];
}"""


def test_an_example_button_gives_its_photo(page: Page) -> None:
    page.click("#synthetic_nevus")
    page.wait_for_selector("#preview figure img")
    assert "Synthetic example: nevus" in page.inner_text("#preview")


def test_files_that_browsers_cannot_show_are_shown(page: Page, tmp_path: Path) -> None:
    photo = Image.open(ROOT / "assets/examples/synthetic_nevus.jpg")
    for kind in ("heic", "tiff"):
        photo.save(tmp_path / f"photo.{kind}", "HEIF" if kind == "heic" else "TIFF")
        add_photo(page, tmp_path / f"photo.{kind}")
        page.wait_for_selector("#preview figcaption:not(:has-text('Synthetic'))")
        until(page, "document.querySelector('#preview img').naturalWidth > 0")
        page.click("#synthetic_angioma")
        page.wait_for_selector("#preview >> text=Synthetic example")


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_a_photo_is_pasted_or_dropped_anywhere(page: Page, how: str) -> None:
    data = (ROOT / "assets/examples/synthetic_nevus.jpg").read_bytes()
    page.evaluate(
        """([how, data]) => {
            const files = new DataTransfer();
            files.items.add(new File([Uint8Array.from(data)], "image.jpg", { type: "image/jpeg" }));
            const options = { bubbles: true, cancelable: true };
            document.querySelector("#result").dispatchEvent(how === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: files })
                : new DragEvent("drop", { ...options, dataTransfer: files }));
        }""",
        [how, list(data)],
    )
    page.wait_for_selector("#preview figure img")


def test_a_bad_file_is_told_clearly_and_nothing_is_lost(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "photo.jpg"
    bad.write_text("just some text")
    page.get_by_label("Age", exact=True).fill("61")
    add_photo(page, bad)
    assert "holds text, not a photo" in page.inner_text("#preview")
    assert "no photo yet" in assess(page)
    assert page.get_by_label("Age", exact=True).input_value() == "61"


def test_a_blurred_photo_gets_no_figures(page: Page, tmp_path: Path) -> None:
    photo = Image.open(ROOT / "assets/examples/synthetic_nevus.jpg").filter(ImageFilter.GaussianBlur(14))
    photo.save(tmp_path / "blurred.png")
    add_photo(page, tmp_path / "blurred.png")
    assert "blurred" in page.inner_text("#preview")  # told before the model runs
    result = assess(page)
    assert "abstains" in result and "Differential" not in result
    assert "%" not in page.inner_text("#result") and not page.locator("#side").is_visible()


def test_no_upload_stays_on_disk(page: Page, upload_folder: Path, tmp_path: Path) -> None:
    add_photo(page, ROOT / "assets/examples/synthetic_nevus.jpg")
    bad = tmp_path / "photo.jpg"
    bad.write_text("just some text")
    add_photo(page, bad)
    page.wait_for_selector("#preview [role=alert]")
    assert not [f for f in upload_folder.rglob("*") if f.is_file()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_in_both_themes(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.reload()
    page.set_viewport_size({"width": 390, "height": 844})
    page.click("#synthetic_melanoma")
    page.wait_for_selector("#preview figure img")
    assess(page)
    page.wait_for_selector("#figures img")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    box = page.locator("#banner .sk-banner").bounding_box()
    assert box and box["y"] == 0, "the banner must stay in view"
    assert pale(page, READ) == []


READ = (
    "#answer h2, #answer p, #answer .sk-name, #answer .sk-value, .sk-chip, .sk-header p, .sk-note, .sk-verdict, "
    "figcaption, .sk-button, .sk-footer, .sk-finding, #assess, .sk-banner"
)


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(".gradio-container :is(button, input, select, textarea, a)")]
            .filter((e) => e.offsetParent && !e.closest("[aria-hidden=true]"))
            .filter((e) => !(e.innerText || e.ariaLabel || e.labels?.length || e.title))
            .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
