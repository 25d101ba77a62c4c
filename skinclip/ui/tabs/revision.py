"""The clinician's corrections: the outline redrawn, findings struck out or added; both answers stay on the page."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from skinclip.imaging.photo import PhotoError
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.revision import Corrections, revise
from skinclip.ui import components
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs.assess_view import AssessView, Updates
from skinclip.ui.tabs.requests import parsed

MOST_POINTS = 400  # of an outline


def wire(page: ModelPage, view: AssessView) -> Any:
    """Wires the field of corrections; returns the event."""
    return view.revise.change(
        partial(on_revise, page.assessor, view),
        [view.revise, view.answer],
        [view.revision, view.answer],
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )


def on_revise(assessor: Assessor, view: AssessView, text: str | None, answer: AssessedPhoto | None) -> Updates:
    """The answer with the clinician's corrections beside the model's own; none where nothing is corrected."""
    if answer is None or answer.assessment.abstained:
        return gr.skip()
    try:
        corrections = corrections_of(parsed(text), answer)
        if corrections == Corrections():
            clinician = replace(answer.clinician, revision=None)
            empty = gr.update(value="", visible=False)
            return {view.revision: empty, view.answer: replace(answer, clinician=clinician)}
        revision = revise(assessor, answer.load(), answer.assessment, corrections)
    except (PhotoError, CheckpointError, ValueError) as problem:
        refusal = components.belonging(answer.assessment, components.error(str(problem), "This cannot be used"))
        return {view.revision: gr.update(value=refusal, visible=True)}
    answer = replace(answer, clinician=replace(answer.clinician, revision=revision))
    drawn = components.revised(answer.assessment, revision)
    return {view.revision: gr.update(value=drawn, visible=True), view.answer: answer}


def corrections_of(asked: dict[str, Any], answer: AssessedPhoto) -> Corrections:
    """Corrections from a request. Raises ValueError for values that cannot be used."""
    photo = answer.assessment.photo
    try:
        outline = tuple((float(x), float(y)) for x, y in asked.get("outline") or ())
        struck, added = (tuple(map(str, asked.get(name) or ())) for name in ("struck", "added"))
    except (TypeError, ValueError) as problem:
        raise ValueError("The outline could not be read. Draw it again.") from problem
    if outline and not (3 <= len(outline) <= MOST_POINTS and all(map(math.isfinite, sum(outline, ())))):
        raise ValueError(f"An outline has 3 to {MOST_POINTS} points. Draw it again.")
    inside = tuple((min(max(x, 0.0), photo.width), min(max(y, 0.0), photo.height)) for x, y in outline)
    return Corrections(inside, struck, added)
