"""The page under its Content-Security-Policy: everything works, nothing is blocked, no text becomes code."""

from __future__ import annotations

import pytest

from tests.browser.visits import add_photo, assess, chromium
from tests.helpers.served import ROOT, await_status, serving

pytestmark = pytest.mark.browser
PHOTO = ROOT / "assets/examples/synthetic_melanoma.jpg"
CODE = (
    "eval('window.x = 1')",
    "new Function('window.x = 1')()",
    "setTimeout('window.x = 1')",
    "document.body.append(Object.assign(document.createElement('script'), {text: 'window.y = 1'}))",
)


def test_the_page_works_under_its_policy_and_asks_nobody_else() -> None:
    with serving() as served, chromium() as browser:
        await_status(served.url, served.process)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        wrong: list[str] = []
        page.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((served.url, "data:", "blob:")) else wrong.append(r.url))
        reply = page.goto(served.url)
        assert reply is not None
        policy = reply.headers["content-security-policy"]
        assert "'unsafe-eval'" not in policy and "script-src 'self' 'sha256-" in policy
        page.wait_for_selector("#assess")
        add_photo(page, PHOTO)
        assess(page)
        page.get_by_role("tab", name="Compare explanations").click()
        page.wait_for_selector(".sk-compare")
        assert wrong == []
        for code in CODE:
            # later, as the page's own: what the debugger evaluates itself is exempt from the policy
            page.evaluate(f"() => requestAnimationFrame(() => {{ try {{ {code} }} catch (fault) {{}} }})")
        page.wait_for_timeout(500)
        assert page.evaluate("[window.x, window.y]") == [None, None]
        page.evaluate("document.querySelector('#preview').innerHTML = '<img src=x onerror=\"window.z = 1\">'")
        page.wait_for_timeout(500)
        assert page.evaluate("window.z === undefined")
