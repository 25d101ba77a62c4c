"""Mounts a Gradio page as an application, with every feature off that the page does not need."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import gradio as gr
from fastapi import FastAPI
from gradio.routes import App
from starlette.routing import BaseRoute

from skinclip.imaging.photo import MAX_FILE_MB
from skinclip.ui.theme import theme

MAX_QUEUED = 16  # events that may wait
# Seconds between Gradio's looks for an event. Its own 0.001 keeps a processor busy by 7 % while nobody does anything.
POLL_SECONDS = 0.02


def mount_page(page: gr.Blocks, css: str, head: str, visitors: int = 64, routes: Sequence[BaseRoute] = ()) -> FastAPI:
    """Mounts the page as an application, with `routes` beside it. State of more than `visitors` sessions is dropped.

    No history of runs: Gradio would keep photos and results in the browser's own storage. No file is served beside
    the page's own code: pictures are part of the page.
    """
    page.queue(max_size=MAX_QUEUED, default_concurrency_limit=4)
    page._queue.sleep_when_free = page._queue.progress_update_sleep_when_free = POLL_SECONDS
    page.state_session_capacity = visitors
    application = gr.mount_gradio_app(
        FastAPI(lifespan=_ends_streams, routes=[*routes], docs_url=None, redoc_url=None, openapi_url=None),
        page,
        "/",
        theme=theme(),
        css=css,
        head=head,
        show_error=False,
        max_file_size=f"{MAX_FILE_MB}mb",
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        i18n=plain_words(),
        footer_links=[],
    )
    page.has_launched = True  # Gradio checks which files a request may name only on a page that was launched
    return application


def plain_words() -> gr.I18n:
    """Words for a key that Gradio 6.31 reads to screen readers and translates into no language."""
    return gr.I18n(en={"common.complete": "Done"})  # other languages fall back to this one


@contextlib.asynccontextmanager
async def _ends_streams(application: FastAPI) -> AsyncIterator[None]:
    """Ends the connection that each open browser tab holds, when the page is closed."""
    yield
    for route in application.routes:
        served = getattr(route, "app", None)
        if isinstance(served, App):
            served.stop_event.set()
