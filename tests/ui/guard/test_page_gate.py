"""What a stranger gets from every route that Gradio opens, and in which form the page's own calls are taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from gradio.routes import App
from starlette.testclient import TestClient

from skinclip.ui.guard import page_gate
from skinclip.ui.guard.visitors import COOKIE
from tests.ui.guard.gated import SESSION, call, gated, visitor

# Every route of Gradio 6.31 and who may have it: "page" its own code, "visitor" who owns the session, "nobody".
# A new release that opens another route fails here until somebody has looked at it.
WHO_MAY = {
    "/": "page",
    "/assets/{path:path}": "page",
    "/static/{path:path}": "page",
    "/theme.css": "page",
    "/favicon.ico": "page",
    "/gradio_api/queue/join": "visitor",
    "/gradio_api/run/{api_name}": "visitor",
    "/gradio_api/cancel": "visitor",
    "/gradio_api/queue/data": "visitor",
    "/gradio_api/heartbeat/{session_hash}": "visitor",
}
CLOSED = """
    /api /api/ /config /config/ /docs /docs/oauth2-redirect /openapi.json /redoc /login /login/ /logout /token /token/
    /user /user/ /login_check /login_check/ /app_id /app_id/ /svelte/{path:path} /robots.txt /pwa_icon /pwa_icon/{size}
    /manifest.json /monitoring /monitoring/summary /monitoring/{key} /gradio_api/deep_link /gradio_api/info
    /gradio_api/info/ /gradio_api/openapi.json /gradio_api/user /gradio_api/user/ /gradio_api/login_check
    /gradio_api/login_check/ /gradio_api/token /gradio_api/token/ /gradio_api/app_id /gradio_api/app_id/
    /gradio_api/dev/reload /gradio_api/runs /gradio_api/runs/ /gradio_api/run-history/connect
    /gradio_api/run-history/buckets /gradio_api/run-history/records
    /gradio_api/run-history/records/{endpoint}/{record_id}/assets/{asset_id}
    /gradio_api/custom_component/{id}/{environment}/{type}/{file_name} /gradio_api/proxy={url_path:path}
    /gradio_api/file={path_or_url:path} /gradio_api/file/{path:path} /gradio_api/stream/{event_id}
    /gradio_api/stream/{event_id}/close /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8
    /gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}
    /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file /gradio_api/reset /gradio_api/reset/
    /gradio_api/run/{api_name}/ /gradio_api/api/{api_name} /gradio_api/api/{api_name}/ /gradio_api/call/{api_name}
    /gradio_api/call/{api_name}/ /gradio_api/call/v2/{api_name} /gradio_api/call/v2/{api_name}/
    /gradio_api/call/{api_name}/{event_id} /gradio_api/call/v2/{api_name}/{event_id} /gradio_api/component_server
    /gradio_api/component_server/ /gradio_api/queue/status /gradio_api/upload_progress /gradio_api/upload
    /gradio_api/startup-events /gradio_api/theme.css /gradio_api/process_recording /gradio_api/vibe-edit
    /gradio_api/vibe-edit/ /gradio_api/undo-vibe-edit /gradio_api/undo-vibe-edit/ /gradio_api/vibe-code
    /gradio_api/vibe-code/ /gradio_api/vibe-starter-queries /gradio_api/vibe-starter-queries/
    /gradio_api/profiling/traces /gradio_api/profiling/summary /gradio_api/profiling/clear
