"""The page as an application: what stands beside it, and what it costs while nobody does anything."""

from __future__ import annotations

import asyncio

import gradio as gr
from fastapi import FastAPI
from starlette.testclient import TestClient

from skinclip.ui.serving import POLL_SECONDS, mount_page
from skinclip.ui.tabs import study_tab
from tests.ui.fake_study import CODE, FakeStudy


def test_calls_are_answered_beside_the_page_which_seldom_looks_for_events() -> None:
    async def opened() -> tuple[gr.Blocks, FastAPI]:  # within a running loop, or Gradio leaves one open
        with gr.Blocks(analytics_enabled=False) as page:
            gr.HTML("a page")
        return page, mount_page(page, "", "", routes=[study_tab.session_route(FakeStudy())])  # type: ignore[arg-type]

    page, application = asyncio.run(opened())
    reply = TestClient(application).post("/session/sign_in", json={"code": CODE})
    assert reply.json()["token"] == "token"
    assert page._queue.sleep_when_free == page._queue.progress_update_sleep_when_free == POLL_SECONDS
