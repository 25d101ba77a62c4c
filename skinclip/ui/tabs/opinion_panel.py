"""A second opinion on the regions: Qwen2.5-VL itself, asked where each finding is. For presets with its vision tower.

A folded panel under the result of the Assess tab, asked on demand: it takes an answer of its own for each finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from skinclip.core.assessment import Assessment
from skinclip.explain.grounding import second_opinions
from skinclip.imaging.overlay import boxes_overlay
from skinclip.imaging.photo import PhotoError, load_photo
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components

Updates = dict[Any, Any]


@dataclass(frozen=True)
class OpinionPanel:
    box: gr.Accordion
    button: gr.Button
    answer: gr.HTML

    @property
    def all(self) -> list[Any]:
        """What an assessment sets back."""
        return [self.box, self.answer]


def build() -> OpinionPanel:
    """Lays the panel out, hidden until there is an answer."""
    with gr.Accordion("A second opinion on the regions", open=False, visible=False, elem_id="opinion") as box:
        gr.HTML(components.OPINION_NOTE)
        button = gr.Button("Ask Qwen2.5-VL", size="sm", elem_id="ask-opinion")
        answer = gr.HTML(elem_id="second-opinion")
    return OpinionPanel(box, button, answer)


def wire(assessor: Assessor, panel: OpinionPanel, photo: gr.State, shown: gr.State) -> None:
    """`photo` and `shown` are the Assess tab's state."""
    panel.button.click(
        partial(on_ask, assessor, panel),
        [photo, shown],
        [panel.answer],
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
        show_progress_on=panel.answer,
    )


def on_ask(assessor: Assessor, panel: OpinionPanel, photo: bytes | None, shown: Any) -> Updates:
    """What Qwen2.5-VL says of the findings on the page; `shown` is an `assess_tab.Shown`."""
    if photo is None or shown is None or shown.assessment.abstained:
        return {panel.answer: ""}
    assessment: Assessment = shown.assessment
    try:
        image = load_photo(photo)
        with assessor.using(assessment.model.weights_sha256):
            found = second_opinions(assessor.predictor, image, assessment)
    except (PhotoError, CheckpointError) as problem:
        return {panel.answer: components.error(str(problem))}
    boxes = {opinion.reference: opinion.boxes for opinion in found}
    drawn = boxes_overlay(shown.pixels, assessment, boxes) if any(boxes.values()) else None
    return {panel.answer: components.second_opinion(assessment, found, drawn)}


def fresh(panel: OpinionPanel | None, assessment: Assessment) -> Updates:
    """The panel for a new Assessment, not asked yet."""
    if panel is None:
        return {}
    return {panel.box: gr.update(visible=not assessment.abstained, open=False), panel.answer: ""}


def hidden(panel: OpinionPanel | None) -> Updates:
    return {} if panel is None else {panel.box: gr.update(visible=False, open=False), panel.answer: ""}
