"""Two pages and two studies behind one proxy: a visitor stays with a page, a reader goes on at any study."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eval_study.reliability.load import PhotoMaker
from eval_study.reliability.visitor import Visitor
from skinclip.study.session.session_service import Study
from skinclip.study.session.steps import CONSENT
from skinclip.study.store.store import URL_VARIABLE
from tests.helpers import proxy
from tests.helpers.served import Served, await_status, serving

pytestmark = pytest.mark.skipif(proxy.NGINX is None, reason="nginx is missing: sudo apt-get install nginx-light")
PAGE, STUDY = "skinclip.example.org", "study.example.org"


def port_of(served: Served) -> int:
    return int(served.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def pages() -> Iterator[list[Served]]:
    with ExitStack() as stack:
        two = [stack.enter_context(serving("--name", PAGE, "--open")) for _ in range(2)]
        for one in two:
            await_status(one.url, one.process, seconds=400)
        yield two


@pytest.fixture
def before_pages(pages: list[Served], tmp_path: Path) -> Iterator[int]:
    ports = [port_of(one) for one in pages]
    with proxy.proxied(tmp_path, ports, ports) as port:
        yield port


def test_the_configuration_as_it_stands_is_one_that_nginx_takes(tmp_path: Path) -> None:
    text = proxy.configuration(tmp_path, 8080, [1, 2], [3, 4])
    (tmp_path / "nginx.conf").write_text(text)
    words = [str(proxy.NGINX), "-t", "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "7860" not in text and "ssl" not in text


def test_visitors_stay_with_one_page_and_get_their_own_answers(before_pages: int) -> None:
    served_by: set[str | None] = set()
    for number in range(40):  # a visitor's page is drawn by a hash: six of them meet only one page once in 32 runs
        if number >= 6 and len(served_by) == 2:
            break
        visitor = Visitor("127.0.0.1", before_pages, {"Host": PAGE})
        photo = PhotoMaker(number).photo()
        assert hashlib.sha256(photo).hexdigest() in visitor.assess(photo)
        later = set(visitor.answered_by[1:])  # the first answer gave the cookie
        assert len(later) == 1
        served_by |= later
    assert len(served_by) == 2


def test_a_page_that_is_gone_is_replaced_by_the_other(pages: list[Served], tmp_path: Path) -> None:
    with serving("--name", PAGE, "--open") as third:
        await_status(third.url, third.process, seconds=400)
        ports = [port_of(third), port_of(pages[0])]
        with proxy.proxied(tmp_path, ports, ports) as port:
            visitors = [Visitor("127.0.0.1", port, {"Host": PAGE}) for _ in range(4)]
            third.process.kill()
            third.process.wait()
            for number, visitor in enumerate(visitors):
                photo = PhotoMaker(100 + number).photo()
                assert hashlib.sha256(photo).hexdigest() in visitor.assess(photo)
                assert str(visitor.answered_by[-1]).endswith(
                    f"127.0.0.1:{ports[1]}"
                )  # the lost one may stand before it


def called(port: int, name: str, data: dict) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json", "Host": STUDY}
    connection.request("POST", f"/session/{name}", json.dumps(data), headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body[:300]
    return json.loads(body)


def test_a_reader_goes_on_at_either_of_two_studies(study_folder: Path, postgresql_database: str) -> None:
    """Signed in at one, a submit at the other: both answer from one PostgreSQL, and the log is whole."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv(URL_VARIABLE, postgresql_database)
        study = stack.enter_context(Study.open(study_folder))
        (reader,) = study.enrol(1, "here")
        two = [stack.enter_context(serving("--study", str(study_folder), "--name", STUDY)) for _ in range(2)]
        for one in two:
            await_status(one.url, one.process, seconds=400)
        ports = [port_of(one) for one in two]
        token = called(ports[0], "sign_in", {"code": reader.code})["token"]
        first, same = (called(port, "resume", {"token": token}) for port in reversed(ports))
        assert first == same
        answers = {"token": token, "step": first["step"], "answers": {CONSENT: True}, "request_id": "a", "seconds": 1.0}
        following = called(ports[1], "submit", answers)
        assert following["step"] != first["step"]
        again = called(ports[0], "submit", answers)  # the same submit at the other is the same answer
        assert again["step"] == following["step"] == called(ports[0], "resume", {"token": token})["step"]
        two[0].process.kill()  # one is lost: the reader goes on
        assert called(ports[1], "resume", {"token": token})["step"] == following["step"]
        assert study.store.verify(study.name) == []
