"""Panel "What would change this answer?": the checklist edited by hand, and a finding's region taken out of the photo.

A folded panel under the result of the Assess tab. It asks the model again, with the photo of the answer on display;
the Assessment itself stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from markupsafe import Markup

from skinclip.calibration.calibrated_model import CalibratedOutput
from skinclip.core.assessment import Assessment, Finding
from skinclip.core.formatting import per_cent
from skinclip.core.vocabulary import CRITERIA
from skinclip.explain.counterfactual import what_if, without_region
from skinclip.imaging.photo import LesionImage, PhotoError
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AssessedPhoto

AS_SEEN, NOTHING = "as seen", "nothing"
Updates = dict[Any, Any]


@dataclass(frozen=True)
class ChangePanel:
    """The panel's components."""

    box: gr.Accordion
    criteria: tuple[gr.Dropdown, ...]  # in the order of `vocabulary.CRITERIA`
    region: gr.Dropdown
    answer: gr.HTML

    @property
    def all(self) -> list[Any]:
        """Components that an assessment resets."""
        return [self.box, *self.criteria, self.region, self.answer]


def build() -> ChangePanel:
    """Lays the panel out, hidden until there is an answer."""
    with gr.Accordion("What would change this answer?", open=False, visible=False, elem_id="change") as box:
        gr.HTML(components.CHANGE_NOTE)
        with gr.Row(elem_classes="sk-checklist"):
            criteria = tuple(
                gr.Dropdown([AS_SEEN], value=AS_SEEN, label=c.name.capitalize(), min_width=150, elem_id=f"if-{c.code}")
                for c in CRITERIA
            )
            region = gr.Dropdown(
                [NOTHING], value=NOTHING, label="Remove from the photo", min_width=150, elem_id="without"
            )
        answer = gr.HTML(elem_id="changed")
    return ChangePanel(box, criteria, region, answer)


def wire(page: ModelPage, panel: ChangePanel) -> list[Any]:
    """Wires every field to ask the model at once; returns the events."""
    return [
        field.input(
            partial(on_change, page.assessor, panel),
            [page.answer, *panel.criteria, panel.region],
            [panel.answer],
            concurrency_id="model",
            concurrency_limit=1,
            api_visibility="private",
            show_progress_on=panel.answer,
            trigger_mode="always_last",
        )
        for field in (*panel.criteria, panel.region)
    ]


def on_change(assessor: Assessor, panel: ChangePanel, answer: AssessedPhoto | None, *chosen: str) -> Updates:
    """The answer to the photo with the choices made: criteria in their order, then the region."""
    if answer is None or answer.assessment.abstained:
        return {panel.answer: ""}
    assessment = answer.assessment
    edits = {c.code: label for c, label in zip(CRITERIA, chosen, strict=False) if label != AS_SEEN}
    finding = next((f for f in assessment.findings if f.ref == chosen[len(CRITERIA)]), None)
    if not edits and finding is None:
        return {panel.answer: ""}
    try:
        image, other = answer.load()
        with assessor.using(assessment.model.weights_sha256):
            output = assessor.forward([image], [assessment.context], [other])
            parts = _answers(assessor, image, output, assessment, edits, finding)
    except (PhotoError, CheckpointError) as problem:
        return {panel.answer: components.error(str(problem))}
    return {panel.answer: components.belonging(assessment, Markup("").join(parts))}


def _answers(
    assessor: Assessor,
    image: LesionImage,
    output: CalibratedOutput,
    assessment: Assessment,
    edits: dict[str, str],
    finding: Finding | None,
) -> list[Markup]:
    """The model's answer without the region of `finding`, and with the checklist as edited, where there is either."""
    parts = []
    if finding is not None:
        without = without_region(assessor.predictor, image, assessment.context, output, finding.region)
        parts.append(
            components.changed(
                assessment,
                without.calibrated.probabilities[0],
                float(without.calibrated.malignancy[0]),
                without.calibrated.sets[0],
                f"Without the region of “{components.phrase(finding)}”, its structures blurred",
                without.pixels,
            )
        )
    if edits:
        t = what_if(assessor.predictor, output, assessment.context, edits)
        heading = "With the checklist as you set it"
        parts.append(components.changed(assessment, t.probabilities[0], float(t.malignancy[0]), t.sets[0], heading))
    return parts


def fresh(panel: ChangePanel, assessment: Assessment) -> Updates:
    """The panel for a new Assessment: nothing changed yet, each criterion that is known with what was seen of it."""
    if assessment.abstained:
        return hidden(panel)
    known = assessment.criteria
    criteria = {
        field: gr.update(choices=_options(assessment.criteria.get(c.code, {})), value=AS_SEEN, visible=c.code in known)
        for field, c in zip(panel.criteria, CRITERIA, strict=True)
    }
    findings = [(f"{f.ref[1:]} {components.phrase(f)}", f.ref) for f in assessment.findings]
    return {
        panel.box: gr.update(visible=True, open=False),
        **criteria,
        panel.region: gr.update(choices=[("nothing", NOTHING), *findings], value=NOTHING),
        panel.answer: "",
    }


def hidden(panel: ChangePanel) -> Updates:
    """The panel without an answer."""
    return {
        panel.box: gr.update(visible=False, open=False),
        **{field: gr.update(choices=[AS_SEEN], value=AS_SEEN) for field in panel.criteria},
        panel.region: gr.update(choices=[NOTHING], value=NOTHING),
        panel.answer: "",
    }


def _options(probabilities: dict[str, float]) -> list[tuple[str, str]]:
    """(label, state) of a criterion: as seen first, with the state that the model holds likeliest, if it knows any."""
    if not probabilities:
        return [(AS_SEEN, AS_SEEN)]
    likeliest = max(probabilities, key=lambda label: probabilities[label])
    return [
        (f"as seen: {likeliest} ({per_cent(probabilities[likeliest])})", AS_SEEN),
        *((label, label) for label in probabilities),
    ]
