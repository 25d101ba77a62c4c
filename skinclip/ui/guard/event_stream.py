"""Event streams that outlast their last event for a while, so that no answer is lost.

Gradio's server ends a page's stream of events with the last one of them, and the page opens another with the next. A
page that sends an event while the end is on its way believes the stream open, and waits for an answer for ever: a photo
without a preview, as often as one visit in ten on a busy machine. Here the end waits until nothing has happened for
`LINGER_SECONDS`, and an event in between goes on in the same stream.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS = 60.0
LOOK_SECONDS = 0.05  # between looks for another event
STREAM = re.compile(r".*/queue/data")
_CLOSE = re.compile(rb'"msg"\s*:\s*"close_stream"')  # quotes within a value would be escaped


class EventStreams:
    """An ASGI application around a Gradio application.

    Args:
        app: Gradio's.
        pending: whether events of a session wait or run.
        stopped: whether the server is stopping.
    """

    def __init__(self, app: ASGIApp, pending: Callable[[str], bool], stopped: Callable[[], bool]) -> None:
        self._app, self._pending, self._stopped = app, pending, stopped
        self._newest: dict[str, object] = {}  # the stream of a session that was opened last; it alone may go on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on; a stream as often as its page has events."""
        if scope["type"] != "http" or not STREAM.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        parts = self._newest[session] = _JoinedAnswer(send)
        try:
            await self._app(scope, receive, parts.send)
            while parts.close is not None and await self._another(session, parts, receive):
                await self._app(scope, receive, parts.send)
            if parts.close is not None:  # else it was refused, or the page has gone
                await parts.end(parts.close)
        finally:
            if self._newest.get(session) is parts:
                del self._newest[session]

    async def _another(self, session: str, stream: object, receive: Receive) -> bool:
        """Waits for another event of a session: True once there is one, False where none comes for this stream."""
        gone = asyncio.create_task(_gone(receive))
        until = time.monotonic() + LINGER_SECONDS
        try:
            while time.monotonic() < until and not gone.done() and not self._stopped():
                if self._newest.get(session) is not stream:
                    return False
                if self._pending(session):
                    return True
                await asyncio.sleep(LOOK_SECONDS)
            return False
        finally:
            gone.cancel()


class _JoinedAnswer:
    """Sends the parts of several answers as one, and keeps the closing one back in `close`."""

    def __init__(self, send: Send) -> None:
        self._send, self._started = send, False
        self.close: Message | None = None

    async def send(self, message: Message) -> None:
        """Passes on a part of an answer."""
        if message["type"] == "http.response.start":
            self.close = None
            if not self._started:
                self._started = True
                await self._send(message)
        elif _CLOSE.search(message.get("body", b"")):
            self.close = {**message, "more_body": True}
        elif self.close is None:
            await self._send(message)

    async def end(self, close: Message) -> None:
        """Passes on what was kept back, and ends."""
        await self._send(close)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Returns once the page has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
