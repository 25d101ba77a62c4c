"""Layout of the Assess tab: the form on the left, the answer on the right; the components that handlers fill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from skinclip.core.vocabulary import SEXES, SITES
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.answer import adapters
from skinclip.ui.page import ModelPage
from skinclip.ui.state import NOT_GIVEN
from skinclip.ui.tabs import change_panel, opinion_panel
from skinclip.ui.tabs.change_panel import ChangePanel
from skinclip.ui.tabs.opinion_panel import OpinionPanel
from skinclip.ui.tabs.other_photo import OtherSlot, build_kind, build_slot
from skinclip.ui.tabs.photo_field import build_example_buttons

Updates = dict[Any, Any]


@dataclass(frozen=True)
class AssessView:
    """The tab's components, and its state: the photo file's bytes, the entries at the last Assess, and the answer.

    `uploaded`, `refusal`, `request` and `revise` are unseen: the browser writes into them the name of a file that it
    has sent, what it refuses, what it asks for, and what the clinician corrects. `reply` is unseen too: files and
    letters that the browser takes from it. The place of the other photo is `slot`.
    """

    drop: gr.HTML
    uploaded: gr.Textbox
    refusal: gr.Textbox
    request: gr.Textbox
    revise: gr.Textbox
    reply: gr.HTML
    preview: gr.HTML
    kind: gr.Dropdown
    slot: OtherSlot
    age: gr.Textbox
    sex: gr.Dropdown
    site: gr.Dropdown
    adapter: gr.Dropdown
    first: gr.Checkbox
    button: gr.Button
    stop: gr.Button
    outdated: gr.Column
    outdated_note: gr.HTML
    update: gr.Button
    result: gr.HTML
    agreement: gr.HTML
    figures: gr.HTML
    heat: gr.HTML
    side: gr.HTML
    rationale: gr.HTML
    revision: gr.HTML
    download: gr.HTML
    panel: ChangePanel
    opinion: OpinionPanel | None  # None where the model has no vision tower of Qwen's
    photo: gr.State
    edit: gr.State
    other: gr.State
    other_edit: gr.State
    recognised: gr.State
    entries: gr.State
    answer: gr.State
    settings: gr.State

    @property
    def form(self) -> list[Any]:
        """The entries that an answer depends on, besides the photos."""
        return [self.age, self.sex, self.site, self.adapter, self.kind, self.slot.kind]

    @property
    def photos(self) -> list[gr.State]:
        """The photos in the form."""
        return [self.photo, self.other]

    @property
    def kinds(self) -> list[Any]:
        """Components that say of what kind the photos are."""
        return [self.kind, self.slot.kind, self.slot.note, self.recognised]

    @property
    def pieces(self) -> list[gr.HTML]:
        """The parts of an answer below the verdict."""
        return [self.agreement, self.figures, self.heat, self.side, self.rationale, self.revision, self.download]

    @property
    def outputs(self) -> list[Any]:
        """Components that an assessment fills."""
        opinion = [] if self.opinion is None else self.opinion.all
        mark = [self.outdated, self.outdated_note]
        return [*mark, self.result, *self.pieces, *self.panel.all, *opinion, self.entries, self.answer]

    @property
    def photo_outputs(self) -> list[Any]:
        """Components that a new photo fills or clears."""
        own = [self.preview, self.photo, self.edit, self.slot.preview, self.other, self.other_edit, *self.kinds]
        return [*own, self.button, self.stop, *self.outputs]


def build_view(page: ModelPage) -> tuple[AssessView, list[tuple[gr.Button, Path]]]:
    """Lays the tab out inside the current Blocks; the view, and one button for each example photo."""
    assessor = page.assessor
    with gr.Row(equal_height=False, elem_classes="sk-page"):
        with gr.Column(scale=3, min_width=280, elem_id="form", elem_classes="sk-form"):
            drop = gr.HTML(components.DROP_ZONE, elem_id="photo")
            names = ("uploaded", "refusal", "request", "revise")
            unseen: dict[str, Any] = {n: gr.Textbox(visible="hidden", elem_id=n, label=n) for n in names}
            reply = gr.HTML(elem_id="reply")
            preview = gr.HTML(components.FORMATS, elem_id="preview")
            kind = build_kind("kind", "Kind of photo")
            slot = build_slot()
            form = _build_form(assessor)
            first = gr.Checkbox(label="My diagnosis first: hide the answer until I give mine", elem_id="first-mode")
            with gr.Row(elem_classes="sk-act"):
                button = gr.Button("Assess", variant="primary", size="lg", elem_id="assess")
                stop = gr.Button("Cancel", visible=False, size="lg", elem_id="stop")
            with gr.Column(elem_id="examples", elem_classes="sk-form"):
                examples = build_example_buttons()
        with gr.Column(scale=9, min_width=320, elem_id="answer"):
            answer_part = _build_answer(assessor)
    held = ("photo", "edit", "other", "other_edit", "recognised", "entries", "answer", "settings")
    state = {name: getattr(page, name) for name in held}
    form_part = dict(zip(("age", "sex", "site", "adapter"), form, strict=True))
    view = AssessView(
        drop=drop, reply=reply, preview=preview, kind=kind, slot=slot, first=first, button=button, stop=stop,
        **unseen, **form_part, **answer_part, **state,
    )  # fmt: skip
    return view, examples


def _build_form(assessor: Assessor) -> tuple[Any, ...]:
    """Age, sex, body site, and the model where there are several."""
    gr.HTML(components.PATIENT_HEADING, elem_classes="sk-tight")
    with gr.Row(elem_classes="sk-pair"):
        age = gr.Textbox(label="Age", placeholder="years", max_lines=1, min_width=110, elem_id="age")
        sex = gr.Dropdown([NOT_GIVEN, *SEXES], value=NOT_GIVEN, label="Sex", min_width=110, elem_id="sex")
    site = gr.Dropdown([NOT_GIVEN, *SITES], value=NOT_GIVEN, label="Body site", elem_id="site")
    offered = adapters(assessor)
    chosen = assessor.model_info.weights_sha256 if offered else None
    adapter = gr.Dropdown(offered, value=chosen, label="Model", visible=len(offered) > 1, elem_id="adapter")
    return age, sex, site, adapter


def _build_answer(assessor: Assessor) -> dict[str, Any]:
    """The answer's components by their names in `AssessView`."""
    with gr.Column(visible=False, elem_id="outdated") as outdated:
        note = gr.HTML(elem_id="outdated-note")
        update = gr.Button("Update the answer", size="md", elem_id="update")
    result = gr.HTML(components.EMPTY, elem_id="result")
    names = ("agreement", "figures", "heat", "side", "rationale", "revision", "download")
    pieces = {name: gr.HTML(visible=name == "heat", elem_id=name) for name in names}
    panel = change_panel.build()
    opinion = opinion_panel.build() if assessor.config.reasoner.own_vision else None
    named = {"outdated": outdated, "outdated_note": note, "update": update, "result": result, **pieces}
    return {**named, "panel": panel, "opinion": opinion}
