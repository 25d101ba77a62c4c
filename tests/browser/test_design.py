"""The visual language as the browser has really drawn it: sizes, weights, radii and colours, counted in every state."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.visits import add_photo, assess
from tests.helpers.served import ROOT

pytestmark = pytest.mark.browser
MELANOMA = ROOT / "assets/examples/synthetic_melanoma.jpg"
SIZES, WEIGHTS, RADII = {12, 14, 16, 20, 32}, {400, 600}, {0, 6, 12}
MOST_COLOURS = 24  # of text and surfaces together, evidence aside

USED = r"""() => {
    const found = { sizes: {}, weights: {}, radii: {}, colours: {} };
    const note = (kind, value, e) => { (found[kind][value] ??= e.outerHTML.slice(0, 90)); };
    for (const e of document.querySelectorAll(".gradio-container *, dialog[open] *")) {
        if (!e.checkVisibility() || e.closest(".sk-unseen, [data-testid=status-tracker]")) continue;
        const s = getComputedStyle(e), box = e.getBoundingClientRect();
        const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (words || e.matches("input, select, textarea")) {
            note("sizes", parseFloat(s.fontSize), e);
            note("weights", s.fontWeight, e);
            if (!e.closest(".sk-chip, .sk-badge")) note("colours", s.color, e);
        }
        const drawn = s.backgroundColor !== "rgba(0, 0, 0, 0)" || parseFloat(s.borderTopWidth) > 0;
        if (drawn && box.width > 2 && !(e instanceof SVGElement)) {
            note("radii", parseFloat(s.borderTopLeftRadius), e);
            note("radii", parseFloat(s.borderBottomRightRadius), e);
            const filled = s.backgroundColor !== "rgba(0, 0, 0, 0)" && !e.closest(".sk-chip");
            if (filled) note("colours", s.backgroundColor, e);
        }
    }
    return found;
}"""

# colours half on their way are nobody's; endless animations (skeletons) are left out
SETTLED = """() => Promise.all(document.getAnimations()
    .filter((a) => Number.isFinite(a.effect.getComputedTiming().endTime))
    .map((a) => a.finished.catch(() => {})))"""


def opened(browser: Browser, quick_server: str, width: int, scheme: str, **options: Any) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        bypass_csp=True,  # axe and waits are scripts of the test, not the page's
        **options,
    )
    page = context.new_page()
    page.goto(quick_server)
    page.wait_for_selector("#assess")
    return page


def misused(page: Page) -> list[str]:
    """Each size, weight or radius that is none of the tokens, and too many colours."""
    used = page.evaluate(USED)
    wrong = [
        f"{kind} {value}: {where}"
        for kind, allowed in (("sizes", SIZES), ("weights", WEIGHTS), ("radii", RADII))
        for value, where in used[kind].items()
        if float(value) not in allowed
    ]
    if len(used["colours"]) > MOST_COLOURS:
        wrong.append(f"{len(used['colours'])} colours: {sorted(used['colours'])}")
    return wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_the_page_uses_its_tokens_alone_and_has_no_axe_violation(
    browser: Browser, quick_server: str, width: int, scheme: str
) -> None:
    page = opened(browser, quick_server, width, scheme)
    problems = {}

    def look(state: str) -> None:
        page.evaluate(SETTLED)
        broken = [
            f"{v['id']}: {v['nodes'][0]['html'][:120]} {v['nodes'][0]['failureSummary'][:300]}"
            for v in Axe().run(page).response["violations"]
        ]
        found = [*misused(page), *broken]
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1"):
            found.append("scrolls sideways")
        if found:
            problems[state] = found

    look("empty")
    add_photo(page, MELANOMA)
    look("ready")
    assess(page)
    page.wait_for_selector("#heat img", state="attached")
    look("result")
    page.click("#result [data-opens=limits-dialog]")
    look("limits")
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Compare explanations").click()
    page.wait_for_selector(".sk-compare")
    look("compare")
    page.context.close()
    assert problems == {}


def tokens(dark: bool) -> dict[str, np.ndarray]:
    """The colours of the tokens by name, sRGB in 0-1."""
    sheet = (ROOT / "assets/tokens.css").read_text()
    light, night = (
        re.search(pattern, sheet, re.DOTALL)
        for pattern in (r":root \{\n  --sk-ink(.*?)\n\}", r"\.dark \{\n  --sk-ink(.*?)\n\}")
    )
    assert light and night
    text = "--sk-ink" + (night if dark else light)[1]
    pairs = re.findall(r"--sk-([a-z-]+): #([0-9a-f]{6})", text)
    return {name: np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255 for name, code in pairs}


# Linear sRGB as people without long, middle or short cones see it (Machado, Oliveira and Fernandes 2009, severity 1).
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(srgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """CIELAB of a colour as it is seen."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(seen @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("dark", [False, True])
def test_roles_are_told_apart_by_colour_blind_readers_and_in_grey(dark: bool) -> None:
    named = tokens(dark)
    roles = [named[name] for name in ("malignant", "uncertain", "benign")]
    for kind, seen in BLINDNESS.items():
        colours = [lab(one, seen) for one in roles]
        for i in range(3):
            for j in range(i):
                assert np.linalg.norm(colours[i] - colours[j]) > 20, (kind, i, j)
    lightness = sorted(lab(one, np.eye(3))[0] for one in roles)
    assert min(np.diff(lightness)) > 6, lightness  # and in grey


def test_text_of_twice_the_size_is_not_cut_off(browser: Browser, quick_server: str) -> None:
    page = opened(browser, quick_server, 1024, "light")
    page.add_style_tag(content="html { font-size: 200% !important; }")
    add_photo(page, MELANOMA)
    assess(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert page.locator("#result .sk-verdict").is_visible()
    page.context.close()


def test_in_forced_colours_what_is_chosen_and_how_high_the_bars_are_can_be_seen(
    browser: Browser, quick_server: str
) -> None:
    page = opened(browser, quick_server, 1440, "dark", forced_colors="active")
    add_photo(page, MELANOMA)
    assess(page)
    chosen, other = (
        page.locator(f'#figures [data-view="{name}"]').evaluate("e => getComputedStyle(e).backgroundColor")
        for name in ("regions", "photo")
    )
    assert chosen != other
    fill, track = (
        page.locator(f"#side {bar}").first.evaluate("e => getComputedStyle(e).fill")
        for bar in (".sk-bar-fill", ".sk-bar-track")
    )
    assert fill != track
    page.context.close()


def test_nothing_moves_by_itself_where_motion_is_unwanted(browser: Browser, quick_server: str) -> None:
    page = opened(browser, quick_server, 1440, "light", reduced_motion="reduce")
    page.click("#assess")
    moving = "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).animationName !== 'none').length"
    assert page.evaluate(moving) == 0
    page.context.close()
