"""A coordinator sets a study up in the browser, from a name to a reader's first answer, as a person would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from eval_study.trust_study.serving import free_port
from tests.helpers.served import ROOT, await_status
from tests.study import tiny

pytestmark = pytest.mark.browser
NUMBERS = {
    "cases-n": "8", "cases-wrong_share": "0.5", "cases-ood_share": "0.125", "cases-practice": "2",
    "cases-repeat_share": "0.125", "cases-preference_pairs": "2", "washout-presentations": "2",
    "completion-min_readers": "2",
}  # fmt: skip
ETHICS = ("approval", "controller", "contact", "consent_version", "photo_licence", "retention")


@dataclass
class SetUp:
    url: str
    studies: Path
    archive: Path


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetUp]:
    folder = tmp_path_factory.mktemp("setup")
    archive = shutil.make_archive(str(folder / "photos"), "zip", tiny.write_photos(folder / "photos"))
    port = free_port()
    command = [sys.executable, "-m", "skinclip", "study", "setup", "--port", str(port), "--studies"]
    process = subprocess.Popen(
        [*command, str(folder / "studies")], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        link = re.search(r"http://\S+#code=\S+", line)
        assert link, line
        await_status(f"http://127.0.0.1:{port}", process)
        yield SetUp(link[0], folder / "studies", Path(archive))
    finally:
        process.terminate()
        process.communicate(timeout=30)


def press(page: Page, button: str) -> None:
    page.click(f"#{button}")


def read(page: Page, place: str, words: str, seconds: float = 60) -> str:
    """The text at a place of the page, once the words are in it."""
    page.wait_for_selector(f"#{place}:has-text({words!r})", timeout=1000 * seconds)
    return page.inner_text(f"#{place}")


def step(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def open_group(page: Page, title: str) -> None:
    page.get_by_role("button", name=re.compile(f"^{title}")).click()


def fill_protocol(page: Page) -> None:
    page.fill("#field-title input, #field-title textarea", "A study for tests")
    open_group(page, "Cases")
    open_group(page, "Pauses and completion")
    for field, value in NUMBERS.items():
        page.fill(f"#field-{field} input", value)


def test_a_coordinator_sets_a_study_up_in_the_browser(setup: SetUp, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(setup.url)
    page.wait_for_selector("#setup-key")
    assert "code=" not in page.url, "the code does not stay in the address"

    page.fill("#setup-key input, #setup-key textarea", "A study!")
    press(page, "setup-begin")
    read(page, "setup-begun", "lower-case letters")
    page.fill("#setup-key input, #setup-key textarea", "mine")
    press(page, "setup-begin")
    read(page, "setup-begun", "begins with the default protocol")

    fill_protocol(page)
    page.fill("#field-cases-n input", "2.5")
    press(page, "setup-save")
    assert "Cases: must be a whole number from 2 to 2000, not 2.5" in read(page, "setup-saved", "not complete yet")
    page.fill("#field-cases-n input", "8")
    press(page, "setup-save")
    assert "Approval" in read(page, "setup-saved", "The protocol is complete")

    step(page, "2 Photos")
    page.set_input_files("#setup-zip", str(setup.archive))
    assert "From the uploaded archive" in read(page, "setup-photos", "13 lesions of known diagnosis")

    step(page, "3 Plan and power")
    press(page, "setup-count")
    read(page, "setup-outlook", "Photos needed and there")

    step(page, "4 Build")
    press(page, "setup-build")
    page.wait_for_selector("#setup-built progress, #setup-built:has-text('is built')")
    page.reload()  # the work goes on, and shows again
    page.wait_for_selector("#setup-study")
    page.click("#setup-study input")
    page.get_by_role("option", name="mine").click()
    step(page, "4 Build")
    built = read(page, "setup-built", "The study is built", 300)
    assert "photos to draw from" in built and "back it up" in built

    step(page, "1 Protocol")
    open_group(page, "Ethics")
    for field in ETHICS:
        page.fill(f"#field-ethics-{field} input, #field-ethics-{field} textarea", f"for tests only: {field}")
    page.fill("#field-ethics-consent_text textarea", "for tests only: consent_text")
    press(page, "setup-save")
    read(page, "setup-saved", "has taken the protocol over")

    step(page, "5 Readers")
    press(page, "setup-serve")
    page.wait_for_selector("#readers-page", timeout=120_000)
    press(page, "setup-coordinator")
    code = page.inner_text("#coordinator-code-once")
    assert wrong == []
    conduct(browser, page.get_attribute("#readers-page", "href") or "", code)
    press(page, "setup-end")
    read(page, "setup-conduct", "not served from here")
    page.context.close()


def conduct(browser: Browser, url: str, code: str) -> None:
    """The coordinator enrols a reader on the readers' page, and the reader signs in."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(url)
    page.wait_for_selector("#study-code")
    assert page.locator("input[type=file]").count() == 0
    assert page.request.post(f"{url}photos", data=b"PK", headers={"X-Study": "mine"}).status == 404
    page.get_by_role("tab", name="Coordinator").click()
    page.fill("#coordinator-code input", code)
    press(page, "coordinator-enter")
    page.wait_for_selector("#study-refresh")
    page.get_by_role("button", name="Enrol and invite readers").click()
    page.get_by_label("Site", exact=True).first.fill("Bern")
    page.fill("#study-address input, #study-address textarea", "https://study.example/")
    press(page, "study-enrol")
    reader = page.inner_text("#study-codes code")
    assert page.get_attribute("#study-codes a[download='invitations.zip']", "href")
    page.get_by_role("tab", name="Reader study").click()
    page.fill("#study-code", reader)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-step]")
    assert "for tests only: consent_text" in page.inner_text("[data-step]")
    page.context.close()


def test_without_the_code_there_is_nothing(setup: SetUp, browser: Browser) -> None:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    address = setup.url.partition("#")[0]
    page.goto(address)
    page.fill("#setup-code input", "a-guess")
    press(page, "setup-enter")
    read(page, "setup-refused", "not the code")
    assert not page.is_visible("#setup-key")
    headers = {"X-Study": "mine", "X-Setup-Code": "a-guess", "Content-Type": "application/zip"}
    assert page.request.post(f"{address}photos", data=b"PK", headers=headers).status == 403
    page.context.close()
