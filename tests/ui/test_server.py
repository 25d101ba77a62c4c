"""What the server answers before its page is open, when it is, and when it never will be."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from skinclip import RESEARCH_USE_ONLY
from skinclip.ui import server
from skinclip.ui.server import HEALTH, AppFactory, LoadingServer, ReportStep, StartupError, application, listen


def a_page() -> FastAPI:
    page = FastAPI()
    page.add_api_route("/", lambda: "the page")
    return page


@contextmanager
def visited(opener: AppFactory, about: dict[str, str] | None = None) -> Iterator[TestClient]:
    with TestClient(application(LoadingServer(opener, "A title", about)), base_url="http://127.0.0.1") as client:
        yield client


def settled(client: TestClient) -> dict[str, Any]:
    """The health answer when it no longer says that the page is loading."""
    for _ in range(500):
        answer = client.get(HEALTH).json()
        if answer["status"] != "loading":
            return answer
        time.sleep(0.01)
    raise AssertionError(answer)


def test_it_answers_while_the_page_is_being_opened_and_then_lets_in() -> None:
    go, told = threading.Event(), threading.Event()

    def opener(tell: ReportStep) -> FastAPI:
        tell("Loading <the model>")
        told.set()
        go.wait(20)
        return a_page()

    with visited(opener, {"preset": "mini"}) as client:
        assert told.wait(10)
        health = client.get(HEALTH)
        assert health.status_code == 503 and health.headers["cache-control"] == "no-store"
        assert health.json() == {
            "status": "loading", "ready": False, "preset": "mini", "doing": "Loading <the model>"
        }  # fmt: skip
        waiting = client.get("/")
        assert waiting.status_code == 200 and "Loading &lt;the model&gt;" in waiting.text
        assert RESEARCH_USE_ONLY in waiting.text and "A title" in waiting.text and "://" not in waiting.text
        assert client.head("/").status_code == 200
        for other in (client.get("/config"), client.post("/", json={})):
            assert other.status_code == 503 and int(other.headers["retry-after"])
        go.set()
        assert settled(client) == {"status": "ready", "ready": True, "preset": "mini"}
        assert client.get(HEALTH).status_code == 200 and client.head(HEALTH).status_code == 200
        assert client.get("/").json() == "the page"


def test_the_pages_own_start_and_end_are_run() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        seen.append("start")
        yield
        seen.append("end")

    with visited(lambda tell: FastAPI(lifespan=lifespan)) as client:
        assert settled(client)["ready"] and seen == ["start"]
    assert seen == ["start", "end"]


def test_why_it_cannot_be_opened_is_told_on_the_page_and_in_the_health(capsys: pytest.CaptureFixture[str]) -> None:
    def opener(tell: ReportStep) -> FastAPI:
        raise StartupError("there are no weights for <qwen-3b>; fetch them")

    with visited(opener, {"preset": "qwen-3b"}) as client:
        assert settled(client) == {
            "status": "failed", "ready": False, "preset": "qwen-3b",
            "reason": "there are no weights for <qwen-3b>; fetch them",
        }  # fmt: skip
        assert client.get(HEALTH).status_code == 503
        page = client.get("/")
        assert page.status_code == 200 and "no weights for &lt;qwen-3b&gt;; fetch them" in page.text
    error = capsys.readouterr().err
    assert "A title could not start: there are no weights" in error and "Traceback" not in error


def test_an_unexpected_fault_is_named_but_its_words_stay_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    def opener(tell: ReportStep) -> FastAPI:
        raise KeyError("a secret of the server")

    with visited(opener) as client:
        reason = settled(client)["reason"]
        assert "KeyError" in reason and "secret" not in reason + client.get("/").text
    assert "a secret of the server" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [None, StartupError("the weights are damaged"), KeyError("a secret")])
def test_work_behind_the_page_gives_way_to_the_reason_where_it_fails(
    fault: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    background: Future[str] = Future()
    background.set_running_or_notify_cancel()

    def opener(tell: ReportStep) -> FastAPI:
        page = a_page()
        page.state.background = background
        return page

    with visited(opener) as client:
        assert settled(client)["ready"] and client.get("/").json() == "the page"  # at once
        if fault is None:
            background.set_result("loaded")
            assert client.get(HEALTH).status_code == 200 and client.get("/").json() == "the page"
            return
        background.set_exception(fault)
        while client.get(HEALTH).status_code == 200:
            time.sleep(0.01)
        words = client.get("/").text
        assert ("the weights are damaged" if isinstance(fault, StartupError) else "KeyError") in words
        assert "secret" not in words and settled(client)["status"] == "failed"
    assert "could not start" in capsys.readouterr().err


def test_a_server_that_is_stopped_waits_for_no_opening() -> None:
    go = threading.Event()

    def opener(tell: ReportStep) -> FastAPI:
        go.wait(20)
        return a_page()

    start = time.monotonic()
    with visited(opener) as client:
        assert client.get(HEALTH).json()["status"] == "loading"
    assert time.monotonic() - start < 10
    go.set()


def test_a_port_in_use_is_told_with_the_remedy() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="choose another with --port"):
        listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [("", 0, "0.0.0.0 for every address"), (" ", 0, "0.0.0.0"), ("127.0.0.1", 99999, "no port 99999"),
     ("127.0.0.1", -1, "no port -1"), ("a\0b", 0, "is no address"), ("x86_64-conda-linux-gnu", 0, "cannot listen")],
)  # fmt: skip
def test_an_impossible_address_is_refused_in_words(host: str, port: int, words: str) -> None:
    with pytest.raises((ValueError, OSError), match=words):
        listen(host, port)


def test_the_terminal_shows_each_step_and_how_long_it_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REMIND_SECONDS", 0.05)

    def factory(report: ReportStep) -> FastAPI:
        report("Loading the model")
        time.sleep(0.4)
        return a_page()

    with visited(factory) as client:
        assert settled(client)["ready"]
    lines = capsys.readouterr().out.splitlines()
    assert "A title: Loading the model" in lines and "A title is ready" in lines
    assert any(line.startswith("A title: Loading the model ... (0 s so far") for line in lines)


def test_answers_do_not_wait_for_the_acknowledgement_of_what_was_sent_before() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()[:2]):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
