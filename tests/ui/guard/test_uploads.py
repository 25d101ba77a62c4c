"""Uploads: bound to their visitor, in memory, for a minute, bounded in number and size, never served."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from skinclip.ui.guard import uploads
from skinclip.ui.guard.uploads import UploadStore, upload_route
from tests.ui.guard.gated import gated, visitor


@pytest.fixture
def store() -> UploadStore:
    return UploadStore()


@pytest.fixture
def application(store: UploadStore) -> FastAPI:
    return gated([upload_route(store)])[1]


def test_two_visitors_with_the_same_photo_have_it_each(application: FastAPI, store: UploadStore) -> None:
    one, two = "1" * 43, "2" * 43
    names = [visitor(application, who).post("/upload", content=b"a photo").json()["upload"] for who in (one, two)]
    assert names[0] != names[1] and all(len(name) == 43 for name in names)
    assert store.take(two, names[0]) is None and store.take(None, names[0]) is None
    assert store.take(one, names[0]) == store.take(two, names[1]) == b"a photo"
    assert store.held == 0


def test_nothing_is_served_back_or_written(application: FastAPI, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    client = visitor(application)
    reply = client.post("/upload", content=b"a photo", headers={"content-type": "multipart/form-data; boundary=x"})
    name = reply.json()["upload"]
    assert list(reply.json()) == ["upload"] and reply.headers["cache-control"] == "no-store"
    for path in (f"/upload/{name}", f"/upload?upload={name}", f"/gradio_api/file={name}", "/upload"):
        assert client.get(path).status_code in (404, 405)
    assert not [*tmp_path.rglob("*")]


def test_a_stranger_uploads_nothing(application: FastAPI, store: UploadStore) -> None:
    assert TestClient(application).post("/upload", content=b"a photo").status_code == 403
    assert store.held == 0


def test_what_nobody_takes_is_gone_after_its_minute(monkeypatch: pytest.MonkeyPatch, store: UploadStore) -> None:
    monkeypatch.setattr(uploads, "KEPT_SECONDS", 0.05)
    with TestClient(gated([upload_route(store)])[1], cookies={"visitor": "v" * 43}) as client:
        name = client.post("/upload", content=b"a photo").json()["upload"]
        assert store.held == 7
        time.sleep(0.4)
        assert not store._uploads  # by itself: nobody has asked
        assert store.take("v" * 43, name) is None


def test_the_total_is_bounded_and_others_photos_stay(monkeypatch: pytest.MonkeyPatch, store: UploadStore) -> None:
    monkeypatch.setattr(uploads, "MAX_TOTAL", 250)
    application = gated([upload_route(store)])[1]
    mine = visitor(application, "m" * 43)
    name = mine.post("/upload", content=bytes(100)).json()["upload"]
    attacker = visitor(application)
    replies = [attacker.post("/upload", content=bytes(100)) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 503, 503] and replies[1].json() == {"refused": "busy"}
    many = [visitor(application).post("/upload", content=bytes(100)).status_code for _ in range(20)]
    assert set(many) == {503}
    assert store.take("m" * 43, name) == bytes(100)


def test_a_visitor_holds_few_at_once(application: FastAPI, store: UploadStore) -> None:
    client = visitor(application, "v" * 43)
    names = [client.post("/upload", content=b"photo %d" % i).json()["upload"] for i in range(5)]
    assert [store.take("v" * 43, name) for name in names] == [None, None, b"photo 2", b"photo 3", b"photo 4"]


def test_a_file_that_is_too_large_or_of_no_known_size_is_refused(application: FastAPI, store: UploadStore) -> None:
    client = visitor(application)
    reply = client.post("/upload", content=b"", headers={"content-length": "20000001"})
    assert reply.status_code == 413 and reply.json() == {"refused": "size"}
    for length in ("-1", "x", "1e3", "", "9" * 30, "٣"):
        reply = client.post("/upload", content=b"", headers={"content-length": length.encode()})
        assert reply.status_code == 411, length
    assert client.post("/upload", content=b"abc", headers={"content-length": "2"}).status_code == 400
    assert client.post("/upload", content=b"abc", headers={"content-length": "4"}).status_code == 400
    assert store.held == 0
