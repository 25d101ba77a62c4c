"""The reader's tab without a browser: what each handler replies, and what a step's HTML holds and must not hold."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from skinclip.study.errors import StoreError
from skinclip.study.session.view_models import AidView, Fragment, QuestionView, StepView
from skinclip.ui import study_html
from skinclip.ui.tabs import study_tab
from skinclip.ui.tabs.study_tab import reply_to
from tests.ui.fake_study import CODE, DIFFERENTIAL, FakeStudy, aids, likert, photo, unaided

ENGLISH_WORDS = study_html.page_words("en")


@pytest.fixture
def study() -> FakeStudy:
    return FakeStudy()


def ask(study: FakeStudy, name: str, **request: Any) -> dict[str, Any]:
    return reply_to(study, study_tab.HANDLERS[name], request)  # type: ignore[arg-type]


def submit(study: FakeStudy, step: str, request_id: str, **answers: Any) -> dict[str, Any]:
    return ask(study, "submit", token="token", step=step, answers=answers, request_id=request_id, seconds=3.2)


def test_a_code_opens_the_step_that_is_due(study: FakeStudy) -> None:
    reply = ask(study, "sign_in", code=CODE)
    assert reply["token"] == "token" and reply["step"] == "s000" and "Step 1 of 14" in reply["html"]
    assert ask(study, "resume", token="token")["step"] == "s000"


def test_a_wrong_code_too_many_and_an_ended_session_are_told(study: FakeStudy) -> None:
    assert "coordinator gave you" in ask(study, "sign_in", code=" ")["problem"]
    for _ in range(3):
        reply = ask(study, "sign_in", code="WRONG")
        assert reply["signed_out"] and reply["problem"] == "This code is not known; check it and type it again."
    assert ask(study, "sign_in", code=CODE)["seconds"] == 30
    assert ask(study, "resume", token="other")["signed_out"]
    assert ask(study, "resume")["signed_out"] and ask(study, "resume", token=["token"])["signed_out"]


def test_the_same_request_again_stores_one_answer(study: FakeStudy) -> None:
    replies = [submit(study, "s000", "one", consent=True) for _ in range(2)]
    assert replies[0] == replies[1] and replies[0]["step"] == "s001" and len(study.stored) == 1


def test_a_step_answered_elsewhere_leads_to_the_one_that_is_due(study: FakeStudy) -> None:
    submit(study, "s000", "one", consent=True)
    reply = submit(study, "s000", "two", consent=False)
    assert "first answer stands" in reply["notice"] and reply["step"] == "s001" and len(study.stored) == 1


def test_a_refused_answer_names_its_question_and_stores_nothing(study: FakeStudy) -> None:
    assert submit(study, "s000", "one")["problem"].startswith("consent: ") and not study.stored


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"step": "s000"},
        {"step": "s000", "request_id": "x", "answers": []},
        {"answers": {}},
        *({"step": "s000", "request_id": f"a{odd}b", "answers": {}} for odd in "\n\0\r\x1b\u2028"),
        {"step": "s\n0", "request_id": "x", "answers": {}},
    ],
)
def test_a_broken_request_is_refused(study: FakeStudy, request_: dict[str, Any]) -> None:
    assert "Reload the page" in ask(study, "submit", token="token", **request_)["problem"] and not study.stored


@pytest.fixture
def client(study: FakeStudy) -> TestClient:
    return TestClient(Starlette(routes=[study_tab.session_route(study)]), raise_server_exceptions=False)  # type: ignore[arg-type]


def test_a_call_is_answered_as_its_handler_answers(client: TestClient, study: FakeStudy) -> None:
    reply = client.post("/session/sign_in", json={"code": CODE})
    assert reply.status_code == 200 and reply.headers["cache-control"] == "no-store"
    assert reply.json() == ask(study, "sign_in", code=CODE)
    for _ in range(2):
        sent = {"token": "token", "step": "s000", "answers": {"consent": True}, "request_id": "one", "seconds": 3}
        assert client.post("/session/submit", json=sent).json()["step"] == "s001" and len(study.stored) == 1
    assert client.post("/session/resume", json=["token"]).json()["signed_out"]


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/session/answers", JSON, b"{}", 404),
        ("/session/resume", {"content-type": "text/plain"}, b"{}", 415),  # what another page could send unasked
        ("/session/resume", JSON, b"{", 400),
        ("/session/resume", JSON, b"\xff", 400),
        ("/session/resume", JSON, b'"' + b"x" * study_tab.MAX_REQUEST + b'"', 413),
    ],
)
def test_a_call_that_is_none_is_refused(client: TestClient, path: str, headers: dict, body: bytes, status: int) -> None:
    assert client.post(path, headers=headers, content=body).status_code == status
    assert client.get(path).status_code == 405


def test_a_fault_is_no_reply(client: TestClient, study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(FakeStudy, "submit", broken)
    sent = {"token": "token", "step": "s000", "answers": {}, "request_id": "one"}
    reply = client.post("/session/submit", json=sent)  # the page sends it again
    assert reply.status_code == 500 and "disk" not in reply.text


def test_a_database_that_fails_is_told_and_the_page_sends_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any) -> None:
        raise StoreError("nothing was stored: another program has held the database")

    monkeypatch.setattr(FakeStudy, "submit", locked)
    sent = {"token": "token", "step": "s000", "answers": {}, "request_id": "one"}
    reply = client.post("/session/submit", json=sent)
    assert reply.status_code == 503 and reply.json()["problem"].startswith("Nothing was stored: another program")


def test_the_address_is_the_server_s_own_word(client: TestClient, study: FakeStudy) -> None:
    sent = {"code": CODE, "address": "192.0.2.1"}
    client.post("/session/sign_in", json=sent, headers={"X-Forwarded-For": "192.0.2.2"})
    assert study.address == "testclient"


@pytest.mark.parametrize(("sent", "kept"), [(4.5, 4.5), (-1, None), ("4", None), (True, None), (math.nan, None)])
def test_only_sensible_seconds_are_kept(sent: Any, kept: float | None) -> None:
    assert study_tab._seconds(sent) == kept


def test_withdrawal_needs_its_word(study: FakeStudy) -> None:
    assert "Type WITHDRAW" in ask(study, "withdraw", token="token", word="yes")["problem"] and not study.withdrawn
    reply = ask(study, "withdraw", token="token", word="withdraw ")
    assert reply["withdrawn"] and "erased" in reply["html"] and study.withdrawn


def test_the_receipt_and_signing_out(study: FakeStudy) -> None:
    assert ask(study, "receipt", token="token") == {"receipt": "ABCD-EFGH"}
    ask(study, "sign_out", token="token")
    assert ask(study, "receipt", token="token")["signed_out"]


def test_a_failing_store_is_no_reply(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser then sends the same request again."""
    monkeypatch.setattr(study, "submit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        submit(study, "s000", "one", consent=True)


# --- the HTML -----------------------------------------------------------------------------------------------------


def test_arms_with_picture_and_text_have_the_same_frame_and_all_the_same_delay() -> None:
    shapes = set()
    for aid in aids():
        view = StepView("s1", "after", "With the aid", "", 1, 9, photo(), unaided(), aid)
        drawn = study_tab.step_reply(view)
        frame = re.search(r'<section class="sk-frame sk-aid".*</section></div>', drawn["html"], re.S)
        assert drawn["delay"] == study_tab.AID_DELAY
        if not aid.explains:
            assert frame is None
            continue
        assert frame
        if not aid.text:
            assert "What it says" not in frame[0]
            continue
        tags = re.findall(r'<(?:img|section|div|figure) ?(?:class="[^"]*")?', frame[0])
        shapes.add(tuple(tags))
    assert len(shapes) == 1


def test_without_an_explanation_the_photo_is_shown_once_beside_the_differential() -> None:
    view = StepView("s1", "after", "With the aid", "", 1, 9, photo(), unaided(), AidView(DIFFERENTIAL))
    html = study_tab.step_reply(view)["html"]
    assert html.count(base64.b64encode(photo()).decode()) == 1
    assert "The aid's probabilities" in unescape(html) and "What it says" not in html


def test_numbers_of_regions_have_their_colour() -> None:
    html = study_html.fragments(
        ENGLISH_WORDS, (Fragment("with "), Fragment("", 2, "#f0e442"), Fragment(" <b>border</b>"))
    )
    assert "--chip:#f0e442;--ink:#000" in html and "region </span>2</span>" in html
    assert "&lt;b&gt;border" in html


def test_an_untouched_slider_is_no_answer() -> None:
    html = study_html.question(
        ENGLISH_WORDS, QuestionView("confidence", "How sure?", "percent", True, anchors=("Not", "Fully")), 0
    )
    assert "sk-untouched" in html and 'type="number"' in html and not re.search(r'type="number"[^>]*value=', html)


def test_points_of_a_scale_have_words_where_they_have_any() -> None:
    each = study_html.question(ENGLISH_WORDS, likert("a", "Text", 3, "low", "middle", "high"), 0)
    ends = study_html.question(ENGLISH_WORDS, likert("a", "Text", 3, "low", "high"), 0)
    assert re.findall(r'aria-label="(.*?)"', each) == ["1, low", "2, middle", "3, high"]
    assert re.findall(r'aria-label="(.*?)"', ends) == ["1, low", "2", "3, high"]


def test_items_on_one_scale_share_its_words_and_others_stand_alone() -> None:
    items = tuple(likert(f"ess_{i}", "Text", 5, "low", "high") for i in range(3))
    block = StepView("s1", "block", "About the aid", "", 1, 9, questions=(*items, likert("other", "Text", 7, "a", "b")))
    html = study_html.step(block)
    battery = re.search(r'<div class="sk-battery".*?</div></div>(.*)</div><fieldset', html, re.S)
    assert battery and battery[1].count("<fieldset") == 3 and html.count("<fieldset") == 4
    assert html.count("sk-battery") == 1 and "sk-battery" not in study_html.step(replace(block, questions=items[:2]))


def test_the_case_has_the_shape_of_its_photo() -> None:
    assert "--ratio:1.333" in study_html.step(StepView("s1", "before", "Photo 1", "", 1, 9, photo()))


def test_nothing_is_chosen_beforehand_and_every_field_has_a_group() -> None:
    for view in FakeStudy().views:
        html = study_html.step(view)
        assert " checked" not in html and html.count("<fieldset") == html.count("<legend>") == len(view.questions)
        assert html.count("data-heading") == 1


def test_every_step_of_a_rehearsal_says_so() -> None:
    for view in FakeStudy().views:
        assert "Rehearsal, not a study" in study_html.step(replace(view, rehearsal=True))
        assert "Rehearsal" not in study_html.step(view)


def test_text_of_a_protocol_is_never_markup() -> None:
    view = StepView("s1", "consent", "<script>", "<img src=x onerror=alert(1)> [x](javascript:alert(1)) **bold**", 0, 1)
    html = study_html.step(view)
    assert "<script>" not in html and "<img" not in html and 'href="javascript' not in html
    assert "<strong>bold</strong>" in html


def test_a_pause_can_only_be_looked_at_again() -> None:
    html = study_html.step(replace(FakeStudy().views[1], kind="pause", text="Come back tomorrow", wait=59.2))
    assert 'data-act="resume" disabled' in html and 'data-wait="60"' in html and "<form" not in html


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.0001, "&lt;1\xa0%"),
        (0.004, "&lt;1\xa0%"),
        (0.5, "50\xa0%"),
        (0.999, "&gt;99\xa0%"),
    ],
)
def test_probabilities_are_never_rounded_to_nothing_or_all(p: float, words: str) -> None:
    assert study_html.percent(p) == words
