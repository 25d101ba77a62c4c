"""A reader study in a real browser: a session, what the wire carries, and what becomes of answers when it breaks."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, FloatRect, Page, Request, Route

from eval_study.trust_study.serving import free_port
from skinclip import RESEARCH_USE_ONLY
from skinclip.study.protocol.protocol import ARMS
from skinclip.study.session.session_service import EnrolledReader, Study
from skinclip.study.store.records import ANSWERING
from skinclip.study.store.store import MEASURED
from tests.browser.contrast import pale
from tests.browser.tiny_study import SOURCE, WEIGHTS, TinyStudy, build, marker
from tests.browser.waiting import until
from tests.browser.wire import Wire
from tests.helpers.served import await_status, health

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.browser


@dataclass
class Served:
    """A tiny study that is being served; `url` leads through `wire`."""

    tiny: TinyStudy
    coordinator: str
    wire: Wire
    pool: list[EnrolledReader]
    process: subprocess.Popen[bytes]
    start: Callable[[], subprocess.Popen[bytes]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.wire.port}"

    def reader(self) -> EnrolledReader:
        """One who has not signed in yet."""
        return self.pool.pop()

    def answered(self, reader: EnrolledReader) -> list[str]:
        """The steps that are stored of a reader, in order, read from the database beside the running server."""
        with Study.open(self.tiny.folder) as study:
            return [event.step for event in study.store.events(study.name, reader.reader, ANSWERING)]

    def seconds(self, reader: EnrolledReader) -> list[float]:
        """What the browser measured of each stored step."""
        with Study.open(self.tiny.folder) as study:
            events = study.store.events(study.name, reader.reader, ANSWERING)
            return [(event.payload or {})[MEASURED]["seconds"] for event in events]


@contextmanager
def serving(folder: Path, pause_seconds: float = 0, **changes: object) -> Iterator[Served]:
    tiny = build(folder, pause_seconds, **changes)
    with Study.open(tiny.folder) as study:
        enrolled, coordinator = study.enrol(16, "Site A"), study.coordinator_code()
    port = free_port()
    command = [sys.executable, "app.py", "--study", str(tiny.folder), "--port", str(port)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads")})

    one = Served(tiny, coordinator, Wire(port), enrolled, start(), start)
    try:
        await_status(f"http://127.0.0.1:{port}", one.process)
        yield one
    finally:
        one.wire.close()
        one.process.terminate()
        one.process.wait(20)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For the tests that leave the study open and no one shut out; each takes a reader of its own."""
    with serving(tmp_path_factory.mktemp("study")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    with opened(browser, served) as page:
        yield page


@contextmanager
def opened(browser: Browser, served: Served) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#study-code")
    yield page
    context.close()


# --- what a reader does -------------------------------------------------------------------------------------------


def sign_in(page: Page, code: str) -> None:
    page.fill("#study-code", code.lower())
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-step]")


def shown(page: Page) -> tuple[str, str]:
    """(step, kind) on the page."""
    step = page.locator("[data-step]")
    return step.get_attribute("data-step") or "", step.get_attribute("data-kind") or ""


def fill(page: Page) -> None:
    """Answers every question of the step: the first option, 60 per cent."""
    for question in page.locator("fieldset[data-key]").all():
        kind = question.get_attribute("data-kind")
        if kind == "percent":
            question.locator("[data-number]").fill("60")
        elif kind == "text":
            question.locator("textarea").fill("a remark")
        else:
            question.locator("label").first.click()


def confirm(page: Page) -> None:
    """Answers the step and waits for the next."""
    step, _ = shown(page)
    fill(page)
    page.click("button[type=submit]")
    await_next(page, step)


def await_next(page: Page, step: str) -> None:
    until(page, "s => document.querySelector('[data-step]')?.dataset.step !== s", arg=step, timeout=30_000)


def go_to(page: Page, kind: str, each: Callable[[], None] = lambda: None) -> None:
    """Confirms steps until one of `kind` is shown."""
    for _ in range(60):
        each()
        if shown(page)[1] == kind:
            return
        confirm(page)
    raise AssertionError(f"no step of kind {kind}")


# --- tests --------------------------------------------------------------------------------------------------------


