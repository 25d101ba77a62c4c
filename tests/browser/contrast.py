"""Texts that are too pale to read, as the browser has drawn them."""

from __future__ import annotations

from playwright.sync_api import Page

AA = 4.5  # contrast of body text, WCAG 2, level AA

_PALE = r"""([selector, least]) => {
    const rgb = (c) => c.match(/[\d.]+/g).map(Number);
    const light = (c) => {
        const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const c = rgb(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] === 1) return c;
        }
        return [255, 255, 255];
    };
    const contrast = (e) => {
        const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const text = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const within = [...document.querySelectorAll(selector)].flatMap((e) => [e, ...e.querySelectorAll("*")]);
    return [...new Set(within)].filter((e) => e.offsetParent && text(e) && !e.closest(".sk-unseen, [aria-hidden=true]"))
        .map((e) => [contrast(e), `${e.className} ${e.innerText.slice(0, 40)}`])
        .filter(([ratio]) => ratio < least).map(([ratio, words]) => `${ratio.toFixed(2)} ${words}`);
}"""


def pale(page: Page, selector: str) -> list[str]:
    """Each visible text in what `selector` finds whose contrast with the surface behind it is below `AA`."""
    found: list[str] = page.evaluate(_PALE, [selector, AA])
    return found
