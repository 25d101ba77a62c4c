"""A page behind its gate, and visitors with and without a cookie, for the tests of what a stranger gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from skinclip.ui.guard.visitors import COOKIE, new_visitor
from skinclip.ui.serving import mount_page

SESSION = "abcdefgh12"


def gated(routes: Sequence[BaseRoute] = (), visitors: int = 8) -> tuple[gr.Blocks, FastAPI]:
    """A page with one field, a kept value and a handler that echoes, mounted as the real pages are."""

    async def opened() -> tuple[gr.Blocks, FastAPI]:  # within a running loop, or Gradio leaves one open
        with gr.Blocks(analytics_enabled=False) as page:
            field = gr.Textbox(label="a field")
            shown = gr.HTML("nothing yet", elem_id="shown")
            kept = gr.State(None)

            def handle(text: str | None) -> tuple[str, bytes | None]:
                if text == "fail":
                    raise ValueError(f"cannot use {text} of patient-name")
                return f"<b>{text}</b>", (text or "").encode() or None

            field.change(handle, [field], [shown, kept], api_visibility="private", queue=False)
            field.submit(handle, [field], [shown, kept], api_visibility="private")
        return page, mount_page(page, "", "<script>window.own = 1;</script>", visitors, routes)

    return asyncio.run(opened())


def visitor(application: FastAPI, name: str | None = None) -> TestClient:
    """A browser that has loaded the page; `name` None makes a new one."""
    return TestClient(application, cookies={COOKIE: name or new_visitor()})


def call(fn_index: int = 0, data: Sequence[Any] = ("a word",), session: str = SESSION, **more: Any) -> dict[str, Any]:
    """The JSON of a call."""
    return {"session_hash": session, "fn_index": fn_index, "data": [*data], **more}
