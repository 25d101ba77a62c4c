"""The set-up page where others reach it: coordinators' accounts alone, for the page and for its upload."""

from __future__ import annotations

from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

import pytest

from eval_study.trust_study.serving import free_port
from skinclip.ui.guard.accounts import Accounts
from tests.helpers.served import await_status, running

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("home"), free_port()
    for name, role in (("anna", "coordinator"), ("ben", "clinician")):
        Accounts(home / "accounts.json").add(name, role, PASSWORD)
    command = ["-m", "skinclip", "study", "setup", "--port", str(port), "--name", "studies.example"]
    with running([*command, "--studies", str(home / "studies")], port, {"SKINCLIP_HOME": str(home)}) as served:
        await_status(served.url, served.process)
        yield served.url


def visitor(url: str, name: str = "") -> OpenerDirector:
    """A browser, signed in with the account of a name."""
    opener = build_opener(HTTPCookieProcessor(CookieJar()))
    if name:
        form = urlencode({"name": name, "password": PASSWORD}).encode()
        status(opener, f"{url}/sign-in", form, {"Content-Type": "application/x-www-form-urlencoded"})
    return opener


def status(opener: OpenerDirector, url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    try:
        with opener.open(Request(url, data, headers or {}), timeout=30) as reply:
            return int(reply.status)
    except HTTPError as refused:
        with refused:
            return refused.code


@pytest.mark.parametrize(("name", "page", "upload"), [("", 401, 401), ("ben", 403, 403), ("anna", 200, 400)])
def test_only_a_coordinator_reaches_the_page_and_its_upload(url: str, name: str, page: int, upload: int) -> None:
    """The upload of the coordinator is refused by the route itself: there is no such study."""
    browser = visitor(url, name)
    assert status(browser, url) == page
    assert status(browser, f"{url}/photos", b"PK", {"X-Study": "mine", "Content-Type": "application/zip"}) == upload


def test_nothing_is_kept_of_uploads_that_were_refused(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    studies = next(Path(tmp_path_factory.getbasetemp()).glob("home*")) / "studies"
    assert [path for path in studies.rglob("*") if path.is_file()] == []
