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
from skinclip.imaging.photo import PhotoError
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AssessedPhoto

Updates = dict[Any, Any]


@dataclass(frozen=True)
class OpinionPanel:
    """The panel's components."""

    box: gr.Accordion
    button: gr.Button
    answer: gr.HTML

    @property
    def all(self) -> list[Any]:
        """Components that an assessment resets."""
        return [self.box, self.answer]


def build() -> OpinionPanel:
    """Lays the panel out, hidden until there is an answer."""
    with gr.Accordion("A second opinion on the regions", open=False, visible=False, elem_id="opinion") as box:
        gr.HTML(components.OPINION_NOTE)
        button = gr.Button("Ask Qwen2.5-VL", size="sm", elem_id="ask-opinion")
        answer = gr.HTML(elem_id="second-opinion")
    return OpinionPanel(box, button, answer)


def wire(page: ModelPage, panel: OpinionPanel) -> Any:
    """Wires the button; returns the event."""
    return panel.button.click(
        partial(on_ask, page.assessor, panel),
        [page.answer],
        [panel.answer],
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
        show_progress_on=panel.answer,
    )


def on_ask(assessor: Assessor, panel: OpinionPanel, answer: AssessedPhoto | None) -> Updates:
    """Asks Qwen2.5-VL about the findings of the answer on display."""
    if answer is None or answer.assessment.abstained:
        return {panel.answer: ""}
    assessment = answer.assessment
    try:
        image, _ = answer.load()  # it is asked about the photo that regions are drawn in
        with assessor.using(assessment.model.weights_sha256):
            opinions = second_opinions(assessor.predictor, image, assessment)
    except (PhotoError, CheckpointError) as problem:
        return {panel.answer: components.error(str(problem))}
    boxes = {opinion.reference: opinion.boxes for opinion in opinions}
    drawn = boxes_overlay(answer.pixels, assessment, boxes) if any(boxes.values()) else None
    html = components.second_opinion(assessment, opinions, drawn)
    return {panel.answer: components.belonging(assessment, html)}


def fresh(panel: OpinionPanel | None, assessment: Assessment) -> Updates:
    """The panel for a new Assessment, not asked yet."""
    if panel is None:
        return {}
    return {panel.box: gr.update(visible=not assessment.abstained, open=False), panel.answer: ""}


def hidden(panel: OpinionPanel | None) -> Updates:
    """The panel without an answer."""
    return {} if panel is None else {panel.box: gr.update(visible=False, open=False), panel.answer: ""}
