"""Event streams outlast their last event: what is sent while one would end is answered in it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import httpx
import orjson
import pytest
import uvicorn
from gradio.server_messages import CloseStreamMessage
from starlette.types import Message, Receive, Scope, Send

from eval_study.trust_study.serving import free_port
from skinclip.ui.guard import event_stream
from skinclip.ui.guard.event_stream import EventStreams
from skinclip.ui.guard.visitors import COOKIE, new_visitor
from tests.ui.guard.gated import SESSION, call, gated

SCOPE: Scope = {"type": "http", "path": "/gradio_api/queue/data", "query_string": f"session_hash={SESSION}".encode()}
CLOSE = b'data: {"msg":"close_stream"}\n\n'


class Gradio:
    """Streams the events that wait, then ends, as Gradio does."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while self.waiting:
            await send({"type": "http.response.body", "body": self.waiting.pop(0), "more_body": True})
        await send({"type": "http.response.body", "body": CLOSE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Page:
    """Notes what it is sent; is there until it leaves."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.sent if m["type"] == "http.response.body" and m["body"]]


def opened(gradio: Gradio, page: Page, streams: EventStreams | None = None) -> asyncio.Task[None]:
    streams = streams or EventStreams(gradio, lambda session: bool(gradio.waiting), lambda: False)
    return asyncio.create_task(streams(SCOPE, page.receive, page.send))


def test_a_later_event_is_answered_in_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "LINGER_SECONDS", 0.3)

    async def visit() -> Page:
        gradio, page = Gradio(), Page()
        gradio.waiting = [b"first"]
        stream = opened(gradio, page)
        await asyncio.sleep(0.1)
        assert page.bodies == [b"first"], "not closed yet"
        gradio.waiting.append(b"second")
        await stream
        return page

    page = asyncio.run(visit())
    assert page.bodies == [b"first", b"second", CLOSE]
    assert [m["type"] for m in page.sent].count("http.response.start") == 1
    assert [m.get("more_body") for m in page.sent[1:]] == [True, True, True, False]


@pytest.mark.parametrize("reason", ["gone", "stopped", "newer"])
def test_a_stream_that_nobody_needs_ends_at_once(reason: str) -> None:
    async def visit() -> float:
        gradio, page, stopped = Gradio(), Page(), asyncio.Event()
        streams = EventStreams(gradio, lambda session: False, stopped.is_set)
        stream = opened(gradio, page, streams)
        await asyncio.sleep(0.05)
        assert not stream.done()
        begun = time.monotonic()
        if reason == "gone":
            page.left.set()
        elif reason == "stopped":
            stopped.set()
        else:
            newer = opened(gradio, Page(), streams)
        await asyncio.wait_for(stream, 2)
        if reason == "newer":
            assert not newer.done()
            newer.cancel()
        assert page.bodies == [CLOSE]
        return time.monotonic() - begun

    assert asyncio.run(visit()) < 1


def test_other_requests_and_refusals_pass_unchanged() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b'{"msg":"none"}'})

    async def visit(scope: Scope) -> list[Message]:
        page = Page()
        await EventStreams(refusing, lambda session: True, lambda: False)(scope, page.receive, page.send)
        return page.sent

    for path in ("/gradio_api/queue/data", "/gradio_api/queue/join"):
        sent = asyncio.run(visit({**SCOPE, "path": path}))
        assert [m.get("body", m.get("status")) for m in sent] == [403, b'{"msg":"none"}']


@pytest.fixture
def served() -> Iterator[str]:
    _, application = gated()
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_gradio_answers_two_events_in_one_stream(served: str) -> None:
    with httpx.Client(base_url=served, cookies={COOKIE: new_visitor()}, timeout=20) as client:

        def join(word: str) -> None:
            client.post("/gradio_api/queue/join", json=call(fn_index=1, data=[word])).raise_for_status()

        join("one")
        answers = []
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": SESSION}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                assert message.get("msg") != "close_stream"
                if message.get("msg") == "process_completed":
                    answers.append(message["output"]["data"][0])
                    if len(answers) == 2:
                        break
                    time.sleep(0.3)  # the server has long ended the stream, were it to
                    join("two")
    assert answers == ["<b>one</b>", "<b>two</b>"]


def test_the_closing_message_is_known_as_gradio_writes_it() -> None:
    assert event_stream._CLOSE.search(orjson.dumps(CloseStreamMessage().model_dump()))
    assert not event_stream._CLOSE.search(orjson.dumps({"data": '"msg":"close_stream"'}))
