"""Sessions by function calls: whole, interrupted, blinded; what a reader must not do is refused in words."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from skinclip.study.errors import (
    AlreadyAnsweredError,
    AnswerError,
    SessionExpiredError,
    SignInError,
    StudyRequestError,
    TooManyAttempts,
)
from skinclip.study.protocol.protocol import ARMS
from skinclip.study.session.bundle import StudyBundle
from skinclip.study.session.session_service import Study
from skinclip.study.session.view_models import StepView
from tests.study import tiny


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def study(study_folder: Path, clock: Clock) -> Iterator[Study]:
    with Study.open(study_folder, clock=clock) as opened:
        yield opened


@pytest.fixture
def code(study: Study) -> str:
    return study.enrol(1, "Site A")[0].code


@pytest.fixture
def token(study: Study, code: str) -> str:
    return study.sign_in(code)


def at(study: Study, token: str, kind: str) -> StepView:
    """Answers up to the first step of that kind and returns its view."""
    return list(tiny.session(study, token, lambda view: view.kind == kind))[-1][0]


def as_sent(view: StepView) -> str:
    """All that a page could send of a view, as one text."""
    return json.dumps(dataclasses.asdict(view), default=lambda data: base64.b64encode(data).decode())


# --- a whole session ------------------------------------------------------------------------------------------------


def test_a_whole_session_meets_every_arm(study: Study, token: str) -> None:
    views = [view for view, _ in tiny.session(study, token)]
    kinds = [view.kind for view in views]
    assert kinds[:3] == ["consent", "instructions", "background"]
    assert kinds[3:9] == ["before", "after", "feedback"] * 2
    assert kinds[9:29] == (["before", "after"] * 2 + ["block"]) * 4
    assert kinds[29:] == ["before", "after", "preference", "preference", "debrief", "done"]
    assert [view.done for view in views] == list(range(len(views)))
    assert {view.total for view in views} == {len(views) - 1}
    shown = [view.aid for view in views if view.aid]
    assert sum(aid.picture is None for aid in shown) >= 2
    assert any(f.ref for aid in shown for f in aid.text)
    assert any(aid.text and not any(f.ref for f in aid.text) for aid in shown)


def test_the_reader_sees_the_own_locked_answer_beside_the_aid(study: Study, token: str) -> None:
    view = at(study, token, "after")
    words = dict(view.own)
    assert words["What is your diagnosis?"] == "Melanoma"
    assert words["How confident are you in this diagnosis?"] == "60%"
    assert words["Would you biopsy, excise or refer this lesion?"] == "Yes"


def test_questions_of_the_arm_are_asked_with_their_scales(study: Study, token: str) -> None:
    for view, _ in tiny.session(study, token):
        keys = [question.key for question in view.questions]
        if view.kind == "after" and view.aid:
            explained = view.aid.picture is not None
            assert ("grounded" in keys) == explained
            trust = next(q for q in view.questions if q.key == "trust")
            assert (trust.kind, trust.points, trust.required) == ("likert", 7, True)
        if view.kind == "block":
            assert "trust_1" in keys


def test_practice_feedback_is_worded_the_same_in_every_arm(study: Study, token: str) -> None:
    texts = [view.text for view, _ in tiny.session(study, token) if view.kind == "feedback"]
    assert len(texts) == 2
    assert set(texts) <= {
        f"The confirmed diagnosis of this practice case is **{name}**." for name in ("melanoma", "melanocytic nevus")
    }


def test_preferences_show_two_aids_of_one_photo(study: Study, token: str) -> None:
    view = at(study, token, "preference")
    assert view.aids is not None
    assert view.aid is None
    assert view.aids[0].differential == view.aids[1].differential
    assert view.aids[0] != view.aids[1]


# --- blinding -------------------------------------------------------------------------------------------------------


def test_nothing_hidden_is_ever_part_of_a_view(study: Study, token: str) -> None:
    bundle, record = study.bundle, study.bundle.record
    hidden = [
        *(arm for arm in ARMS if arm != "none"),  # a word of its own in English
        *("Grad-CAM", "SkinCLIP", "stratum", tiny.SECRET_NAME, tiny.SECRET_EXIF),
        *(record["model"]["weights_sha256"][:12], record["prompts_sha256"][:12], *bundle.cases, *bundle.practice),
        *(truth.source for truth in bundle.truths.values()),
    ]
    for view, _ in tiny.session(study, token):
        pictures_apart = dataclasses.replace(view, photo=None, aid=_words(view.aid), aids=None)
        sent = as_sent(pictures_apart)
        for word in hidden:
            assert word not in sent, (view.step, word)
        for data in (view.photo, view.aid and view.aid.picture):
            assert not data or not any(word.encode() in data for word in hidden if len(word) > 4)


def _words(aid: Any) -> Any:
    return None if aid is None else dataclasses.replace(aid, picture=None)


def test_before_the_lock_nothing_of_the_aid_is_in_the_view(study: Study, token: str) -> None:
    bundle = study.bundle
    steps = {step.name: step for step in study.steps("R001")}
    for view, _ in tiny.session(study, token):
        if view.kind != "before":
            continue
        shown = steps[view.step].presentation
        assert shown is not None
        sent = as_sent(view)
        assert view.aid is view.aids is None
        assert not view.own
        for arm in bundle.protocol.arms:
            aid = bundle.aid(shown.case, arm)
            assert aid.picture is None or base64.b64encode(aid.picture).decode() not in sent
            assert not any(len(f.text) > 20 and f.text in sent for f in aid.text)
            assert not any(str(p) in sent for _, p in aid.differential)


def test_views_of_a_case_differ_between_arms_in_the_aid_and_its_questions_alone(study: Study) -> None:
    """Four readers meet a case in four arms."""
    readers = study.enrol(4, "Here")
    views: dict[str, StepView] = {}
    for one in readers:
        steps = {s.name: s for s in study.steps(one.reader)}
        for view, _ in tiny.session(study, study.sign_in(one.code)):
            shown = steps[view.step].presentation if view.step in steps else None
            if view.kind == "after" and shown and shown.case == "C001" and not shown.repeat:
                views[shown.arm] = dataclasses.replace(
                    view, step="", title="", done=0, aid=None, questions=view.questions[:4]
                )
    assert set(views) == set(study.protocol.arms)
    assert len(set(views.values())) == 1


def test_consent_tells_of_errors_and_withdrawal(study: Study, token: str) -> None:
    view = study.view(token)
    assert "may be wrong" in view.text
    assert "Withdraw" in view.text
    assert "erased" in view.text
    assert study.protocol.ethics.consent_text in view.text
    ethics = study.protocol.ethics
    for told in (ethics.consent_version, ethics.controller, ethics.contact, ethics.approval, ethics.retention):
        assert told in view.text
    assert study.protocol.title in view.text


# --- resuming, sending twice ----------------------------------------------------------------------------------------


def test_another_computer_goes_on_where_the_first_stopped(study: Study, study_folder: Path, code: str) -> None:
    first = study.sign_in(code)
    seen = at(study, first, "after")
    with Study.open(study_folder, clock=study._clock) as elsewhere:
        assert elsewhere.view(elsewhere.sign_in(code)) == seen
    assert study.view(first) == seen


def test_nothing_beyond_the_next_step_can_be_reached(study: Study, token: str) -> None:
    view = at(study, token, "before")
    following = f"s{int(view.step[1:]) + 1:03d}"
    with pytest.raises(StudyRequestError, match="not open yet"):
        study.submit(token, following, tiny.answers(view), "ahead")
    with pytest.raises(AnswerError, match="no such step"):
        study.submit(token, "s999", {}, "nowhere")
    assert study.view(token) == view


def test_a_double_click_stores_one_answer(study: Study, token: str) -> None:
    view = at(study, token, "before")
    given = tiny.answers(view)
    first = study.submit(token, view.step, given, "click", 3.0)
    events = len(study.store.events(study.name))
    assert study.submit(token, view.step, given, "click", 3.1) == first
    assert study.submit(token, view.step, given, "another id") == first
    assert len(study.store.events(study.name)) == events


def test_a_locked_answer_cannot_be_changed(study: Study, token: str) -> None:
    view = at(study, token, "before")
    given = tiny.answers(view)
    after = study.submit(token, view.step, given, "first")
    for other in ({**given, "diagnosis": "nv"}, {}, {"nonsense": 1}):
        with pytest.raises(AlreadyAnsweredError, match="the first answer stands"):
            study.submit(token, view.step, other, "second")
    assert study.view(token) == after
    assert dict(after.own)["What is your diagnosis?"] == "Melanoma"


def test_a_request_id_cannot_serve_two_steps(study: Study, token: str) -> None:
    view = study.view(token)
    view = study.submit(token, view.step, tiny.answers(view), "same")
    with pytest.raises(StudyRequestError, match="request id"):
        study.submit(token, view.step, tiny.answers(view), "same")
    assert study.view(token) == view


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"diagnosis": None}, "diagnosis: an answer is needed"),
        ({"diagnosis": "flu"}, "diagnosis: choose one of"),
        ({"confidence": 101}, "confidence: give a number from 0 to 100"),
        ({"act": "maybe"}, "act: answer yes or no"),
        ({"trust": 3}, "trust: this is not asked here"),
    ],
)
def test_wrong_answers_are_named_and_nothing_is_stored(
    study: Study, token: str, change: dict[str, Any], words: str
) -> None:
    view = at(study, token, "before")
    events = len(study.store.events(study.name))
    with pytest.raises(AnswerError, match=words):
        study.submit(token, view.step, {**tiny.answers(view), **change}, "wrong")
    assert len(study.store.events(study.name)) == events
    assert study.view(token) == view


def test_without_consent_there_is_no_next_step(study: Study, token: str) -> None:
    view = study.view(token)
    with pytest.raises(AnswerError, match="without your agreement"):
        study.submit(token, view.step, {"consent": False}, "no")
    assert study.view(token).kind == "consent"


@pytest.mark.parametrize(
    ("told", "kept"), [(4.5, 4.5), (-3, None), (1e9, 86_400.0), (float("nan"), None), (None, None), (True, None)]
)
def test_the_browsers_seconds_are_kept_within_bounds(study: Study, token: str, told: Any, kept: Any) -> None:
    study.submit(token, study.view(token).step, {"consent": True}, "yes", told)
    (event,) = study.store.events(study.name, "R001", ["consent"])
    assert (event.payload or {})["measured"] == {"seconds": kept}


def test_the_server_notes_the_first_showing_once(study: Study, token: str, code: str, clock: Clock) -> None:
    view = study.view(token)
    shown_at = study.store.events(study.name, "R001", ["shown"])[0].at
    clock.forward(seconds=30)
    study.view(study.sign_in(code))
    study.submit(token, view.step, tiny.answers(view), "id")
    shown = study.store.events(study.name, "R001", ["shown"])
    assert (shown[0].step, shown[0].at) == (view.step, shown_at)
    assert len(shown) == 2


# --- sign-in --------------------------------------------------------------------------------------------------------


def test_wrong_codes_are_told_and_limited(study: Study, code: str) -> None:
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    for _ in range(5):
        with pytest.raises(SignInError, match="not known"):
            study.sign_in(wrong)
    with pytest.raises(TooManyAttempts) as refused:
        study.sign_in(wrong)
    assert 0 < refused.value.seconds <= 300
    assert study.view(study.sign_in(code)).kind == "consent"


def test_an_expired_sign_in_loses_nothing(study: Study, token: str, code: str, clock: Clock) -> None:
    view = at(study, token, "after")
    clock.forward(hours=13)
    for call in (lambda: study.view(token), lambda: study.submit(token, view.step, tiny.answers(view), "id")):
        with pytest.raises(SessionExpiredError, match="type your code again"):
            call()
    assert study.view(study.sign_in(code)) == view


def test_readers_and_coordinator_have_doors_of_their_own(study: Study, code: str) -> None:
    theirs = study.coordinator_code()
    with pytest.raises(SignInError, match="coordinator's"):
        study.sign_in(theirs)
    with pytest.raises(SignInError, match="a reader's"):
        study.sign_in(code, coordinator=True)
    token = study.sign_in(theirs, coordinator=True)
    with pytest.raises(SessionExpiredError):
        study.view(token)
    with pytest.raises(SessionExpiredError):
        study.session(study.sign_in(code), coordinator=True)


# --- enrolment and the plan -----------------------------------------------------------------------------------------


def test_nobody_is_enrolled_without_ethics(study_folder: Path) -> None:
    tiny.write_protocol(study_folder / "protocol.yaml", ethics={"approval": "tbd"})
    with Study.open(study_folder) as study:
        with pytest.raises(StudyRequestError, match=r"ethics\.approval, ethics\.controller"):
            study.enrol(2, "Here")
        assert study.locked_plan() is None
        study.adopt(tiny.write_protocol(study_folder.parent / "filled.yaml"))
        assert len(study.enrol(2, "Here")) == 2
        assert study.locked_plan() == study.protocol.plan_sha256


def test_the_plan_is_locked_by_the_first_reader(study: Study, code: str, study_folder: Path) -> None:
    contact = {**tiny.protocol()["ethics"], "contact": "another person"}
    study.adopt(tiny.write_protocol(study_folder.parent / "contact.yaml", ethics=contact))
    assert study.protocol.ethics.contact == "another person"
    changed = {**tiny.protocol()["ethics"], "consent_text": "another text"}
    with pytest.raises(StudyRequestError, match="plan of tiny-study-v1 was locked"):
        study.adopt(tiny.write_protocol(study_folder.parent / "text.yaml", ethics=changed))
    tiny.write_protocol(study_folder / "protocol.yaml", ethics=changed)
    with pytest.raises(StudyRequestError, match="plan of tiny-study-v1 was locked"):
        Study.open(study_folder)


def test_a_page_that_is_open_follows_the_plan_that_was_locked(study_folder: Path) -> None:
    tiny.write_protocol(study_folder / "protocol.yaml", ethics={})
    with Study.open(study_folder) as page:
        with Study.open(study_folder) as console:
            console.adopt(tiny.write_protocol(study_folder.parent / "filled.yaml"))
            code = console.enrol(1, "Here")[0].code
        assert "for tests only" in page.view(page.sign_in(code)).text


def test_another_build_cannot_use_the_same_log(study: Study, study_folder: Path) -> None:
    path = study_folder / "frozen.json"
    path.write_text(path.read_text().replace('"built"', '"built_on"'))
    with pytest.raises(StudyRequestError, match="already holds another study"):
        Study.open(study_folder)


def test_sites_that_take_turns_are_each_balanced_and_who_withdraws_is_replaced(study: Study) -> None:
    enrolled = {site: [] for site in ("Graz", "Wien")}
    for site in ("Graz", "Wien", "Wien", "Graz", "wien ", "Graz", "Wien", "Graz"):
        enrolled[site.strip().capitalize()] += study.enrol(1, site)
    for readers in enrolled.values():
        shown = [
            s.presentation for one in readers for s in study.steps(one.reader) if s.kind == "after" and s.presentation
        ]
        met = Counter((p.case, p.arm) for p in shown if not p.practice and not p.repeat)
        assert len(met) == 8 * 4 and set(met.values()) == {1}
    assert study.readers_at("graz") == 4
    gone = enrolled["Graz"][1]
    seat = study.store.reader(study.name, gone.reader).allocation["seat"]
    study.withdraw(study.sign_in(gone.code))
    assert study.readers_at("Graz") == 3
    (instead,) = study.enrol(1, "Graz")
    assert study.store.reader(study.name, instead.reader).allocation["seat"] == seat


@pytest.mark.parametrize("readers", [0, -1, 1001])
def test_how_many_can_be_enrolled(study: Study, readers: int) -> None:
    with pytest.raises(StudyRequestError, match="enrol 1 to 1000"):
        study.enrol(readers, "Here")


# --- pause, withdrawal, receipt -------------------------------------------------------------------------------------


def test_blocks_are_kept_apart_by_the_washout(study_folder: Path, clock: Clock) -> None:
    tiny.write_protocol(study_folder / "protocol.yaml", washout={"presentations": 2, "hours": 24})
    with Study.open(study_folder, clock=clock) as study:
        code = study.enrol(1, "Here")[0].code
        token = study.sign_in(code)
        *_, (before_pause, _), (pause, _) = tiny.session(study, token)
        assert (before_pause.kind, pause.kind) == ("block", "pause")
        assert "25 November 2026, 09:00 UTC" in pause.text
        assert (pause.photo, pause.wait) == (None, 24 * 3600)
        with pytest.raises(StudyRequestError, match="not open yet"):
            study.submit(token, pause.step, {"diagnosis": "mel"}, "early")
        clock.forward(hours=23, minutes=59)
        token = study.sign_in(code)
        assert (study.view(token).kind, study.view(token).wait) == ("pause", 60)
        clock.forward(minutes=1)
        view = study.view(token)
        assert (view.kind, view.step) == ("before", pause.step)


def test_withdrawal_erases_answers_and_ends_the_code(study: Study, token: str, code: str) -> None:
    at(study, token, "block")
    view = study.withdraw(token)
    assert view.kind == "withdrawn"
    assert study.protocol.texts.debrief in view.text
    with pytest.raises(SessionExpiredError):
        study.view(token)
    with pytest.raises(SignInError):
        study.sign_in(code)
    assert all(event.payload is None for event in study.store.events(study.name, "R001")[:-1])
    assert not study.store.verify(study.name)


def test_a_renewed_code_ends_the_lost_one_and_is_on_record(study: Study, token: str, code: str) -> None:
    at(study, token, "background")
    new = study.renew_code("R001")
    with pytest.raises(SessionExpiredError):
        study.view(token)
    with pytest.raises(SignInError, match="not known"):
        study.sign_in(code)
    assert study.view(study.sign_in(new.code)).kind == "background"
    (event,) = study.store.events(study.name, kinds=["code_renewed"])
    assert event.reader == "R001" and set(event.payload or {}) == {"code"} and not study.store.verify(study.name)


def test_only_a_reader_who_takes_part_gets_a_new_code(study: Study, token: str) -> None:
    with pytest.raises(StudyRequestError, match="no reader 'R002'"):
        study.renew_code("R002")
    study.withdraw(token)
    with pytest.raises(StudyRequestError, match="R001 has withdrawn"):
        study.renew_code("R001")


def test_withdrawal_before_consent_needs_no_debrief(study: Study, token: str) -> None:
    assert study.protocol.texts.debrief not in study.withdraw(token).text


def test_a_receipt_proves_the_last_answer(study: Study, token: str) -> None:
    with pytest.raises(StudyRequestError, match="no receipt yet"):
        study.receipt(token)
    at(study, token, "before")
    receipt = study.receipt(token)
    assert receipt.startswith("tiny-study-v1:")
    assert not study.store.verify(study.name, [receipt])


# --- closing --------------------------------------------------------------------------------------------------------


def test_a_closed_study_takes_no_answers_but_owes_the_debrief(study: Study, token: str, code: str) -> None:
    view = at(study, token, "before")
    study.store.close_study(study.name)
    with pytest.raises(StudyRequestError, match="came too late and was not stored"):
        study.submit(token, view.step, tiny.answers(view), "late")
    with pytest.raises(StudyRequestError, match="closed"):
        study.enrol(1, "Here")
    debrief = study.view(study.sign_in(code))
    assert debrief.kind == "debrief"
    done = study.submit(token, debrief.step, {}, "read")
    assert (done.kind, done.title) == ("done", "The study is closed")


def test_who_never_consented_sees_only_that_it_is_closed(study: Study, token: str) -> None:
    study.store.close_study(study.name)
    assert study.view(token).kind == "done"


def test_sending_again_what_was_stored_is_no_late_answer(study: Study, token: str) -> None:
    view = at(study, token, "before")
    study.submit(token, view.step, tiny.answers(view), "sent")
    study.store.close_study(study.name)
    assert study.submit(token, view.step, tiny.answers(view), "sent").kind == "debrief"


def test_no_model_is_needed_to_show_a_study(study_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr("skinclip.pipeline.assessor.Assessor.heat_on_photo", fails)
    assert StudyBundle.open(study_folder).aid("C001", "regions").picture


def test_a_session_runs_on_either_database(study_folder: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINCLIP_DATABASE_URL", database)
    with Study.open(study_folder) as study:
        token = study.sign_in(study.enrol(1, "Here")[0].code)
        assert [view.kind for view, _ in tiny.session(study, token)][-1] == "done"
        assert not study.store.verify(study.name, [study.receipt(token)])
    assert not (study_folder / "store.sqlite").exists()
