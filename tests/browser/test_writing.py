"""The page while a rationale is written, in a real browser: what a visitor of a big preset sees and can do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, TimeoutError

from eval_study.trust_study.serving import free_port
from tests.browser.visits import chromium
from tests.browser.waiting import until
from tests.helpers.served import ROOT, running

SECONDS = 0.4  # between the runs of a rationale
pytestmark = pytest.mark.browser

# notes in every frame what stands where
WATCH = """() => {
    window.frames_seen = [];
    const note = () => {
        const part = document.querySelector("#rationale"), text = part?.querySelector(".sk-rationale");
        const box = part?.getBoundingClientRect() ?? { top: 0, height: 0 };
        const form = document.querySelector("#form").getBoundingClientRect();
        const figures = document.querySelector("#figures img");
        const frame = JSON.stringify({
            text: text ? text.innerText : null, writing: !!part?.querySelector("[aria-busy]"),
            top: Math.round(box.top), height: Math.round(box.height), left: Math.round(form.left),
            figures: !!figures && figures.src.length,
        });
        if (window.frames_seen.at(-1) !== frame) window.frames_seen.push(frame);
        window.watching = requestAnimationFrame(note);
    };
    note();
}"""
DONE = "!document.querySelector('#answer [aria-busy]') && document.querySelector('#assess:not([disabled])')"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("slow"), free_port()
    environment = {"GRADIO_TEMP_DIR": str(folder / "uploads"), "PYTHONPATH": str(ROOT)}
    command = [str(Path(__file__).with_name("slow_page.py")), str(folder), str(port), str(SECONDS)]
    with running(command, port, environment) as served:
        wait_for(served.url, served.process)
        yield served.url


@pytest.fixture
def page(server: str) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server)
        page.wait_for_selector("#assess")
        yield page


def wait_for(url: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        assert process.poll() is None, "the page did not start"
        try:
            urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the page did not start")


def choose(page: Page, name: str) -> None:
    """An example; pressed again where the page was drawn but not yet listening."""
    for _ in range(20):
        page.click(f"#synthetic_{name}")
        try:
            page.wait_for_selector(f"#preview >> text=Synthetic example: {name}", timeout=2_000)
            return
        except TimeoutError:
            continue
    raise AssertionError("the example was not taken")


def watched(page: Page) -> list[dict[str, Any]]:
    """Assesses; every different frame until the answer is whole."""
    page.evaluate(WATCH)
    page.click("#assess")
    page.wait_for_selector("#result [aria-busy]", timeout=60_000)
    until(page, DONE, timeout=60_000)
    page.wait_for_selector("#figures img")
    page.wait_for_timeout(300)
    return page.evaluate("() => { cancelAnimationFrame(window.watching); return window.frames_seen.map(JSON.parse); }")


def test_the_rationale_grows_before_the_eyes_and_nothing_else_moves(page: Page) -> None:
    choose(page, "melanoma")
    frames = watched(page)
    final = page.inner_text(".sk-rationale")
    parts = list(dict.fromkeys(f["text"].strip() for f in frames if f["writing"] and (f["text"] or "").strip()))
    assert len(parts) >= 2 and len(parts[0]) < len(final) / 2, parts
    assert all(final.startswith(part) for part in parts)
    assert all(a["height"] <= b["height"] for a, b in pairwise(f for f in frames if f["text"] is not None))
    # the photo is there with the first figures, before the text, and stays
    assert len({f["figures"] for f in frames if f["writing"]}) == 1 and all(
        f["figures"] for f in frames if f["writing"]
    )
    assert len({f["left"] for f in frames}) == 1


def test_an_assessment_is_stopped_and_begun_again(page: Page) -> None:
    choose(page, "nevus")
    page.click("#assess")
    page.wait_for_selector("#result [aria-busy]", timeout=60_000)
    page.click("#stop")
    page.wait_for_selector("#result >> text=Cancelled", timeout=10_000)
    until(page, DONE)
    assert not page.locator("#stop").is_visible() and not page.locator("#figures").is_visible()
    page.click("#assess")
    page.wait_for_selector("#figures img", timeout=60_000)
    assert page.inner_text(".sk-rationale").endswith(".")


def test_a_model_is_chosen_and_answers_for_itself(page: Page) -> None:
    choose(page, "melanoma")
    said = []
    for name in ("second", "first"):
        page.locator("#adapter input").click()
        page.get_by_role("option", name=f"SkinCLIP-VL qwen-3b, {name}").click()
        watched(page)
        assert f"Answered by SkinCLIP-VL qwen-3b, {name}, weights" in page.inner_text("#rationale")
        said.append(page.inner_text("#side .sk-rows"))
        page.wait_for_timeout(200)
    assert said[0] != said[1]
    assert "weights" not in page.inner_text(".sk-footer")


def test_a_second_opinion_is_asked_for(page: Page) -> None:
    choose(page, "melanoma")
    page.click("#assess")
    until(page, DONE)
    page.wait_for_selector("#figures img", timeout=60_000)
    page.click("#opinion button")
    page.click("#ask-opinion")
    page.wait_for_selector("#second-opinion .sk-opinion", timeout=60_000)
    assert "It gave no usable box." in page.inner_text("#second-opinion")  # random weights write no JSON
    page.click("#assess")  # another assessment has not been asked about
    page.wait_for_selector("#rationale:not(:has([aria-busy])) .sk-rationale", timeout=60_000)
    page.wait_for_selector("#second-opinion .sk-opinion", state="detached", timeout=60_000)
