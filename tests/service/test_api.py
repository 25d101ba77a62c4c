"""The HTTP API: the same Assessment as everywhere, once a photo, and honest refusals."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import skinclip
from skinclip.core.assessment import Assessment
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.service.admission import Admission
from skinclip.service.api import create_api
from skinclip.service.assessments import AssessmentQueue
from skinclip.service.keys import add_key, revoke_key
from tests.helpers.served import ROOT
from tests.service.callers import EXAMPLE, QuickAssessor, calling, photo

ENTRIES = {"age": 55, "sex": "male", "site": "back"}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def posted(client: TestClient, data: bytes, **entries):
    return client.post("/v1/assess", json={"photo": encoded(data), **entries})


# --- answers ----------------------------------------------------------------------------------------------------


def test_form_json_and_python_give_the_same_assessment(model) -> None:
    path = ROOT / EXAMPLE
    in_python = model.assess(path, age=55, sex="male", site="back")
    with calling(model.assessor) as client:
        by_form = client.post("/v1/assess", files={"photo": path.read_bytes()}, data=ENTRIES)
        by_json = posted(client, path.read_bytes(), **ENTRIES)
    assert by_form.status_code == by_json.status_code == 200
    assert Assessment.from_json(by_form.text) == Assessment.from_json(by_json.text) == in_python


def test_two_photos_of_a_lesion_are_answered_together_by_all_ways(model) -> None:
    path, close_up = ROOT / EXAMPLE, ROOT / "assets/examples/synthetic_angioma.jpg"
    in_python = model.assess(path, age=55, sex="male", site="back", clinical=close_up)
    files = {"photo": path.read_bytes(), "clinical": close_up.read_bytes()}
    with calling(model.assessor) as client:
        by_form = client.post("/v1/assess", files=files, data=ENTRIES)
        by_json = posted(client, files["photo"], clinical=encoded(files["clinical"]), **ENTRIES)
        item = {"photo": encoded(files["photo"]), "clinical": encoded(files["clinical"]), **ENTRIES}
        batch = client.post("/v1/assess/batch", json={"photos": [item]}).json()["results"][0]["assessment"]
    assert by_json.headers["idempotent-replayed"] == "true" and by_form.text == by_json.text
    assert Assessment.from_json(by_form.text) == Assessment.from_json(json.dumps(batch)) == in_python
    assert [photo.kind_given for photo in in_python.photos] == [None, "clinical"]
    command = [sys.executable, "-m", "skinclip", "assess", str(path), "--clinical", str(close_up), "--json"]
    said = subprocess.run([*command, "--age", "55", "--sex", "male", "--site", "back"], cwd=ROOT, capture_output=True)
    by_command = Assessment.from_json(said.stdout.decode())  # by another number of threads: equal up to rounding
    assert [photo.sha256 for photo in by_command.photos] == [photo.sha256 for photo in in_python.photos]
    assert by_command.context == in_python.context and by_command.rationale == in_python.rationale
    expected = [(d.code, pytest.approx(d.probability, abs=1e-6)) for d in in_python.diagnosis]
    assert [(d.code, d.probability) for d in by_command.diagnosis] == expected


def test_either_photo_makes_another_request_and_counts_for_the_rate(quick: QuickAssessor, tmp_path: Path) -> None:
    def sent(client: TestClient, first: int, other: int | None) -> str:
        beside = {} if other is None else {"clinical": encoded(photo(other))}
        return posted(client, photo(first), **beside).headers["idempotent-replayed"]

    with calling(quick) as client:
        calls = [(1, None), (1, 2), (2, 1), (1, 3), (1, 2), (1, None)]
        assert [sent(client, *call) for call in calls] == ["false"] * 4 + ["true"] * 2
    key = add_key(tmp_path / "keys.txt", "a", 1)
    with calling(quick, Admission(tmp_path / "keys.txt", "3/minute")) as client:
        body = {"photo": encoded(photo(5)), "clinical": encoded(photo(6))}
        headers = {"Authorization": f"Bearer {key}"}
        assert client.post("/v1/assess", json=body, headers=headers).status_code == 200
        assert client.post("/v1/assess", json=body, headers=headers).status_code == 429


def test_a_clinical_photo_that_cannot_be_used_is_named(quick: QuickAssessor) -> None:
    with calling(quick) as client:
        unreadable = posted(client, photo(), clinical=encoded(b"no photo"))
        twice, empty = posted(client, photo(), clinical=encoded(photo())), posted(client, photo(), clinical="?")
        text = client.post("/v1/assess", files={"photo": photo()}, data={"clinical": "text"})
        alone = client.post("/v1/assess", files={"clinical": photo()})
    assert unreadable.json()["title"] == "unreadable_photo" and "clinical photo" in unreadable.json()["detail"]
    for answer in (twice, empty, text, alone):
        assert answer.status_code == 422 and answer.json()["title"] == "invalid_request"
    assert "photo itself" in twice.json()["detail"] and not quick.assessed


def test_load_is_in_the_package() -> None:
    from skinclip.pipeline.loaded_model import load

    assert skinclip.load is load
    with pytest.raises(AttributeError):
        _ = skinclip.nothing_of_the_kind


def test_a_photo_that_is_sent_again_is_not_assessed_again(quick: QuickAssessor) -> None:
    with calling(quick) as client:
        first, again, other = posted(client, photo(1)), posted(client, photo(1)), posted(client, photo(1), age=40)
    assert first.headers["idempotent-replayed"] == "false" and again.headers["idempotent-replayed"] == "true"
    assert first.text == again.text != other.text and len(quick.assessed) == 2


def test_the_same_photo_at_once_is_assessed_once(quick: QuickAssessor) -> None:
    answers: list[str] = []
    quick.go.clear()
    with calling(quick) as client:
        threads = [threading.Thread(target=lambda: answers.append(posted(client, photo(2)).text)) for _ in range(4)]
        for thread in threads:
            thread.start()
        quick.go.set()
        for thread in threads:
            thread.join(20)
    assert len(answers) == 4 and len(set(answers)) == 1 and len(quick.assessed) == 1


def test_kept_answers_are_bounded_in_number_and_time(quick: QuickAssessor) -> None:
    with calling(quick, kept=1) as client:
        assert [posted(client, photo(i)).status_code for i in (1, 2, 1)] == [200] * 3
    assert len(quick.assessed) == 3
    with calling(quick, kept_seconds=-1) as client:
        posted(client, photo(1)), posted(client, photo(1))
    assert len(quick.assessed) == 5


def test_a_batch_answers_each_photo_in_its_place(quick: QuickAssessor) -> None:
    photos = [{"photo": encoded(photo(1))}, {"photo": encoded(b"no photo")}, {"photo": encoded(photo(2)), "age": 30}]
    with calling(quick) as client:
        answer = client.post("/v1/assess/batch", json={"photos": photos})
    first, second, third = answer.json()["results"]
    assert answer.status_code == 200 and first["problem"] is None and third["assessment"]["context"]["age"] == 30
    assert second["assessment"] is None and second["problem"]["title"] == "unreadable_photo"
    given = [hashlib.sha256(photo(number)).hexdigest() for number in (1, 2)]
    assert [first["assessment"]["photo"]["sha256"], third["assessment"]["photo"]["sha256"]] == given
    assert sorted(quick.assessed) == sorted(given)


def test_the_model_is_named(quick: QuickAssessor) -> None:
    with calling(quick) as client:
        answer = client.get("/v1/model").json()
    assert answer["model"]["weights_sha256"] == quick.model_info.weights_sha256
    assert tuple(answer["diagnoses"]) == tuple(DIAGNOSIS_CODES)


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "title"),
    [
        ({"photo": "?"}, 422, "invalid_request"),
        ({"photo": "????"}, 422, "invalid_request"),
        ({"photo": encoded(b"no photo")}, 422, "unreadable_photo"),
        ({"photo": encoded(photo()), "age": 200}, 422, "invalid_request"),
        ({"photo": encoded(photo()), "age": True}, 422, "invalid_request"),
        ({"photo": encoded(photo()), "sex": "x"}, 422, "invalid_request"),
        ({"photo": encoded(photo()), "site": "moon"}, 422, "invalid_request"),
        ({"photo": encoded(photo()), "name": "Ann"}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ([], 422, "invalid_request"),
    ],
)
def test_bodies_that_cannot_be_used(quick: QuickAssessor, body, status: int, title: str) -> None:
    with calling(quick) as client:
        answer = client.post("/v1/assess", json=body)
    assert (answer.status_code, answer.json()["title"]) == (status, title)
    assert answer.headers["content-type"] == "application/problem+json" and not quick.assessed


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"", "", 415),
        (b"nothing", "multipart/form-data; boundary=x", 400),
        (b"nothing", "multipart/form-data", 400),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 422),
    ],
)
def test_bodies_that_cannot_be_read(quick: QuickAssessor, content: bytes, kind: str, status: int) -> None:
    with calling(quick) as client:
        assert client.post("/v1/assess", content=content, headers={"content-type": kind}).status_code == status


def test_forms_with_more_than_they_may_have(quick: QuickAssessor) -> None:
    file = ("photo.jpg", photo(), "image/jpeg")
    with calling(quick) as client:
        for files, data in (
            ([("photo", file), ("photo", file)], {}),
            ([("photo", file)], {"name": "Ann"}),
            ([("photo", file)], {"age": ["1", "2"]}),
            ([("photo", file)], {"age": "old"}),
            ([], {"photo": "text"}),
        ):
            assert client.post("/v1/assess", files=files or None, data=data).status_code in (400, 415, 422)


def test_a_body_above_the_limit_is_not_taken(quick: QuickAssessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinclip.service.bodies.MAX_BODY", 1000)
    with calling(quick) as client:
        assert posted(client, photo()).status_code == 413
        chunks = iter([b"x" * 600] * 3)  # no content-length
        kind = {"content-type": "application/json"}
        assert client.post("/v1/assess", content=chunks, headers=kind).status_code == 413


def test_no_form_is_written_to_the_disk(quick: QuickAssessor, monkeypatch: pytest.MonkeyPatch) -> None:
    def rolled(*_: object) -> None:
        raise AssertionError("a photo was written to the disk")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", rolled)
    with calling(quick) as client:
        large = photo() + b"\0" * 3_000_000
        assert client.post("/v1/assess", files={"photo": large}).status_code == 200


def test_a_full_queue_says_so(quick: QuickAssessor) -> None:
    quick.go.clear()
    with calling(quick, most=1) as client:
        waiting = threading.Thread(target=posted, args=(client, photo(1)))
        waiting.start()
        while not client.queue.waiting:
            time.sleep(0.01)
        answer = posted(client, photo(2))
        assert answer.json()["title"] == "queue_full" and answer.headers["retry-after"] == "5"
        quick.go.set()
        waiting.join(20)
        assert posted(client, photo(2)).status_code == 200


def test_what_runs_is_finished_at_the_end(quick: QuickAssessor) -> None:
    quick.go.clear()
    answers = []
    with calling(quick) as client:
        waiting = threading.Thread(target=lambda: answers.append(posted(client, photo(1))))
        waiting.start()
        threading.Timer(0.5, quick.go.set).start()
    waiting.join(20)
    assert answers[0].status_code in (200, 503)


def test_a_fault_is_a_500_and_leaves_the_queue_working(quick: QuickAssessor) -> None:
    with calling(quick) as client:
        broken, quick.like = quick.like, None
        assert posted(client, photo(1)).status_code == 500
        quick.like = broken
        assert posted(client, photo(1)).status_code == 200


# --- admission --------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(quick: QuickAssessor, tmp_path: Path):
    """A client without a key of an API that wants one, the file of keys, and a key for two photos a minute."""
    path = tmp_path / "keys.txt"
    key = add_key(path, "clinic-a", 1)
    with calling(quick, Admission(path, "2/minute")) as client:
        yield client, path, {"Authorization": f"Bearer {key}"}


def test_without_a_valid_key_nothing_is_answered(guarded) -> None:
    client, path, key = guarded
    for headers in ({}, {"Authorization": "Bearer skinclip_x"}, {"Authorization": "Basic eDp5"}):
        answer = client.post("/v1/assess", json={"photo": encoded(photo())}, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/model", headers=key).status_code == 200
    revoke_key(path, "clinic-a")
    assert client.get("/v1/model", headers=key).status_code == 401  # without a restart


def test_the_rate_of_a_key(guarded) -> None:
    client, path, key = guarded
    other = {"Authorization": f"Bearer {add_key(path, 'clinic-b', 1)}"}
    body = {"photo": encoded(photo())}
    assert [client.post("/v1/assess", json=body, headers=key).status_code for _ in range(3)] == [200, 200, 429]
    answer = client.post("/v1/assess", json=body, headers=key)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert client.post("/v1/assess", json=body, headers=other).status_code == 200
    batch = {"photos": [body, body]}
    assert client.post("/v1/assess/batch", json=batch, headers=other).status_code == 429


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_pages_of_others_cannot_call_it(quick: QuickAssessor, headers: dict[str, str]) -> None:
    with calling(quick) as client:
        assert client.post("/v1/assess", files={"photo": photo()}, headers=headers).status_code == 403
        assert client.get("/v1/model", headers=headers).status_code == 403
    assert not quick.assessed


def test_every_answer_has_its_headers(quick: QuickAssessor) -> None:
    with calling(quick) as client:
        answers = [posted(client, photo()), posted(client, b"x"), client.get("/v1/nothing"), client.put("/v1/assess")]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"


def test_the_description_names_all_routes(quick: QuickAssessor, tmp_path: Path) -> None:
    add_key(tmp_path / "keys.txt", "a", 1)
    described = create_api(AssessmentQueue(quick), Admission(tmp_path / "keys.txt")).openapi()
    assert set(described["paths"]) == {"/v1/assess", "/v1/assess/batch", "/v1/model"}
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert set(described["components"]["schemas"]["Assessment"]["properties"]) >= {"diagnosis", "findings", "rationale"}
