"""Hostile texts through the page's fields and exports: they arrive as text, or are refused in words."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pypdfium2
import pytest
from markupsafe import escape

from skinclip.core.assessment import Assessment, Context
from skinclip.core.safe_text import plain_text
from skinclip.imaging.photo import PhotoError, encode_jpeg
from skinclip.pipeline.settings import Settings
from skinclip.reporting.assessment_pdf import assessment_pdf
from skinclip.reporting.letter import referral_letter
from skinclip.ui import components
from skinclip.ui.guard.quiet_log import describe
from skinclip.ui.state import AssessedPhoto, context_of, describe_context
from skinclip.ui.tabs.requests import LONGEST, on_request
from tests.hostile_texts import TEXTS
from tests.ui.guard.gated import call, gated, visitor


@pytest.mark.parametrize("text", TEXTS)
def test_an_age_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(PhotoError) as refused:
        context_of(text + "!", None, None)
    assert text not in str(refused.value)


@pytest.mark.parametrize("text", TEXTS)
def test_the_page_shows_hostile_text_as_text(made_up: Assessment, text: str) -> None:
    """Entries, the model's rationale and names of models: everything that a template fills in."""
    hostile = dataclasses.replace(made_up, rationale=f"{text} [r1] {text}", context=Context(None, None, text))
    parts = [
        components.error(text, text),
        components.notice(text, text),
        components.result(hostile),
        components.side(hostile),
        components.rationale(hostile, made_by=text),
        components.outdated(text, text),
        components.made_for(hostile, text),
        components.letter_reply(1, text),
        components.footer(dataclasses.replace(made_up.model, preset=text)),
    ]
    for html in map(str, parts):
        assert not re.search(r"<(script|img src=x|svg/)", html, re.IGNORECASE)
        assert 'href="javascript:' not in html and "__subclasses__" not in html.replace("__subclasses__()", "")
    assert str(escape(text)) in str(parts[0]) or not text.isprintable()
    assert describe_context(hostile.context)


@pytest.mark.parametrize("text", [t for t in TEXTS if "\ud800" not in t])
def test_json_and_pdf_keep_it_as_text(made_up: Assessment, text: str) -> None:
    hostile = dataclasses.replace(made_up, rationale=text)
    again = Assessment.from_json(hostile.to_json())
    assert again.rationale == text
    assert "\n" not in json.dumps(text)


@pytest.mark.parametrize("text", TEXTS)
def test_the_hand_over_takes_any_case_as_one_line(made_up: Assessment, text: str) -> None:
    """The letter, the record and the printed page of a case that is called so."""
    record = dataclasses.replace(made_up, rationale=text.encode("utf-8", "ignore").decode())
    answer = AssessedPhoto(b"", record, encode_jpeg(np.zeros((120, 160, 3), np.uint8)), None)
    for kind in ("letter", "json", "pdf"):
        asked = json.dumps({"kind": kind, "case": text, "date": text, "number": text})
        view = SimpleNamespace(reply="reply", answer="answer")
        updates = on_request(None, view, asked, answer, Settings())  # type: ignore[arg-type]
        case = updates["answer"].clinician.case_id
        assert case == " ".join(plain_text(text).split())[:LONGEST] and updates["answer"].clinician.date == ""
        assert not re.search(r"<(script|img src=x|svg/)", str(updates["reply"]), re.IGNORECASE)
    letter = referral_letter(updates["answer"].exported)
    assert letter.splitlines()[0].startswith(f"Case: {case or '________'}")
    assert not set("\r\0\x0b\x0c\x1b\x85") & set(letter)


@pytest.mark.parametrize("sent", ["", "[", "[" * 200_000, "null", '{"kind": ["pdf"]}', '{"kind": "first", "code": []}'])
def test_a_request_that_is_none_changes_nothing(made_up: Assessment, sent: str) -> None:
    answer = AssessedPhoto(b"", made_up, b"", None)
    view = SimpleNamespace(reply="reply", answer="answer")
    assert on_request(None, view, sent, answer, Settings()) == gr.skip()  # type: ignore[arg-type]


def test_the_pdf_of_hostile_text_opens(made_up: Assessment) -> None:
    for text in TEXTS:
        pdf = assessment_pdf(dataclasses.replace(made_up, rationale=text), np.zeros((120, 160, 3), np.uint8))
        assert b"/JavaScript" not in pdf and b"/OpenAction" not in pdf.replace(b"/OpenAction [", b"")
        with pypdfium2.PdfDocument(pdf) as document:
            assert len(document) >= 1


@pytest.mark.filterwarnings("ignore:A `<script>` tag was found")  # by Gradio, of our echo
def test_a_page_takes_it_as_text_and_logs_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    client = visitor(gated()[1])
    with caplog.at_level(logging.DEBUG, "skinclip"):
        for text in TEXTS:
            if "\ud800" in text:
                continue
            reply = client.post("/gradio_api/run/predict", json=call(data=[text]))
            assert reply.status_code == 200 and reply.json()["data"][0] == f"<b>{text}</b>"
    assert caplog.text == ""


def test_a_fault_with_hostile_words_leaves_one_honest_record() -> None:
    for text in TEXTS:
        words = describe(ValueError(text))
        assert words == "ValueError"
