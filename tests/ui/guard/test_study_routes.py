"""The study's page over HTTP: no upload, no list of routes, no file but its own code, and every answer with headers."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from skinclip.ui.guard.access import Access
from skinclip.ui.guard.perimeter import Perimeter
from skinclip.ui.guard.visitors import COOKIE
from skinclip.ui.serving import mount_page
from skinclip.ui.tabs import study_tab
from tests.ui.fake_study import CODE, FakeStudy

CLOSED = (
    "/docs",
    "/openapi.json",
    "/redoc",
    "/config",
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/file=/etc/hostname",
    "/gradio_api/deep_link?session_hash=abcdefgh",
    "/monitoring",
)


@pytest.fixture(scope="module")
def visitor() -> TestClient:
    async def opened() -> FastAPI:
        study = FakeStudy()
        with gr.Blocks(analytics_enabled=False) as page:
            study_tab.build(study)  # type: ignore[arg-type]
        return mount_page(page, "", "", routes=[study_tab.session_route(study)])  # type: ignore[arg-type]

    application = asyncio.run(opened())
    application.add_middleware(Perimeter, access=Access())
    return TestClient(application, base_url="http://127.0.0.1", cookies={COOKIE: "v" * 43})


def test_a_study_has_no_upload_no_list_and_no_file(visitor: TestClient) -> None:
    for path in ("/upload", "/gradio_api/upload", "/gradio_api/component_server"):
        assert visitor.post(path, files={"files": ("a.jpg", b"a")}).status_code == 404
    for path in CLOSED:
        reply = visitor.get(path)
        assert reply.status_code == 404 and "skinclip" not in reply.text.lower(), path


def test_calls_of_readers_pass_and_nothing_else_below_them(visitor: TestClient) -> None:
    assert visitor.post("/session/sign_in", json={"code": CODE}).json()["token"] == "token"
    for path in ("/session/", "/session/sign_in/x", "/session/../config", "/session/x%2f..%2f..%2fconfig"):
        assert visitor.post(path, json={}).status_code == 404, path
    assert visitor.get("/session/sign_in").status_code in (404, 405)


def test_calls_of_another_site_are_refused(visitor: TestClient) -> None:
    reply = visitor.post("/session/sign_in", json={"code": CODE}, headers={"origin": "http://evil.example"})
    assert reply.status_code == 403


def test_answers_have_the_headers_and_the_page_its_policy(visitor: TestClient) -> None:
    for reply in (visitor.get("/"), visitor.post("/session/resume", json={"token": "x"}), visitor.get("/nothing")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "unsafe-eval" not in reply.headers["content-security-policy"]
        assert "script-src 'self' 'unsafe-inline'" not in reply.headers["content-security-policy"]