"""
WHO_MAY |= dict.fromkeys(CLOSED.split(), "nobody")
OWNER = "o" * 43
VALUES = {"session_hash": SESSION, "api_name": "predict", "path_or_url": "/etc/passwd", "path": "x.js", "ext": "ts"}


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", lambda m: VALUES.get(m[1], "1"), path)


@pytest.fixture(scope="module")
def application() -> FastAPI:
    return gated()[1]


@pytest.fixture
def stranger(application: FastAPI) -> Iterator[TestClient]:
    with TestClient(application) as client:
        yield client


def routes_of(application: FastAPI) -> set[tuple[str, str]]:
    gradio = next(app for route in application.routes if isinstance(app := getattr(route, "app", None), App))
    pending, found = [*gradio.routes], set()
    while pending:
        route = pending.pop()
        pending += getattr(getattr(route, "original_router", route), "routes", None) or []  # an included router
        if getattr(route, "endpoint", None) is not None:
            found |= {(method, route.path) for method in getattr(route, "methods", None) or {"GET"}}
    return found


def test_every_route_of_gradio_is_known_and_those_not_needed_are_closed(
    application: FastAPI, stranger: TestClient
) -> None:
    routes = routes_of(application)
    assert len(routes) > 60
    assert {path for _, path in routes} <= set(WHO_MAY), {path for _, path in routes} - set(WHO_MAY)
    for path, who in WHO_MAY.items():
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            if who == "visitor":
                continue
            reply = stranger.request(method, filled(path), json=call() if method == "POST" else None)
            if who == "nobody" or method not in ("GET", "HEAD"):
                assert reply.status_code == 404, (method, path, reply.status_code)
            if who == "nobody" and method != "HEAD":
                assert reply.json()["detail"] == reply.json()["error"] == "There is no such page."


@pytest.mark.parametrize("path", [p for p, who in WHO_MAY.items() if who == "visitor"])
def test_what_belongs_to_a_session_is_for_its_visitor_alone(application: FastAPI, path: str) -> None:
    owner = visitor(application, OWNER)
    assert owner.post("/gradio_api/run/predict", json=call()).status_code == 200
    cancel = {"session_hash": SESSION, "fn_index": 1, "event_id": "1"}
    for stranger in (TestClient(application), visitor(application), visitor(application, "x" * 43)):
        if path.endswith(("data", "{session_hash}")):
            reply = stranger.get(filled(path), params={"session_hash": SESSION})
        else:
            reply = stranger.post(filled(path), json=cancel if path.endswith("cancel") else call())
        assert reply.status_code == 403 and "no such session" in reply.text


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1:1/x", "/gradio_api/proxy=http://a.hf.space/x",
     "/gradio_api/deep_link?session_hash=" + SESSION, "/static/../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/config",
     "/static/..%2f..%2froutes.py", "//etc/passwd", "/gradio_api//upload", "/config?x=/", "/assets/%00", "/%00",
     "/gradio_api/queue/join/", "/GRADIO_API/UPLOAD", "/gradio_api/upload/", "/static/http://example.org/x"],
)  # fmt: skip
def test_no_spelling_opens_what_is_closed(stranger: TestClient, path: str) -> None:
    for method in ("GET", "POST"):
        reply = stranger.request(method, path)
        assert reply.status_code == 404 and "root:" not in reply.text and "/site-packages" not in reply.text, path


def test_an_upload_by_gradios_route_is_not_taken(stranger: TestClient, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    files = {"files": ("photo.jpg", b"a photo" * 1000)}
    for path in ("/gradio_api/upload", "/upload", "/gradio_api/component_server", "/gradio_api/process_recording"):
        assert stranger.post(path, files=files).status_code == 404
    assert not [*tmp_path.rglob("*")]


@pytest.mark.parametrize(
    "value",
    [
        {"path": "/tmp", "meta": {"_type": "gradio.FileData"}},
        {"path": "http://127.0.0.1:1/photo.jpg", "meta": {"_type": "gradio.FileData"}},
        {"url": "http://127.0.0.1:1/photo.jpg", "meta": {"_type": "gradio.FileData"}},
        {"a": [{"b": [{"path": "/etc", "meta": {"_type": "gradio.FileData"}}]}]},
        {"meta": {"_type": "gradio.FileData"}},
        [{"path": ""}],
    ],
)
def test_a_call_that_names_a_file_is_refused(application: FastAPI, value: object) -> None:
    client = visitor(application, OWNER)
    for body in (call(data=[value], session="filesession"), call(session="filesession", event_data=value)):
        reply = client.post("/gradio_api/queue/join", json=body)
        assert reply.status_code == 400 and reply.json()["detail"] == "A call names no files."


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b"[" * 100_000, 400), (b"\xff\xfe", 400),
        (b'{"session_hash": "../../x", "fn_index": 0, "data": [1]}', 400),
        (b'{"session_hash": "abcdefgh\\n", "fn_index": 0, "data": [1]}', 400),
        (b'{"session_hash": "badcalls", "fn_index": 0, "data": []}', 400),
        (b'{"session_hash": "badcalls", "fn_index": 0, "data": [1, 2]}', 400),
        (b'{"session_hash": "badcalls", "fn_index": 99, "data": [1]}', 400),
        (b'{"session_hash": "badcalls", "fn_index": -1, "data": [1]}', 400),
        (b'{"session_hash": "badcalls", "data": [1]}', 400),
        (b'"' + b"x" * 300_000 + b'"', 413),
    ],
)  # fmt: skip
def test_a_call_in_another_form_is_refused_in_words_and_logged_nowhere(
    application: FastAPI, body: bytes, status: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict"):
        reply = visitor(application, OWNER).post(path, content=body, headers={"content-type": "application/json"})
        assert reply.status_code == status and reply.json()["detail"].endswith(".")
    streams = capfd.readouterr()
    assert streams.out + streams.err == "" and caplog.text == ""


def test_only_json_is_taken_which_other_sites_cannot_send(application: FastAPI) -> None:
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""):
        reply = visitor(application).post("/gradio_api/queue/join", content=b"{}", headers={"content-type": kind})
        assert reply.status_code == 415


def test_the_page_gives_a_visitor_a_cookie_that_no_script_reads(stranger: TestClient) -> None:
    cookie = stranger.get("/").headers["set-cookie"]
    assert re.fullmatch(rf"{COOKIE}=[\w-]{{43}}; Path=/; HttpOnly; SameSite=Strict", cookie)
    assert "set-cookie" not in stranger.get("/").headers  # it has one
    stranger.cookies.clear()
    stranger.cookies.set(COOKIE, "chosen by an attacker")
    assert "set-cookie" in stranger.get("/").headers


def test_the_page_is_the_same_whatever_its_address_asks(stranger: TestClient) -> None:
    plain = stranger.get("/")
    asked = stranger.get("/?deep_link=x&__theme=dark&view=api&x=</script><script>alert(1)</script>")
    assert asked.text == plain.text and asked.headers["content-security-policy"]


def test_a_session_that_nobody_uses_becomes_free(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = page_gate.SessionOwners()
    assert owners.owns("first", "s") and not owners.owns("second", "s") and owners.owns("first", "s")
    monkeypatch.setattr("skinclip.ui.guard.visitors.OWNED_SECONDS", 0)
    assert owners.owns("second", "s") and owners.owns("third", "other")
