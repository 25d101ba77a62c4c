"""Requests that the page's script makes about the answer on display: files, letter, settings, the first diagnosis.

The script writes a request as JSON into an unseen field, numbered so that the same request twice is a change; files and
letters come back in an unseen place from which it takes them. They are made when they are asked for, and not kept.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from skinclip.core.safe_text import one_line
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.settings import HIGHEST, LOWEST, Settings
from skinclip.reporting.assessment_pdf import assessment_pdf
from skinclip.reporting.letter import referral_letter
from skinclip.ui import components
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs import assess_updates
from skinclip.ui.tabs.assess_view import AssessView, Updates

LONGEST = 40  # characters of a case id


def wire(page: ModelPage, view: AssessView) -> Any:
    """Wires the field of requests; returns the event."""
    return view.request.change(
        partial(on_request, page.assessor, view),
        [view.request, view.answer, view.settings],
        [view.reply, view.settings, *view.outputs],
        api_visibility="private",
        show_progress="hidden",
    )


def parsed(text: str | None) -> dict[str, Any]:
    """A request as plain values; empty for anything else."""
    try:
        asked = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def on_request(
    assessor: Assessor, view: AssessView, text: str | None, answer: AssessedPhoto | None, settings: Settings
) -> Updates:
    """Answers a request about the answer on display; others, and those without an answer, change nothing."""
    asked = parsed(text)
    kind = asked.get("kind")
    if answer is None or kind not in ("pdf", "json", "letter", "settings", "reset-settings", "first"):
        return gr.skip()
    if kind == "first":
        return _first(view, answer, asked.get("code"))
    if kind in ("settings", "reset-settings"):
        settings = Settings() if kind == "reset-settings" else changed(settings, asked)
        return _settings(view, answer.at(settings, assessor))
    case, date = one_line(str(asked.get("case", "")))[:LONGEST], day(asked.get("date"))
    answer = replace(answer, clinician=replace(answer.clinician, case_id=case, date=date))
    return {view.reply: _made(answer, kind, _whole(asked.get("number"))), view.answer: answer}


def _whole(value: Any) -> int:
    """The number of a request, by which the page knows its reply; 0 for anything else."""
    return value if isinstance(value, int) and abs(value) < 2**53 else 0


def day(text: Any) -> str:
    """A day as ISO 8601; "" for anything else."""
    try:
        return datetime.date.fromisoformat(str(text)).isoformat()
    except ValueError:
        return ""


def changed(settings: Settings, asked: dict[str, Any]) -> Settings:
    """The settings with the values that a request names, each kept within its bounds."""
    for name in ("threshold", "prevalence"):
        value = asked.get(name)
        if isinstance(value, int | float):
            settings = replace(settings, **{name: min(HIGHEST, max(LOWEST, float(value) / 100))})
    return settings


def _made(answer: AssessedPhoto, kind: str, number: int) -> Any:
    if kind == "letter":
        return components.letter_reply(number, referral_letter(answer.exported))
    record = answer.exported
    data = assessment_pdf(record, *answer.pictures) if kind == "pdf" else record.to_json().encode()
    return components.reply(kind, number, f"skinclip-{record.photo.sha256[:8]}.{kind}", data)


def _settings(view: AssessView, answer: AssessedPhoto) -> Updates:
    """The verdict and the differential at other settings; the rest of the page stays."""
    figures = assess_updates.figures(view, answer)
    figures.pop(view.figures)
    return {**figures, view.settings: answer.settings, view.answer: answer}


def _first(view: AssessView, answer: AssessedPhoto, code: Any) -> Updates:
    """Shows the answer once the clinician has given one of their own."""
    if code not in DIAGNOSIS_CODES or answer.clinician.first_diagnosis is not None:
        return gr.skip()
    agrees = code == answer.shown.diagnosis[0].code
    answer = replace(answer, clinician=replace(answer.clinician, first_diagnosis=code, agrees=agrees))
    agreement = components.agreement(answer.shown, code, agrees)
    return {**assess_updates.filled(view, answer), view.agreement: gr.update(value=agreement, visible=True)}
