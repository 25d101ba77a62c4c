"""Hosts, origins, proxies and headers: what every request meets first."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from skinclip.ui.guard.access import Access
from skinclip.ui.guard.perimeter import HEADERS, Perimeter

OPEN = Access(frozenset({"skin.example.org"}), local=False)


def client(access: Access = Access(), base: str = "http://127.0.0.1:7860") -> TestClient:  # noqa: B008
    application = FastAPI(docs_url=None)
    application.add_api_route("/", lambda: "the page", methods=["GET", "POST"])

    @application.get("/fault")
    def fault() -> str:
        raise ValueError("patient-name")

    application.add_middleware(Perimeter, access=access)
    return TestClient(application, base_url=base, raise_server_exceptions=False)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:7860", "[::1]:7860", "192.168.0.7", "LOCALHOST:1", "localhost."]
)
def test_this_computer_and_plain_addresses_are_answered(host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "localhost@evil.example", "",
     "evil.example#@localhost",
     "skin.example.org", "localhost:x", "[::1", "localhost/evil", "local host", "127.0.0.1\\evil", "2130706433x"],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(host: str) -> None:
    reply = client().get("/", headers={"host": host})
    assert reply.status_code == 421 and "does not answer to this name" in reply.text


def test_names_that_were_given_are_answered() -> None:
    for host in ("skin.example.org", "SKIN.example.org:443", "skin.example.org."):
        assert client(OPEN).get("/", headers={"host": host}).status_code == 200
    assert client(OPEN).get("/", headers={"host": "other.example.org"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:3000"},
     {"origin": "http://localhost:7860"}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
     {"sec-fetch-site": "same-site"},
     {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}],
)  # fmt: skip
def test_what_other_origins_send_is_refused(headers: dict[str, str]) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        reply = client().request(method, "/", headers=headers)
        assert reply.status_code == 403
        assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_the_page_itself_and_links_to_it_are_answered() -> None:
    same = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    assert client().post("/", headers=same).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client().get("/", headers=link).status_code == 200
    assert client().post("/", headers=link).status_code == 403  # a form of another site


def test_a_space_may_be_framed_by_its_host_alone() -> None:
    framed = Access(local=False, frames=("https://huggingface.co",))
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    reply = client(framed).get("/", headers=link)
    assert reply.status_code == 200 and "x-frame-options" not in reply.headers
    assert "frame-ancestors https://huggingface.co" in reply.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"])
def test_a_proxy_before_a_page_for_this_computer_is_refused(name: str) -> None:
    reply = client().get("/", headers={name: "1.2.3.4"})
    assert reply.status_code == 403 and "--name" in reply.text
    assert client(OPEN).get("/", headers={name: "1.2.3.4"}).status_code == 200


def test_every_answer_has_the_headers() -> None:
    for path in ("/", "/nothing", "/fault"):
        reply = client().get(path)
        for name, value in HEADERS.items():
            assert reply.headers[name] == value
        assert reply.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "strict-transport-security" not in reply.headers
    assert client().get("/", headers={"host": "evil.example"}).headers["x-content-type-options"] == "nosniff"


def test_https_is_believed_of_a_trusted_proxy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"x-forwarded-proto": "https", "host": "skin.example.org"}
    assert "strict-transport-security" not in client(OPEN).get("/", headers=told).headers
    monkeypatch.setenv("SKINCLIP_TRUSTED_PROXIES", "10.0.0.0/8")
    visitor = client(OPEN)
    visitor._transport.client = ("10.0.0.1", 1)  # type: ignore[attr-defined]
    assert "strict-transport-security" in visitor.get("/", headers=told).headers


def test_a_fault_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    reply = client().get("/fault")
    assert reply.status_code == 500 and "patient-name" not in reply.text + caplog.text
    assert "ValueError" in caplog.text
