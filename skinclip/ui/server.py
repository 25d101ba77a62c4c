"""The web server: answers at once, and serves a loading page until the application is ready.

    GET /healthz   200 when the application is ready, 503 before that and after a failure; JSON
    GET /readyz    the same, and 503 while what it depends on (a study's database) does not answer, or it is stopping
    GET /livez     200 as long as the process answers: a proxy asks /readyz, whoever restarts processes asks /livez
    GET /          until then the loading page: the step in progress, or why it failed; it reloads by itself

Loading takes its time: torch and Gradio are imported, a big model is downloaded, loaded and tried once. This module
imports none of them: the port answers within a second. An application may be ready while work goes on behind it
(`state.background`, such as loading an embedded model); where that fails, the loading page says why in its place.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from skinclip import RESEARCH_USE_ONLY
from skinclip.service import logs
from skinclip.service.observing import ObservedApplication
from skinclip.ui.guard.access import Access
from skinclip.ui.guard.content_policy import content_policy, inline_scripts
from skinclip.ui.guard.perimeter import Perimeter
from skinclip.ui.templating import render

HEALTH, READY, LIVE = "/healthz", "/readyz", "/livez"
SHUTDOWN_SECONDS = 2  # that open connections get when the server stops
FINISH_SECONDS = 45  # that assessments which are running then get before
DELIVERY_SECONDS = 1.0  # that the last answer gets on its way to the page
PROBE_SECONDS = 5  # that what the application depends on has for an answer
REMIND_SECONDS = 15  # between lines on the terminal about a step that still runs
NO_STORE = {"Cache-Control": "no-store"}
ReportStep = Callable[[str], None]
AppFactory = Callable[[ReportStep], FastAPI]


class StartupError(RuntimeError):
    """The application cannot start; the message is for whoever runs it, and says what to do."""


class LoadingServer:
    """Serves a loading page until the application is ready, then the application.

    Args:
        factory: makes the application, in a thread; it reports each step that it begins.
        title: the page's name.
        about: further entries of the health answer. Nothing of a model on a study's page.
        probe: tries what the application depends on, and raises an exception where it does not answer.
        shutdown_seconds: that requests in progress get when the server stops.
    """

    def __init__(
        self,
        factory: AppFactory,
        title: str,
        about: Mapping[str, str] | None = None,
        probe: Callable[[], object] | None = None,
        shutdown_seconds: int = SHUTDOWN_SECONDS,
    ) -> None:
        self.factory = factory
        self.title = title
        self.about = dict(about or {})
        self.probe = probe
        self.shutdown_seconds = shutdown_seconds
        self.step = "Starting"
        self.reason = ""
        self.app: FastAPI | None = None
        self._closing = asyncio.Event()
        self._finishing = False

    @property
    def status(self) -> str:
        """loading, ready or failed."""
        if self.reason:
            return "failed"
        return "loading" if self.app is None else "ready"

    def health(self) -> JSONResponse:
        """The state as JSON; `doing` while loading and `reason` after a failure."""
        ready = self.status == "ready"
        more = {"loading": {"doing": self.step}, "failed": {"reason": self.reason}, "ready": {}}[self.status]
        body = {"status": self.status, "ready": ready, **self.about, **more}
        return JSONResponse(body, 200 if ready else 503, NO_STORE)

    async def readiness(self) -> JSONResponse:
        """The health, or 503 with `reason` where the application could not answer a visitor now."""
        if self.status != "ready":
            return self.health()
        if self._finishing or self._closing.is_set():
            return _unready("stopping")
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await asyncio.to_thread(self.probe or (lambda: None))
        except Exception:  # its words may name a server or an account, and this answer is for everybody
            return _unready("a part that it depends on does not answer")
        return self.health()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers every request but those for the health."""
        answer: ASGIApp = self.app if self.app and not self.reason else self._loading_page(scope)
        await answer(scope, receive, send)

    def _loading_page(self, scope: Scope) -> Response:
        if scope["path"] != "/" or scope.get("method") not in ("GET", "HEAD"):
            return PlainTextResponse("The page is still loading.", 503, {**NO_STORE, "Retry-After": "2"})
        words = self.reason or self.step
        html = render("loading.html", title=self.title, banner=RESEARCH_USE_ONLY, status=self.status, words=words)
        headers = {**NO_STORE, "Content-Security-Policy": content_policy(inline_scripts(html))}
        return HTMLResponse(html, 200, headers)  # not 503: hosts show no page that is not well, and this one says why

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Loads the application while the server runs, and ends it with the server."""
        task = asyncio.create_task(self._run_app())
        yield
        self.close()
        if self.app is None:
            task.cancel()  # still loading: nobody waits for that any more
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def finish(self, hurried: Callable[[], bool]) -> None:
        """Waits until what the application is computing has reached its visitors, FINISH_SECONDS at most.

        Args:
            hurried: whether the server was asked to stop once more, and waits no longer.
        """
        self._finishing = True
        computing: Callable[[], bool] | None = getattr(self.app and self.app.state, "computing", None)
        if computing is None or not computing():
            return
        print(f"{self.title} finishes what is running before it stops", flush=True)
        until = time.monotonic() + FINISH_SECONDS
        while computing() and time.monotonic() < until and not hurried():
            await asyncio.sleep(0.05)
        await asyncio.sleep(DELIVERY_SECONDS)

    def close(self) -> None:
        """Ends the application: its streams end, so that the server need not wait for them."""
        self._closing.set()

    async def _run_app(self) -> None:
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[FastAPI] = loop.create_future()
        # a thread of its own that does not keep the program from ending
        threading.Thread(target=self._load, args=(loop, loaded), daemon=True).start()
        try:
            app = await self._with_reminders(loaded)
        except Exception as fault:
            self._fail(fault)
            return
        async with app.router.lifespan_context(app):
            self.app = app
            print(f"{self.title} is ready", flush=True)
            await self._until_closed(getattr(app.state, "background", None))

    async def _until_closed(self, background: Future[Any] | None) -> None:
        """Waits for the end; where work that goes on behind the page fails, the page gives way to the reason."""
        closing = asyncio.ensure_future(self._closing.wait())
        if background is not None:
            going_on = asyncio.wrap_future(background)
            await asyncio.wait([closing, going_on], return_when=asyncio.FIRST_COMPLETED)
            if not going_on.done():
                going_on.cancel()
            elif (fault := going_on.exception()) is not None:
                self._fail(fault)
        await closing

    async def _with_reminders(self, loaded: asyncio.Future[FastAPI]) -> FastAPI:
        """Waits for the application; a step that lasts is printed again with its seconds."""
        start = time.monotonic()
        while not (await asyncio.wait([loaded], timeout=REMIND_SECONDS))[0]:
            print(f"{self.title}: {self.step} ... ({time.monotonic() - start:.0f} s so far)", flush=True)
        return loaded.result()

    def _load(self, loop: asyncio.AbstractEventLoop, loaded: asyncio.Future[FastAPI]) -> None:
        try:
            app = self.factory(self._report_step)
        except BaseException as problem:
            _settle(loop, loaded, problem)
        else:
            _settle(loop, loaded, app)

    def _report_step(self, step: str) -> None:
        self.step = step
        print(f"{self.title}: {step}", flush=True)

    def _fail(self, fault: BaseException) -> None:
        """Keeps the reason: that of a StartupError, or that there was an unexpected fault."""
        reason = str(fault)
        if not isinstance(fault, StartupError):
            traceback.print_exception(fault)
            reason = f"An unexpected fault ({type(fault).__name__}). The server's log has the details."
        self.reason = reason
        print(f"{self.title} could not start: {reason}", file=sys.stderr, flush=True)


def _unready(reason: str) -> JSONResponse:
    return JSONResponse({"status": "unready", "ready": False, "reason": reason}, 503, NO_STORE)


def _settle(loop: asyncio.AbstractEventLoop, future: asyncio.Future[FastAPI], outcome: FastAPI | BaseException) -> None:
    """Settles `future` of a loop in another thread, unless the server stopped meanwhile."""

    def set_outcome() -> None:
        if future.done():
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(set_outcome)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`. Raises ValueError or OSError with the remedy.

    An empty `host` is refused: the system would take it for all addresses.
    """
    if not host.strip():
        raise ValueError("no address is given; choose --host 127.0.0.1, or 0.0.0.0 for every address")
    if not (host.isascii() and host.isprintable()):
        raise ValueError(f"{host!r} is no address; choose --host 127.0.0.1, or 0.0.0.0 for every address")
    if not 0 <= port <= 65535:
        raise ValueError(f"there is no port {port}; choose one from 0 to 65535 with --port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as problem:
        raise OSError(f"cannot listen on {host}, port {port}: {problem.strerror}; choose another with --port") from None
    # Connections inherit it. Without, the last part of every answer waits 40 ms for the client's acknowledgement;
    # asyncio sets it only where the socket names its protocol, which those of `create_server` do not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def application(server: LoadingServer, access: Access | None = None) -> FastAPI:
    """The ASGI application: the health route, and `server` for everything else; all of it behind `access`.

    Without `access` the rules are those of a page for this computer alone.
    """
    routes = FastAPI(lifespan=server.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    routes.add_api_route(HEALTH, server.health, methods=["GET", "HEAD"])
    routes.add_api_route(READY, server.readiness, methods=["GET", "HEAD"])
    routes.add_api_route(LIVE, lambda: JSONResponse({"status": "alive"}, 200, NO_STORE), methods=["GET", "HEAD"])
    routes.mount("/", server)
    routes.add_middleware(Perimeter, access=access or Access())
    return routes


def serve(
    server: LoadingServer, listener: socket.socket, access: Access | None = None, json_logs: bool = False
) -> None:
    """Serves until the process is asked to stop; with `json_logs` each request is a line on stderr."""
    host, port = listener.getsockname()[:2]
    print(f"{server.title} is starting on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    config = uvicorn.Config(
        ObservedApplication(application(server, access), json_logs),
        log_level="warning",
        timeout_graceful_shutdown=server.shutdown_seconds,
        server_header=False,
        proxy_headers=False,  # which proxy may name the visitor, `client_address` knows
        lifespan="on",
    )
    if json_logs:
        logs.configure()  # after uvicorn has set up its own
    try:
        _UvicornServer(config, server).run(sockets=[listener])
    except SystemExit:  # of the handler of SIGTERM, which uvicorn calls once it has ended
        _leave()
        raise
    except KeyboardInterrupt:
        pass
    _leave()


def _leave() -> None:
    """Ends the process where threads still compute: the interpreter's own end would abort them in the middle."""
    if any(thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)


class _UvicornServer(uvicorn.Server):
    """Finishes what runs, then ends the application before it waits for connections: an open browser tab holds one."""

    def __init__(self, config: uvicorn.Config, server: LoadingServer) -> None:
        super().__init__(config)
        self.loading_server = server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.loading_server.finish(lambda: self.force_exit)
        self.loading_server.close()
        await super().shutdown(sockets)