def test_a_whole_session_then_closing_and_the_report(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path) as served, opened(browser, served) as page:
        assert RESEARCH_USE_ONLY in page.inner_text("#banner")
        reader = served.reader()
        sign_in(page, reader.code)
        kinds, spy = whole_session(page, served)
        assert kinds[:4] == ["consent", "instructions", "background", "before"]
        assert kinds[-3:] == ["preference", "debrief", "done"]
        assert kinds.count("block") == len(ARMS) and kinds.count("after") == 10 and kinds.count("feedback") == 1
        assert spy.aids == 10
        spy.search_everything()
        page.click("[data-act=receipt]")
        receipt = page.inner_text("dialog output")
        page.keyboard.press("Escape")
        assert len(served.answered(reader)) == 30
        coordinate(page, served, receipt)


def whole_session(page: Page, served: Served) -> tuple[list[str], Spy]:
    """The kinds of all steps in order, and what was seen on the wire. The page is loaded anew in the middle."""
    kinds: list[str] = []
    spy = Spy(served)

    def each() -> None:
        kinds.append(shown(page)[1])
        spy.look(page)
        if len(kinds) == 12:
            step = shown(page)
            page.reload()
            page.wait_for_selector("[data-step]")
            assert shown(page) == step

    go_to(page, "done", each)
    return kinds, spy


def coordinate(page: Page, served: Served, receipt: str) -> None:
    """Checks the log against the receipt, closes the study, and reads export and report."""
    page.get_by_role("tab", name="Coordinator").click()
    page.fill("#coordinator-code input", served.coordinator)
    page.keyboard.press("Enter")
    page.wait_for_selector(".sk-status >> text=30 of 30")
    page.get_by_role("button", name="Check that no answer").click()
    page.get_by_label("Readers' receipts").fill(receipt)
    page.click("#study-verify")
    page.wait_for_selector("#study-verified >> text=fits the receipt")
    page.get_by_role("button", name="Export and analyse").click()
    page.click("#study-export")
    page.wait_for_selector("#study-exported >> text=once the study is closed")
    page.get_by_role("button", name="Close the study").click()
    page.get_by_label("Reason").fill("one reader is enough for a test")
    page.fill("#study-typed textarea, #study-typed input", "tiny-v1")
    page.click("#study-close")
    page.wait_for_selector("#study-closed >> text=The study is closed")
    page.click("#study-export")
    with page.expect_download() as download:
        page.click("#study-exported a")
    assert download.value.suggested_filename == "tiny-v1.zip"
    page.click("#study-analyse")
    frame = page.frame_locator("iframe.sk-report")
    frame.get_by_text(RESEARCH_USE_ONLY).first.wait_for(timeout=180_000)


