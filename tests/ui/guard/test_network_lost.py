"""A network that is lost within an upload or a submit: nothing half is kept or logged as a fault, and it goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.testclient import TestClient

from skinclip.ui.guard.uploads import UploadStore, upload_route
from skinclip.ui.tabs import study_tab
from tests.ui.fake_study import CODE, FakeStudy
from tests.ui.guard.gated import gated, visitor

VISITOR = "n" * 43


def broken_off(app: Any, path: str, headers: dict[str, str], pieces: Sequence[bytes]) -> list[dict[str, Any]]:
    """The messages that the application sends for a request whose sender is gone after some pieces of its body."""
    received = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0) if received else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1:7860", **headers}.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860), "state": {},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent


def status(sent: list[dict[str, Any]]) -> int:
    return next(message["status"] for message in sent if message["type"] == "http.response.start")


@pytest.mark.parametrize("pieces", [[], [b"x"], [b"x" * 40_000, b"y" * 40_000]])
def test_half_an_upload_is_not_kept_and_its_room_is_free_again(pieces: list[bytes], caplog) -> None:
    store = UploadStore()
    application: FastAPI = gated([upload_route(store)])[1]
    client = visitor(application, VISITOR)
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    headers = {"content-length": "100000", "cookie": cookie}
    with caplog.at_level(logging.DEBUG):
        assert status(broken_off(application, "/upload", headers, pieces)) == 400
    assert store.held == 0 and not [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert client.post("/upload", content=b"z" * 1000).status_code == 200 and store.held == 1000


@pytest.mark.parametrize("pieces", [[], [b'{"token": "tok'], [b'{"token": "token", "step": "s000"']])
def test_half_a_submit_is_stored_nowhere_and_the_whole_one_once(pieces: list[bytes], caplog) -> None:
    study = FakeStudy()
    application = Starlette(routes=[study_tab.session_route(study)])  # type: ignore[arg-type]
    client = TestClient(application)
    opened = client.post("/session/sign_in", json={"code": CODE}).json()
    with caplog.at_level(logging.DEBUG):
        sent = broken_off(application, "/session/submit", {"content-type": "application/json"}, pieces)
    assert status(sent) == 400 and not [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert client.post("/session/resume", json={"token": opened["token"]}).json()["step"] == opened["step"]
    answer = {"token": opened["token"], "step": opened["step"], "answers": {"consent": True}, "request_id": "one"}
    first, second = (client.post("/session/submit", json=answer).json() for _ in range(2))
    assert first["step"] == second["step"] != opened["step"]


def test_a_submit_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_tab, "REQUEST_SECONDS", 0.2)

    async def main() -> int:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/session/submit", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")], "path_params": {"name": "submit"},
        }  # fmt: skip
        await Starlette(routes=[study_tab.session_route(FakeStudy())])(scope, receive, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    assert asyncio.run(main()) == 400
