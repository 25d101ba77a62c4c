"""Makes the pictures of the page anew: `python -m eval_study.screenshot`.

The README's picture, and with `--states` reference pictures of every state of the photo page at three widths, light and
dark (`docs/screens`), which `tests/browser/test_screens.py` compares with. Only the project's synthetic examples are
shown. The states come from kept Assessments (`tests/browser/quick_page.py`), so they do not change with the weights.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFilter
from playwright.sync_api import Browser, Error, Page, sync_playwright

from eval_study.trust_study.serving import free_port

ROOT = Path(__file__).resolve().parents[1]
OUT, SCREENS, EXAMPLE, WIDTH = ROOT / "assets" / "screenshot.png", ROOT / "docs" / "screens", "melanoma", 1440
WIDTHS, SCHEMES, HEIGHT = (1440, 1024, 390), ("light", "dark"), 900
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
# no focus, and no date of today
STILL = """() => {
    document.activeElement.blur();
    document.querySelector("[data-date]")?.setAttribute("type", "hidden");
}"""
SECONDS = 180  # for the page to load, and for an answer


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m eval_study.screenshot", description=__doc__)
    parser.add_argument("--states", action="store_true", help="the reference pictures instead of the README's one")
    parser.add_argument("--out", type=Path, help=f"default: {OUT.relative_to(ROOT)}, or {SCREENS.relative_to(ROOT)}/")
    asked = parser.parse_args(arguments)
    if asked.states:
        folder = asked.out or SCREENS
        folder.mkdir(parents=True, exist_ok=True)
        with served("-m", "tests.browser.quick_page") as url, chromium() as browser:
            for name, picture in states(browser, url):
                (folder / f"{name}.webp").write_bytes(picture)
        total = sum(file.stat().st_size for file in folder.glob("*.webp"))
        print(f"{folder}: {total / 1e6:.1f} MB")
        return
    with served("app.py", "--port") as url, chromium() as browser:
        page = opened(browser, url, WIDTH, "light")
        ready(page)
        answered(page)
        picture = quantised(whole(page))
    (asked.out or OUT).write_bytes(picture)
    print(f"{asked.out or OUT}: {len(picture) / 1000:.0f} kB")


@contextmanager
def served(*command: str) -> Iterator[str]:
    """The address of a page that `python COMMAND PORT` serves."""
    port = free_port()
    server = subprocess.Popen([sys.executable, *command, str(port)], cwd=ROOT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium."""
    browser_file = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_file is None:
        raise SystemExit("no Chromium: install it (Debian, Ubuntu: apt-get install chromium)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_file, args=FLAGS)
        yield browser
        browser.close()


def states(browser: Browser, url: str) -> Iterator[tuple[str, bytes]]:
    """(name, WebP) of every state at every width in both themes."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            for state, picture in tour(browser, url, width, scheme):
                yield f"{state}-{width}-{scheme}", picture


def tour(browser: Browser, url: str, width: int, scheme: str) -> Iterator[tuple[str, bytes]]:
    """(state, WebP half as wide as the page) of every state, one after the other on one page."""
    page = opened(browser, url, width, scheme)
    for state, enter, leave in STATES:
        enter(page)
        yield state, as_webp(whole(page))
        page.set_viewport_size({"width": width, "height": HEIGHT})
        leave(page)
    page.context.close()


def as_webp(png: bytes) -> bytes:
    """The picture at half its size."""
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    held = io.BytesIO()
    small.save(held, "WEBP", quality=70, method=4)
    return held.getvalue()


def opened(browser: Browser, url: str, width: int, scheme: str) -> Page:
    """The page, ready, nothing moving."""
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHT},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
        bypass_csp=True,
    )
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    for _ in range(SECONDS):
        try:
            page.goto(url)
            break
        except Error:  # nobody listens yet
            page.wait_for_timeout(1000)
    page.wait_for_selector("#assess")
    page.wait_for_timeout(1500)
    return page


def whole(page: Page) -> bytes:
    """PNG of the whole page, what is sticky at its place."""
    page.wait_for_timeout(600)
    height = int(page.evaluate("document.documentElement.scrollHeight"))
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})  # type: ignore[index]
    page.evaluate(STILL)
    page.wait_for_timeout(400)
    return page.screenshot()


# --- the states, in the order of a visit: each begins where the one before was left ---------------------------------


def stay(page: Page) -> None:
    """Nothing."""


def ready(page: Page) -> None:
    """Adds a photo."""
    page.click(f"#synthetic_{EXAMPLE}")
    page.wait_for_selector("#preview figure img")


def answered(page: Page) -> None:
    """Presses Assess and waits for the whole answer."""
    page.click("#assess")
    page.wait_for_selector("#heat img", state="attached")
    page.wait_for_selector("#assess:not([disabled])", state="attached")


def two_photos(page: Page) -> None:
    """Adds the other photo of the lesion, and has both assessed."""
    page.set_input_files("#other input[type=file]", str(ROOT / "assets" / "examples" / "synthetic_angioma.jpg"))
    page.wait_for_selector("#other-preview figure img")
    page.wait_for_timeout(600)  # its kind is recognised
    answered(page)


def one_again(page: Page) -> None:
    """Begins anew with one photo."""
    back(page)
    ready(page)


def side_by_side(page: Page) -> None:
    """Shows regions beside Grad-CAM, or one of them again."""
    page.click('[data-view-act="both"]')


def limits(page: Page) -> None:
    """Opens what the model cannot tell."""
    page.click("#result [data-opens=limits-dialog]")


def close(page: Page) -> None:
    """Closes a dialog."""
    page.keyboard.press("Escape")


def revised(page: Page) -> None:
    """Strikes a finding out."""
    page.click('[data-strike="r1"]')
    page.wait_for_selector("#revision .sk-revised")


def compared(page: Page) -> None:
    """Lays the explanations over one another."""
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector(".sk-compare")


def back(page: Page) -> None:
    """Loads the page anew."""
    page.reload()
    page.wait_for_selector("#assess")
    page.wait_for_timeout(1500)


def first(page: Page) -> None:
    """Asks for the clinician's diagnosis before the answer."""
    page.check("#first-mode input")
    ready(page)
    page.click("#assess")
    page.wait_for_selector('[data-first="ready"]')


def abstained(page: Page) -> None:
    """Adds a blurred photo, on which the model abstains."""
    blurred = io.BytesIO()
    with Image.open(ROOT / "assets" / "examples" / f"synthetic_{EXAMPLE}.jpg") as photo:
        photo.filter(ImageFilter.GaussianBlur(14)).save(blurred, "PNG")
    _add(page, "blurred.png", blurred.getvalue())
    page.click("#assess")
    page.wait_for_selector("#result [role=alert]")
    page.wait_for_selector("#assess:not([disabled])", state="attached")


def refused(page: Page) -> None:
    """Adds a file that is no photo."""
    _add(page, "notes.jpg", b"just some text")


def _add(page: Page, name: str, data: bytes) -> None:
    file = {"name": name, "mimeType": "image/png", "buffer": data}
    page.set_input_files("#photo input[type=file]", file)  # type: ignore[arg-type]
    page.wait_for_selector(f"#preview {'[role=alert]' if data[:4] == b'just' else 'figure img'}")


# (name, how it is entered, how it is left)
STATES: tuple[tuple[str, Callable[[Page], None], Callable[[Page], None]], ...] = (
    ("empty", stay, stay),
    ("ready", ready, stay),
    ("two_photos", two_photos, one_again),
    ("result", answered, stay),
    ("side_by_side", side_by_side, side_by_side),
    ("limits", limits, close),
    ("revised", revised, stay),
    ("compare", compared, back),
    ("first", first, back),
    ("abstained", abstained, back),
    ("refused", refused, stay),
)


def quantised(png: bytes) -> bytes:
    """The picture as a PNG of 256 colours."""
    with Image.open(io.BytesIO(png)) as picture:
        full = picture.convert("RGB")
        colours = full.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3)
        few = full.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG)
    held = io.BytesIO()
    few.save(held, "PNG", optimize=True)
    return held.getvalue()


if __name__ == "__main__":
    main()
