"""The server's door: it answers at once, and lets visitors in when the page has been opened behind it.

    GET /healthz   200 when the page is ready, 503 before that and after a failure; JSON
    GET /          until then a page that says what is being done, or why it failed, and reloads by itself

Opening a page takes its time: torch and Gradio are imported, the model is loaded (a big one downloaded) and tried once,
so that no visitor waits for that. This module imports none of them: the port answers within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from html import escape
from string import Template

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.paths import ASSETS

HEALTH = "/healthz"
WAITING = ASSETS / "waiting.html"
GRACE = 2  # seconds that open connections get when the server stops
FRESH = {"Cache-Control": "no-store"}
Tell = Callable[[str], None]
Opener = Callable[[Tell], FastAPI]


class NotOpened(RuntimeError):
    """The page cannot be opened; the message is for whoever runs it, and says what to do."""


class Door:
    """Opens a page in the background, and until then answers for it.

    Args:
        opener: makes the page's application; is given a function by which it tells what it is doing.
        title: the page's name.
        about: what the health answer says beside the state. Nothing of a model on a study's page.
    """

    def __init__(self, opener: Opener, title: str, about: Mapping[str, str] | None = None) -> None:
        self.opener = opener
        self.title = title
        self.about = dict(about or {})
        self.doing = "Starting"
        self.reason = ""
        self.page: FastAPI | None = None
        self._closing = asyncio.Event()

    @property
    def status(self) -> str:
        """loading, ready or failed."""
        if self.reason:
            return "failed"
        return "loading" if self.page is None else "ready"

    def health(self) -> JSONResponse:
        """The state as JSON; `doing` while loading and `reason` after a failure."""
        ready = self.status == "ready"
        more = {"loading": {"doing": self.doing}, "failed": {"reason": self.reason}, "ready": {}}[self.status]
        body = {"status": self.status, "ready": ready, **self.about, **more}
        return JSONResponse(body, 200 if ready else 503, FRESH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Every request but those for the health."""
        answer: ASGIApp = self.page or self._waiting(scope)
        await answer(scope, receive, send)

    def _waiting(self, scope: Scope) -> Response:
        if scope["path"] != "/" or scope.get("method") not in ("GET", "HEAD"):
            return PlainTextResponse("The page is not open yet.", 503, {**FRESH, "Retry-After": "2"})
        words = {
            "title": self.title,
            "banner": RESEARCH_USE_ONLY,
            "status": self.status,
            "words": self.reason or self.doing,
        }
        html = Template(WAITING.read_text()).substitute({name: escape(word) for name, word in words.items()})
        return HTMLResponse(html, 200, FRESH)  # not 503: hosts show no page that is not well, and this one says why

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Opens the page while the server runs, and closes it with the server."""
        task = asyncio.create_task(self._keep_open())
        yield
        self.close()
        if self.page is None:
            task.cancel()  # still being opened: nobody waits for that any more
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def close(self) -> None:
        """Closes the page: its streams end, so that the server need not wait for them."""
        self._closing.set()

    async def _keep_open(self) -> None:
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[FastAPI] = loop.create_future()
        # a thread of its own that does not keep the program from ending
        threading.Thread(target=self._open, args=(loop, opened), daemon=True).start()
        try:
            page = await opened
        except NotOpened as problem:
            self._fail(str(problem))
            return
        except Exception as fault:
            traceback.print_exception(fault)
            self._fail(f"An unexpected fault ({type(fault).__name__}). The server's log has the details.")
            return
        async with page.router.lifespan_context(page):
            self.page = page
            print(f"{self.title} is ready", flush=True)
            await self._closing.wait()

    def _open(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[FastAPI]) -> None:
        try:
            page = self.opener(self._tell)
        except BaseException as problem:
            _from_thread(loop, opened, problem)
        else:
            _from_thread(loop, opened, page)

    def _tell(self, doing: str) -> None:
        self.doing = doing

    def _fail(self, reason: str) -> None:
        self.reason = reason
        print(f"{self.title} could not be opened: {reason}", file=sys.stderr, flush=True)


def _from_thread(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[FastAPI], outcome: FastAPI | BaseException
) -> None:
    """Settles `future` of the loop in another thread, unless the server stopped meanwhile."""

    def settle() -> None:
        if future.done():
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(settle)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError saying what to do where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as problem:
        raise OSError(f"cannot listen on {host}, port {port}: {problem.strerror}; choose another with --port") from None
    # Connections inherit it. Without, the last part of every answer waits 40 ms for the client's acknowledgement;
    # asyncio sets it only where the socket names its protocol, which those of `create_server` do not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def application(door: Door) -> FastAPI:
    """What the server runs."""
    routes = FastAPI(lifespan=door.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    routes.add_api_route(HEALTH, door.health, methods=["GET", "HEAD"])
    routes.mount("/", door)
    return routes


def serve(door: Door, listener: socket.socket) -> None:
    """Serves until the program is told to stop."""
    host, port = listener.getsockname()[:2]
    print(f"{door.title} is starting on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    config = uvicorn.Config(
        application(door), log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False
    )
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config, door).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Closes the page before it waits for connections to end: an open browser tab holds one."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self.door = door

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.door.close()
        await super().shutdown(sockets)
