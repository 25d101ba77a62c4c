"""A study in German and Spanish: whole sessions in which nothing is left in English, on record and in the export."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from skinclip.study.catalogue.catalogue import languages, problem_in, section
from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import AnswerError, StoreError, StudyRequestError
from skinclip.study.letters import write_invitations, write_reminders
from skinclip.study.session.presenter import Wording
from skinclip.study.session.session_service import Study
from skinclip.study.store.records import SIGNED_IN
from skinclip.ui import study_html
from skinclip.ui.tabs import study_tab
from tests.browser import tiny_study
from tests.study import tiny

TRANSLATIONS = {
    language: {"title": "Studie", "consent_text": f"consent in {language}", "retention": f"retention in {language}"}
    for language in ("de", "es")
}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    built = tiny_study.build(tmp_path, languages=["en", "de", "es"], translations=TRANSLATIONS)
    with Study.open(built.folder) as opened:
        yield opened


def ask(study: Study, name: str, **request: Any) -> dict[str, Any]:
    return study_tab.reply_to(study, study_tab.HANDLERS[name], request)


@cache
def english_sentences(language: str) -> list[str]:
    """What the catalogue says in English in two words or more, and otherwise in this language."""
    found = []
    for name in ("page", "script", "steps", "errors"):
        for key, text in section("en", name).items():
            if key != "months" and text != section(language, name)[key]:
                found += [part.strip(" .:,;") for part in re.split(r"\{\w+\}|\*\*", text)]
    found += [phrase.strip(" .") for phrase, other in section(language, "phrases").items() if phrase != other]
    return [words for words in found if len(words.split()) > 1]


def check(language: str, html: str) -> None:
    said = " ".join(unescape(html).split())
    assert [words for words in english_sentences(language) if words in said] == []


def session(study: Study, language: str) -> str:
    """A whole session through the page's handlers, checked at each step; returns the token."""
    code = study.enrol(1, "Here")[0].code
    reply = ask(study, "sign_in", code=code, language=language)
    token, kinds = reply["token"], []
    while True:
        assert reply["language"] == language and f'<section class="sk-step" lang="{language}"' in reply["html"]
        if language != "en":
            rationale = re.sub(r'<div lang="en">.*?</p></div>', "", reply["html"], flags=re.S)
            check(language, re.sub(r'src="data:[^"]*"', "", rationale) + reply["said"])
        view = study.view(token)
        kinds.append(view.kind)
        if view.kind == "done":
            break
        sent = {"token": token, "step": view.step, "request_id": f"request-{view.step}", "language": language}
        reply = ask(study, "submit", **sent, answers=tiny.answers(view), seconds=4)
    assert set(kinds) > {"consent", "instructions", "background", "before", "after", "feedback", "block", "preference"}
    return token


@pytest.mark.parametrize("language", ["de", "es"])
def test_a_whole_session_has_no_english_but_the_aids_own_text(study: Study, language: str) -> None:
    token = session(study, language)
    for kind, asked in (("receipt", {}), ("withdraw", {"word": "WITHDRAW"}), ("submit", {"step": "s001"})):
        check(language, str(ask(study, kind, token=token, language=language, **asked)))
    gone = ask(study, "withdraw", token=token, language=language, word=section(language, "page")["withdraw_typed"])
    assert gone["withdrawn"]
    check(language, gone["html"])


def test_the_language_is_on_record_and_in_the_export_with_its_dictionary(study: Study, tmp_path: Path) -> None:
    for language in ("de", "en"):
        session(study, language)
    begun = study.store.events(study.name, kinds=[SIGNED_IN])
    assert [(event.payload or {}).get("language") for event in begun] == ["de", "en"]
    desk = Coordinator(study)
    assert desk.verify() == []
    desk.close("two are enough for a test")
    tables = desk.tables()
    assert list(tables.readers["language"]) == ["de", "en"]
    assert tables.cases.groupby("reader")["language"].unique().map(list).to_dict() == {"R001": ["de"], "R002": ["en"]}
    desk.export(tmp_path / "export")
    with open(tmp_path / "export" / "data_dictionary.csv", newline="") as file:
        meanings = {(row["table"], row["column"]): row["meaning"] for row in csv.DictReader(file)}
    assert "language of the page" in meanings["readers", "language"] and ("cases", "language") in meanings
    assert "readers_language" in (tmp_path / "export" / "redcap_data_dictionary.csv").read_text()


def test_another_language_at_the_next_sign_in_goes_on_where_the_reader_stopped(study: Study) -> None:
    code = study.enrol(1, "Here")[0].code
    first = ask(study, "sign_in", code=code, language="es")
    sent = {"step": first["step"], "answers": {"consent": True}, "request_id": "one", "seconds": 1}
    assert ask(study, "submit", token=first["token"], **sent)["step"] == "s002"
    second = ask(study, "sign_in", code=code, language="de")
    assert second["step"] == "s002" and second["language"] == "de"
    again = ask(study, "submit", token=second["token"], **sent)  # the answer whose acknowledgement was lost
    assert again["step"] == "s002" and "notice" not in again
    assert ask(study, "resume", token=first["token"])["language"] == "es"


