"""Accounts: argon2, expiry, roles, and limits that do not lock out the rightful."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.testclient import TestClient

from skinclip.ui.guard import accounts as module
from skinclip.ui.guard.access import Access, decide
from skinclip.ui.guard.accounts import AccountError, Accounts, SignInRefused
from skinclip.ui.guard.perimeter import Perimeter
from skinclip.ui.guard.sign_in import SESSION_COOKIE
from tests.ui.guard.gated import call, gated

PASSWORD = "a long enough password"


@pytest.fixture(autouse=True)
def fast_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    made = Accounts(tmp_path / "home" / "accounts.json")
    for name, role in (("clara", "clinician"), ("carl", "coordinator"), ("rita", "reader")):
        made.add(name, role, PASSWORD)
    return made


@pytest.fixture
def page(accounts: Accounts) -> Iterator[FastAPI]:
    application = gated()[1]
    application.add_middleware(Perimeter, access=Access(accounts=accounts, local=False))
    yield application


def browser(page: FastAPI) -> TestClient:
    return TestClient(page, base_url="http://127.0.0.1", follow_redirects=False)


def enter(client: TestClient, name: str = "clara", password: str = PASSWORD) -> int:
    return client.post("/sign-in", data={"name": name, "password": password}).status_code


def test_passwords_are_kept_as_argon2_hashes_for_the_owner_alone(accounts: Accounts) -> None:
    text = accounts.file.read_text()
    assert PASSWORD not in text and text.count("$argon2id$") == 3
    assert stat.S_IMODE(accounts.file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "role", "password", "words"),
    [("", "clinician", PASSWORD, "a name"), ("a\nb", "clinician", PASSWORD, "a name"),
     ("-a", "reader", PASSWORD, "a name"), ("a" * 65, "reader", PASSWORD, "a name"),
     ("a", "admin", PASSWORD, "no role"), ("a", "reader", "short", "12 to 256"),
     ("a", "reader", "x" * 257, "12 to 256")],
)  # fmt: skip
def test_accounts_that_cannot_be_are_refused(
    accounts: Accounts, name: str, role: str, password: str, words: str
) -> None:
    with pytest.raises(AccountError, match=words):
        accounts.add(name, role, password)


def test_a_damaged_file_opens_nothing(accounts: Accounts, page: FastAPI) -> None:
    accounts.file.write_text('{"accounts": {"eve": {"role": "admin", "password": ""}}}')
    with pytest.raises(AccountError, match="restore it"):
        accounts.names()
    assert enter(browser(page)) == 500


def test_without_an_account_nothing_of_the_page_is_answered(page: FastAPI) -> None:
    client = browser(page)
    reply = client.get("/")
    assert reply.status_code == 401 and "Sign in" in reply.text and "gradio" not in reply.text
    for path in ("/assets/x.js", "/theme.css", "/gradio_api/heartbeat/abcdefgh12", "/anything"):
        assert client.get(path).status_code == 401
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/upload", "/sign-out"):
        assert client.post(path, json=call()).status_code in (401, 303)
    client.cookies.set(SESSION_COOKIE, "guessed")
    assert client.get("/").status_code == 401


def test_clinician_and_coordinator_come_in_and_a_reader_does_not(page: FastAPI) -> None:
    for name, status in (("clara", 200), ("carl", 200), ("rita", 403)):
        client = browser(page)
        assert enter(client, name) == 303
        reply = client.get("/")
        assert reply.status_code == status, name
        body = call(session=f"session{name}")
        assert (
            client.post("/gradio_api/run/predict", json=body).status_code == status
        )  # every handler, not the page alone
        if status == 403:
            assert "readers of a study" in reply.text


def test_the_cookie_is_for_this_site_and_no_script(page: FastAPI) -> None:
    reply = browser(page).post("/sign-in", data={"name": "clara", "password": PASSWORD})
    cookies = reply.headers.get_list("set-cookie")
    assert len(cookies) == 2 and all("HttpOnly; SameSite=Strict" in cookie for cookie in cookies)
    assert reply.headers["location"] == "./"


def test_sign_out_removal_and_a_new_password_end_a_session(page: FastAPI, accounts: Accounts) -> None:
    def entered() -> TestClient:
        client = browser(page)
        enter(client)
        assert client.get("/").status_code == 200
        return client

    client = entered()
    kept = client.cookies[SESSION_COOKIE]
    client.post("/sign-out")
    client.cookies.set(SESSION_COOKIE, kept)
    assert client.get("/").status_code == 401
    client = entered()
    accounts.add("clara", "clinician", "another long password")
    assert client.get("/").status_code == 401
    assert enter(client, password="another long password") == 303
    accounts.remove("clara")
    assert client.get("/").status_code == 401 and enter(client, password="another long password") == 403


def test_sessions_end_by_themselves(page: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    client = browser(page)
    enter(client)
    assert client.get("/").status_code == 200
    for name in ("IDLE_SECONDS", "LIFE_SECONDS"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, -1.0)
            assert client.get("/").status_code == 401
        enter(client)


def test_guesses_are_limited_and_lock_out_nobody_elsewhere(accounts: Accounts) -> None:
    for _ in range(5):
        with pytest.raises(SignInRefused, match="wrong"):
            accounts.sign_in("clara", "a wrong password", "6.6.6.6")
    with pytest.raises(SignInRefused, match="Try again in") as refused:
        accounts.sign_in("clara", PASSWORD, "6.6.6.6")
    assert 0 < refused.value.seconds <= 301
    token, _ = accounts.sign_in("clara", PASSWORD, "10.0.0.1")  # the rightful, from elsewhere
    assert accounts.signed_in(token)
    accounts.sign_in("carl", PASSWORD, "6.6.6.6")  # another account behind the same address


def test_a_browser_that_was_in_before_is_not_locked_out_by_its_neighbours(accounts: Accounts) -> None:
    _, device = accounts.sign_in("clara", PASSWORD, "10.0.0.1")
    for _ in range(50):
        with pytest.raises(SignInRefused):
            accounts.sign_in("clara", "a wrong password", "10.0.0.1", "a made-up device")
    assert accounts.sign_in("clara", PASSWORD, "10.0.0.1", device)
    for _ in range(5):
        with pytest.raises(SignInRefused):
            accounts.sign_in("carl", "a wrong password", "10.0.0.1", device)  # it vouches for one name alone
    with pytest.raises(SignInRefused, match="Too many"):
        accounts.sign_in("carl", PASSWORD, "10.0.0.1", device)


def test_junk_names_fill_no_memory(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COUNTED", 50)
    for i in range(200):
        with pytest.raises(SignInRefused):
            accounts.sign_in(f"junk{i}", "x", f"1.1.1.{i}")
    assert len(accounts._wrong) == 50
    assert accounts.sign_in("clara", PASSWORD, "10.0.0.1")


@pytest.mark.parametrize("body", [b"x" * 5000, b"\xff\xfe=%ff", b"name", b"&" * 100, b"name=%00&password=%00"])
def test_any_form_is_answered_in_words(page: FastAPI, body: bytes) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    reply = browser(page).post("/sign-in", content=body, headers=kind)
    assert reply.status_code in (400, 403) and 'role="alert"' in reply.text
    assert browser(page).post("/sign-in", json={"name": "clara"}).status_code == 400


def test_the_form_shows_what_was_typed_as_text(page: FastAPI) -> None:
    reply = browser(page).post("/sign-in", data={"name": '"><script>alert(1)</script>', "password": "x"})
    assert "<script>" not in reply.text and "script-src 'self'" in reply.headers["content-security-policy"]


def test_other_addresses_want_accounts_or_the_word(tmp_path: Path, accounts: Accounts) -> None:
    none = Accounts(tmp_path / "none.json")
    for host, names in (("0.0.0.0", []), ("10.0.0.1", []), ("::", []), ("127.0.0.1", ["skin.example.org"])):
        with pytest.raises(ValueError, match="skinclip accounts add"):
            decide(host, names, none, opened=False)
        assert decide(host, names, none, opened=True).accounts is None
        assert decide(host, names, accounts, opened=False).accounts is accounts
        assert decide(host, names, none, opened=False, own_sign_in=True).accounts is None
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        assert decide(host, [], none, opened=False) == Access()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_full_or_read_only_disk_is_told_and_loses_no_account(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(AccountError, match="nothing was changed"):
        accounts.add("late", "clinician", PASSWORD)
    assert set(Accounts(accounts.file).names()) == {"clara", "carl", "rita"}
    assert [path.name for path in accounts.file.parent.iterdir()] == ["accounts.json"]