class Spy:
    """Searches the wire for what must not be there (yet)."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.aids = 0
        self.locked: set[int] = set()  # photos whose unaided answer is locked
        encoded = {n: base64.b64encode(jpeg).decode() for n, jpeg in served.tiny.photos.items()}
        self.photos = {n: text[len(text) // 2 :][:80] for n, text in encoded.items()}

    def look(self, page: Page) -> None:
        """Before an answer is locked, nothing of the aid to this photo has gone over the wire."""
        _, kind = shown(page)
        if kind not in ("before", "after"):
            return
        source = page.locator(".sk-frame img").first.get_attribute("src") or ""
        number = next(n for n, piece in self.photos.items() if piece in source)
        if kind == "after":
            self.aids += 1
            self.locked.add(number)
            return
        for other in set(self.photos) - self.locked:
            assert marker(other).encode() not in self.served.wire.seen
        for piece in self.pictures(number) if number not in self.locked else []:
            assert piece.encode() not in self.served.wire.seen

    def pictures(self, number: int) -> list[str]:
        """A stretch of each aid picture of the photo, as it would go over the wire."""
        folder = next(
            path.parent
            for path in self.served.tiny.folder.glob("cases/*/photo.jpg")
            if path.read_bytes() == self.served.tiny.photos[number]
        )
        texts = [base64.b64encode((folder / name).read_bytes()).decode() for name in ("grad_cam.jpg", "regions.jpg")]
        return [text[len(text) // 2 :][:80] for text in texts]

    def search_everything(self) -> None:
        """Never, in a whole session: arms, truth, model, source, file names."""
        assert any(marker(n).encode() in self.served.wire.seen for n in self.photos), "the wire is packed"
        text = re.sub(rb"base64,[A-Za-z0-9+/=]+", b"", self.served.wire.seen)  # by chance anything stands in pictures
        assert not (found := re.findall(rb"\b(?:C00\d|P01)\b", text)), f"ids of cases: {found}"
        seen = text.lower()
        words = ["grad_cam", "grad-cam", "gradcam", "skinclip", "stratum", "ai_leading", "truth", SOURCE, "isic_"]
        words += [WEIGHTS, WEIGHTS[:12], "photo.jpg", "regions.jpg"]
        for word in words:
            at = seen.find(word.lower().encode())
            assert at < 0, f"{word}: {bytes(seen[max(0, at - 80) : at + 80])!r}"


def test_a_double_click_stores_one_answer(page: Page, served: Served) -> None:
    reader = served.reader()
    sign_in(page, reader.code)
    step, _ = shown(page)
    fill(page)
    page.dblclick("button[type=submit]")
    await_next(page, step)
    page.wait_for_timeout(500)
    assert served.answered(reader) == [step] and shown(page)[1] == "instructions"


def test_without_network_an_answer_waits_and_is_stored_once(page: Page, served: Served) -> None:
    reader = served.reader()
    sign_in(page, reader.code)
    step, _ = shown(page)
    fill(page)
    page.context.set_offline(True)
    page.click("button[type=submit]")
    page.wait_for_selector("[data-saving] >> text=Not saved yet")
    assert page.locator("fieldset input").first.is_checked() and shown(page)[0] == step
    page.context.set_offline(False)
    await_next(page, step)
    assert served.answered(reader) == [step]


def test_a_lost_acknowledgement_is_asked_for_again(page: Page, served: Served) -> None:
    reader = served.reader()
    sign_in(page, reader.code)
    step, _ = shown(page)
    fill(page)
    served.wire.lose_next = b"request_id"
    page.click("button[type=submit]")
    await_next(page, step)
    assert served.answered(reader) == [step] and not served.wire.lose_next


def test_a_killed_server_loses_nothing_and_is_asked_again(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path) as served, opened(browser, served) as page:
        reader = served.reader()
        sign_in(page, reader.code)
        confirm(page)
        step, _ = shown(page)
        served.process.kill()
        served.process.wait(20)
        page.click("button[type=submit]")
        page.wait_for_selector("[data-saving] >> text=Not saved yet")
        served.process = served.start()
        page.wait_for_selector("[data-kind=background]", timeout=120_000)
        assert served.answered(reader) == ["s001", step]
        confirm(page)


def test_time_in_which_the_tab_is_hidden_is_not_counted(page: Page, served: Served) -> None:
    reader = served.reader()
    sign_in(page, reader.code)
    turn = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(turn, True)
    page.wait_for_timeout(4000)
    page.evaluate(turn, False)
    page.wait_for_timeout(500)
    confirm(page)
    assert 0.5 <= served.seconds(reader)[0] < 4


def test_the_keyboard_alone_from_sign_in_to_the_aid(page: Page, served: Served) -> None:
    page.focus("#study-code")
    page.keyboard.type(served.reader().code)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-step]")
    assert page.evaluate("document.activeElement.matches('[data-heading]')")
    assert "Step 1 of 30" in page.inner_text("[data-announce]")
    for kind, keys in KEYS.items():
        step, now = shown(page)
        assert now == kind
        for key in keys.split():
            page.keyboard.press(key)
        await_next(page, step)
    assert shown(page)[1] == "after" and page.inner_text(".sk-own").count("Basal cell carcinoma") == 1
    page.keyboard.press("z")
    page.wait_for_selector("dialog .sk-loupe")
    page.keyboard.press("+")
    assert page.evaluate("document.querySelector('.sk-loupe').style.getPropertyValue('--zoom')") == "1.5"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


# The keys that answer a step. Digits choose in the question that has the focus, else in the first that is open.
KEYS = {
    "consent": "1 Enter",
    "instructions": "Tab Enter",
    "background": "1 Tab 2 Enter",
    "before": "3 Tab Tab 7 0 Tab 2 Enter",
}


def test_what_was_not_confirmed_outlives_a_refresh_and_an_ended_session(page: Page, served: Served) -> None:
    reader = served.reader()
    sign_in(page, reader.code)
    go_to(page, "before")
    step, _ = shown(page)
    assert page.locator("[data-number]").input_value() == ""  # a slider that was not touched is no answer
    page.click("button[type=submit]")
    page.wait_for_selector("[data-saving] >> text=3 questions need an answer")
    fill(page)
    page.reload()
    page.wait_for_selector("[data-step]")
    assert page.locator("[data-number]").input_value() == "60" and page.locator("input:checked").count() == 2
    page.evaluate("sessionStorage.setItem('study-token', 'ended')")
    page.click("button[type=submit]")
    page.wait_for_selector("#study-signin-problem >> text=sign-in has ended")
    sign_in(page, reader.code)
    assert shown(page)[0] == step and page.locator("[data-number]").input_value() == "60"
    page.click("[data-act=pause]")
    sign_in(page, served.reader().code)  # another reader at this computer gets none of it
    assert shown(page)[1] == "consent" and page.locator("input:checked").count() == 0


def test_wrong_codes_are_told_and_then_have_to_wait(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path) as served, opened(browser, served) as page:
        for _ in range(30):
            page.fill("#study-code", "AAAA-BBBB-CCCC")
            page.click("form button")
            page.wait_for_selector("form:not([aria-busy]) [data-problem]:not(:empty)")
            words = page.inner_text("#study-signin-problem")
            if "seconds" in words:
                break
            assert "not known" in words
        assert "seconds" in words and "right code is taken at any time" in words


def test_a_pause_counts_down_and_the_server_keeps_it(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, pause_seconds=12) as served, opened(browser, served) as page:
        reader = served.reader()
        sign_in(page, reader.code)
        go_to(page, "block")
        fill(page)
        with page.expect_request(lambda r: "request_id" in (r.post_data or "")) as sent:
            page.click("button[type=submit]")
        page.wait_for_selector("[data-kind=pause]")
        step, answered = shown(page)[0], served.answered(reader)
        go_on = page.locator("[data-act=resume]")
        assert go_on.is_disabled()
        seconds = [countdown(page)]
        page.wait_for_timeout(2000)
        seconds.append(countdown(page))
        assert 12 >= seconds[0] > seconds[1] > 0
        page.evaluate("document.querySelector('[data-act=resume]').disabled = false")
        go_on.click()  # by force: the server sends the pause again, and nothing of the next photo
        until(page, "document.querySelector('[data-act=resume]').disabled")
        assert shown(page) == (step, "pause") and page.locator("[data-stage] img").count() == 0
        assert "not open yet" in submit_again(page, sent.value, step) and served.answered(reader) == answered
        page.wait_for_selector("[data-wait] >> text=The next part is open", timeout=15_000)
        go_on.click()
        page.wait_for_selector("[data-kind=before]")
        assert shown(page)[0] == step


def countdown(page: Page) -> int:
    found = re.match(r"In (\d+) s", page.inner_text("[data-wait]"))
    assert found
    return int(found[1])


def submit_again(page: Page, request: Request, step: str) -> str:
    """What the server says when the answers of `request` are sent for another step."""
    message = json.loads(request.post_data or "") | {"step": step, "request_id": "by force", "answers": {}}
    return page.request.post(request.url, data=message).text()


def test_the_coordinator_renews_a_code_and_needs_none_after_a_refresh(browser: Browser, served: Served) -> None:
    reader = served.reader()
    with opened(browser, served) as desk, opened(browser, served) as page:
        desk.get_by_role("tab", name="Coordinator").click()
        desk.fill("#coordinator-code input", served.coordinator)
        desk.keyboard.press("Enter")
        desk.wait_for_selector(".sk-status")
        sign_in(page, reader.code)
        desk.reload()
        desk.wait_for_selector(".sk-status")
        assert not desk.locator("#coordinator-code").is_visible()
        desk.get_by_role("button", name="Renew a lost code").click()
        desk.locator("#study-lost input").click()
        desk.get_by_role("option", name=reader.reader).click()
        desk.click("#study-renew")
        new = desk.locator("#study-renewed code").inner_text()
        assert new != reader.code and desk.locator("#study-renewed code").count() == 1
        fill(page)
        page.click("button[type=submit]")
        page.wait_for_selector("#study-signin-problem >> text=sign-in has ended")
        page.fill("#study-code", reader.code)
        page.keyboard.press("Enter")
        page.wait_for_selector("#study-signin-problem >> text=not known")
        sign_in(page, new)
        assert shown(page)[1] == "consent"
        desk.click("#coordinator-leave")
        desk.wait_for_selector("#coordinator-refused >> text=signed out")
        assert new not in desk.content()
        desk.reload()
        desk.get_by_role("tab", name="Coordinator").click()
        assert desk.locator("#coordinator-code").is_visible() and not desk.locator(".sk-status").is_visible()
        assert desk.evaluate("sessionStorage.length") == 0


def test_withdrawal_erases_and_ends_the_code(page: Page, served: Served) -> None:
    reader = served.reader()
    sign_in(page, reader.code)
    confirm(page)
    page.click("[data-act=withdraw]")
    page.fill("dialog input", "no")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog >> text=Type WITHDRAW to confirm, or")
    page.fill("dialog input", "WITHDRAW")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-kind=withdrawn]")
    page.click("[data-act=pause]")
    page.fill("#study-code", reader.code)
    page.keyboard.press("Enter")
    page.wait_for_selector("#study-signin-problem:not(:empty)")


def test_a_withdrawal_whose_acknowledgement_was_lost_is_explained(page: Page, served: Served) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    sign_in(page, served.reader().code)
    confirm(page)
    page.route(lambda url: "/session/" in url, lose)
    page.click("[data-act=withdraw]")
    page.fill("dialog input", "WITHDRAW")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog >> text=it is not known whether it is done")
    page.unroute_all()
    page.keyboard.press("Enter")
    page.wait_for_selector("#study-signin-problem >> text=If your code is no longer known, it is done")


def test_a_laptop_shows_the_whole_case_and_the_next_button_without_scrolling(page: Page, served: Served) -> None:
    page.set_viewport_size({"width": 1366, "height": 768})
    sign_in(page, served.reader().code)
    looked: dict[str, set[tuple[float, float]]] = {}

    def each() -> None:
        kind = shown(page)[1]
        if kind in ("before", "after", "preference"):
            pictures = [box(page, ".sk-frame img", i) for i in range(page.locator(".sk-frame img").count())]
            looked.setdefault(kind, set()).update((p["width"], p["height"]) for p in pictures)
            bottom = box(page, ".sk-case")
            assert bottom["y"] + bottom["height"] <= 768, kind
            if kind != "after":  # its form is longer than a window, and the case stays beside it
                button = box(page, "button[type=submit]")
                assert button["y"] + button["height"] <= 768, kind

    go_to(page, "debrief", each)
    # with an aid: beside its explanation, or alone and larger in the arm that has none
    assert {kind: len(sizes) for kind, sizes in looked.items()} == {"before": 1, "after": 2, "preference": 1}
    smallest = {kind: min(min(size) for size in sizes) for kind, sizes in looked.items()}
    assert smallest["before"] > 500 and smallest["after"] > 300 and smallest["preference"] > 250


def box(page: Page, selector: str, index: int = 0) -> FloatRect:
    found = page.locator(selector).nth(index).bounding_box()
    assert found, selector
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_tablet_in_both_themes(page: Page, served: Served, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 768, "height": 1024})
    page.reload()
    page.wait_for_selector("#study-code")
    sign_in(page, served.reader().code)
    looked = set()
    for _ in range(12):
        kind = shown(page)[1]
        if kind not in looked:
            looked.add(kind)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), kind
            assert page.evaluate(SMALL) == [], kind
            assert pale(page, ".sk-step, [role=tab]") == [], kind
        confirm(page)
    assert {"consent", "before", "after", "feedback", "block"} <= looked


# Targets of touch that are less than 44 px in either direction.
SMALL = """() => [...document.querySelectorAll(".sk-step button, .sk-pick, .sk-percent input, .sk-step textarea")]
    .filter((e) => e.offsetParent).map((e) => [e.getBoundingClientRect(), e.outerHTML.slice(0, 80)])
    .filter(([box]) => box.width < 43.5 || box.height < 43.5).map(([box, html]) => [box.width, html])"""


def test_no_file_of_the_study_is_served(served: Served) -> None:
    for path in ("truth.json", "key", "store.sqlite", "cases/C001/photo.jpg"):
        for route in ("gradio_api/file=", "file=", ""):
            with pytest.raises(HTTPError) as refused:
                urlopen(f"{served.url}/{route}{served.tiny.folder / path}", timeout=10)
            refused.value.close()
            assert refused.value.code in (403, 404)


def test_the_page_lists_no_handler(served: Served) -> None:
    for route in ("gradio_api/info", "config"):
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{served.url}/{route}", timeout=10)
        refused.value.close()
        assert refused.value.code == 404


def test_the_health_answer_says_nothing_of_a_model(served: Served) -> None:
    assert health(served.url) == (200, {"status": "ready", "ready": True})
