"""Mounts a Gradio page as an application behind `guard.page_gate`, with every feature off that it does not need."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence

import gradio as gr
from fastapi import FastAPI
from gradio import queueing, route_utils
from gradio import routes as gradio_routes
from gradio.routes import App
from starlette.routing import BaseRoute, Route

from skinclip.core import paths
from skinclip.imaging.bounded import end_decoding
from skinclip.service.metrics import METRICS
from skinclip.ui.guard.event_stream import EventStreams
from skinclip.ui.guard.known_code import known_code
from skinclip.ui.guard.page_gate import PageGate
from skinclip.ui.guard.quiet_log import silence_messages
from skinclip.ui.guard.sessions import VisitorSessions
from skinclip.ui.theme import theme

MAX_QUEUED = 16  # events that may wait
# Seconds between Gradio's looks for an event. Its own 0.001 keeps a processor busy by 7 % while nobody does anything.
POLL_SECONDS = 0.02


def mount_page(page: gr.Blocks, css: str, head: str, visitors: int = 64, routes: Sequence[BaseRoute] = ()) -> FastAPI:
    """Mounts the page as an application, with `routes` beside it, for at most so many `visitors` at once.

    No history of runs: Gradio would keep photos and results in the browser's own storage. No file is served beside
    the page's own code: pictures are part of the page.
    """
    page.queue(max_size=MAX_QUEUED, default_concurrency_limit=4)
    METRICS.watch_queue(lambda: len(page._queue))
    page._queue.sleep_when_free = page._queue.progress_update_sleep_when_free = POLL_SECONDS
    application = gr.mount_gradio_app(
        FastAPI(lifespan=_ends_streams, routes=[*routes], docs_url=None, redoc_url=None, openapi_url=None),
        page,
        "/",
        theme=theme(),
        css=css,
        head=head,
        show_error=False,
        max_file_size=1,  # bytes: photos come by a route of their own
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        i18n=plain_words(),
        footer_links=[],
    )
    silence_messages(queueing, gradio_routes, route_utils)
    application.state.computing = lambda: any(job is not None for job in page._queue.active_jobs)
    page.has_launched = True  # Gradio checks which files a request may name only on a page that was launched
    gradio = _gradio_app(application)
    sessions = VisitorSessions(visitors)
    sessions.set_blocks(page)
    gradio.state_holder = sessions
    inputs = {index: len(function.inputs) for index, function in page.fns.items()}
    waiting = page._queue.pending_event_ids_session
    application.add_middleware(
        EventStreams, pending=lambda session: bool(waiting.get(session)), stopped=gradio.stop_event.is_set
    )
    application.add_middleware(
        PageGate,
        inputs=inputs,
        admit=sessions.admit,
        script=known_code(page.config),
        extra=_paths(routes),
        frames=frames(),
    )
    return application


def _gradio_app(application: FastAPI) -> App:
    return next(app for route in application.routes if isinstance(app := getattr(route, "app", None), App))


def _paths(routes: Sequence[BaseRoute]) -> re.Pattern[str]:
    """A pattern of the paths of the routes beside the page."""
    return re.compile("|".join(route.path_regex.pattern for route in routes if isinstance(route, Route)) or r"(?!)")


def frames() -> tuple[str, ...]:
    """The origins that may show the page in a frame: on a Hugging Face Space its host, elsewhere none."""
    return (paths.SPACE_FRAME,) if paths.on_space() else ()


def plain_words() -> gr.I18n:
    """Words for a key that Gradio 6.31 reads to screen readers and translates into no language."""
    return gr.I18n(en={"common.complete": "Done"})  # other languages fall back to this one


@contextlib.asynccontextmanager
async def _ends_streams(application: FastAPI) -> AsyncIterator[None]:
    """Ends the connection that each open browser tab holds, and what is decoded, when the page is closed."""
    yield
    end_decoding()
    for route in application.routes:
        served = getattr(route, "app", None)
        if isinstance(served, App):
            served.stop_event.set()