def test_a_language_that_is_not_offered_or_forged_changes_nothing(study: Study) -> None:
    code = study.enrol(1, "Here")[0].code
    for odd in ("fr", "", "../en", None, ["de"]):
        assert ask(study, "sign_in", code=code, language=odd)["language"] == "en"
    token = ask(study, "sign_in", code=code, language="de")["token"]
    assert token.startswith("de.")
    forged = ask(study, "resume", token=f"es.{token.partition('.')[2]}", language="es")
    assert forged == {"problem": "Su sesión ha terminado; escriba de nuevo su código. Todas las respuestas que envió "
                      "están guardadas.", "signed_out": True}  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (("sign_in", {"code": ""}), "Geben Sie den Code ein"),
        (("sign_in", {"code": "AAAA-BBBB-CCCC-DDDD"}), "Dieser Code ist nicht bekannt"),
        (("resume", {"token": "x"}), "Ihre Anmeldung ist abgelaufen"),
        (("submit", {}), "Die Seite hat eine unvollständige Antwort gesendet"),
        (("submit", {"step": "s001", "answers": {}, "request_id": "a"}), "consent: ohne Ihre Einwilligung"),
        (("submit", {"step": "s001", "answers": {"x": 1}, "request_id": "a"}), "x: danach wird hier nicht gefragt"),
        (("submit", {"step": "s002", "answers": {}, "request_id": "a"}), "Dieser Schritt ist noch nicht geöffnet"),
        (("submit", {"step": "s999", "answers": {}, "request_id": "a"}), "diesen Schritt gibt es in Ihrer Sitzung"),
        (("receipt", {}), "Es gibt noch keinen Beleg"),
        (("withdraw", {"word": "nein"}), "Geben Sie zur Bestätigung WIDERRUF ein"),
    ],
)
def test_every_refusal_is_worded_in_the_readers_language(
    study: Study, request_: tuple[str, dict[str, Any]], words: str
) -> None:
    name, asked = request_
    token = ask(study, "sign_in", code=study.enrol(1, "Here")[0].code, language="de")["token"]
    reply = ask(study, name, **{"token": token, "language": "de"} | asked)
    assert (reply.get("problem") or reply["notice"]).startswith(words)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({}, "diagnosis: eine Antwort ist nötig; confidence: eine Antwort ist nötig; act: eine Antwort ist nötig"),
        ({"diagnosis": "x", "confidence": 101, "act": True}, "diagnosis: wählen Sie eines von mel, nv, bcc"),
        ({"diagnosis": "mel", "confidence": 101, "act": "ja"}, "confidence: geben Sie eine Zahl von 0 bis 100 an, "),
    ],
)
def test_answers_that_do_not_fit_are_worded_too(study: Study, answers: dict[str, Any], words: str) -> None:
    with pytest.raises(AnswerError) as refused:
        study.protocol.check_answers("before", answers)
    assert problem_in(refused.value, "de").startswith(words)


def test_words_that_the_catalogue_lacks_are_told_in_general(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise StudyRequestError("cases/C001/photo.jpg: this file was changed")

    def broken(*_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Study, "view", refused)
    assert "C001" in ask(study, "resume", token="x")["problem"]
    assert ask(study, "resume", token="x", language="de")["problem"].startswith("Dies war nicht möglich")
    monkeypatch.setattr(Study, "view", broken)
    status, body = study_tab._as_json(study, study_tab.on_resume, {"token": "x", "language": "es"})
    assert status == 503 and "La base de datos del estudio no responde." in body.decode()


def test_a_pause_is_told_with_the_month_in_words(study: Study) -> None:
    when = datetime(2026, 3, 5, 9, 30)
    written = {code: Wording(study.bundle.protocol_in(code), code).moment(when) for code in languages()}
    assert written == {
        "en": "05 March 2026, 09:30 UTC",
        "de": "05. März 2026, 09:30 Uhr UTC",
        "es": "05 de marzo de 2026, 09:30 UTC",
    }


def test_letters_open_the_page_in_their_language(study: Study, tmp_path: Path) -> None:
    reader = study.enrol(1, "Here")
    letter = write_invitations(study, reader, tmp_path, "https://host/", "de")[0].read_text()
    assert f"https://host/#code={reader[0].code}&lang=de" in letter and "„Studie“" in letter
    assert "https://host/#lang=es" in write_reminders(study, tmp_path, "https://host/", "es")[0].read_text()


def test_a_page_in_one_language_offers_no_choice_and_one_in_three_a_form_in_each() -> None:
    assert "data-language" not in study_html.shell() and study_html.shell().count("<template") == 1
    shell = study_html.shell(("de", "en"))
    assert shell.count("<template") == 2 and shell.count('data-language="de"') == 2
    assert "Einen Moment." in shell and ">Deutsch</button>" in shell
    assert "Español" not in shell and "WIDERRUF" in unescape(shell)


def test_an_english_study_keeps_no_language(tmp_path: Path) -> None:
    with Study.open(tiny_study.build(tmp_path).folder) as study:
        token = study.sign_in(study.enrol(1, "Here")[0].code, language="de")
        assert "." not in token and study.view(token).language == "en"
        study.submit(token, "s001", {"consent": True}, "one", 1.0)
        assert not [
            event for event in study.store.events(study.name) if "language" in str(event.payload).split("plan")[0]
        ]
