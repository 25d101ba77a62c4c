"""What would change the answer: the checklist edited by hand, and a finding's region taken out of the photo.

A folded panel under the result of the Assess tab. It asks the model again, with the photo that is on the page; the
Assessment itself stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from skinclip.core.assessment import Assessment
from skinclip.core.vocabulary import CRITERIA
from skinclip.explain.counterfactual import what_if, without_region
from skinclip.imaging.photo import LesionImage, PhotoError, load_photo
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components

AS_SEEN, NOTHING = "as seen", "nothing"
Updates = dict[Any, Any]


@dataclass(frozen=True)
class Panel:
    box: gr.Accordion
    criteria: tuple[gr.Dropdown, ...]  # in the order of `vocabulary.CRITERIA`
    region: gr.Dropdown
    answer: gr.HTML

    @property
    def all(self) -> list[Any]:
        """What an assessment sets back."""
        return [self.box, *self.criteria, self.region, self.answer]


def build() -> Panel:
    """Lays the panel out, hidden until there is an answer."""
    with gr.Accordion("What would change this answer?", open=False, visible=False, elem_id="change") as box:
        gr.HTML(components.CHANGE_NOTE)
        with gr.Row(elem_classes="sk-checklist"):
            criteria = tuple(
                gr.Dropdown([AS_SEEN], value=AS_SEEN, label=c.name.capitalize(), min_width=150, elem_id=f"if-{c.code}")
                for c in CRITERIA
            )
            region = gr.Dropdown(
                [NOTHING], value=NOTHING, label="Take out of the photo", min_width=150, elem_id="without"
            )
        answer = gr.HTML(elem_id="changed")
    return Panel(box, criteria, region, answer)


def wire(assessor: Assessor, panel: Panel, photo: gr.State, shown: gr.State) -> None:
    """Every choice asks the model at once; `photo` and `shown` are the Assess tab's state."""
    for field in (*panel.criteria, panel.region):
        field.input(
            partial(on_change, assessor, panel),
            [photo, shown, *panel.criteria, panel.region],
            [panel.answer],
            concurrency_id="model",
            concurrency_limit=1,
            api_visibility="private",
            show_progress_on=panel.answer,
            trigger_mode="always_last",
        )


def on_change(
    assessor: Assessor, panel: Panel, photo: bytes | None, shown: Any, *chosen: str
) -> Updates:  # `shown`: assess_tab.Shown
    """The answer to the photo with the choices made: criteria in their order, then the region."""
    if photo is None or shown is None or shown.assessment.abstained:
        return {panel.answer: ""}
    assessment: Assessment = shown.assessment
    edits = {c.code: label for c, label in zip(CRITERIA, chosen, strict=False) if label != AS_SEEN}
    ref = chosen[len(CRITERIA)]
    if not edits and ref == NOTHING:
        return {panel.answer: ""}
    try:
        image = load_photo(photo)
        with assessor.using(assessment.model.weights_sha256):
            return {panel.answer: "".join(_answers(assessor, image, assessment, edits, ref))}
    except (PhotoError, CheckpointError) as problem:
        return {panel.answer: components.error(str(problem))}


def _answers(
    assessor: Assessor, image: LesionImage, assessment: Assessment, edits: dict[str, str], ref: str
) -> list[str]:
    """The model's answer without the region `ref`, then with the checklist as edited, as far as there is a choice."""
    seen = assessor.forward([image], [assessment.context])
    parts = []
    if ref != NOTHING:
        finding = next(f for f in assessment.findings if f.ref == ref)
        without = without_region(assessor.predictor, image, assessment.context, seen, finding.region)
        parts.append(
            components.changed(
                assessment,
                without.calibrated.probabilities[0],
                float(without.calibrated.malignancy[0]),
                f"Without the region of “{components.phrase(finding)}”, filled in from its surroundings",
                without.pixels,
            )
        )
    if edits:
        t = what_if(assessor.predictor, seen, assessment.context, edits)
        heading = "With the checklist as you set it"
        parts.append(components.changed(assessment, t.probabilities[0], float(t.malignancy[0]), heading))
    return parts


def fresh(panel: Panel, assessment: Assessment) -> Updates:
    """The panel for a new Assessment: nothing changed yet, each criterion with what the model saw of it."""
    if assessment.abstained:
        return hidden(panel)
    criteria = {
        field: gr.update(choices=_options(assessment.criteria[c.code]), value=AS_SEEN)
        for field, c in zip(panel.criteria, CRITERIA, strict=True)
    }
    findings = [(f"{f.ref[1:]} {components.phrase(f)}", f.ref) for f in assessment.findings]
    return {
        panel.box: gr.update(visible=True, open=False),
        **criteria,
        panel.region: gr.update(choices=[("nothing", NOTHING), *findings], value=NOTHING),
        panel.answer: "",
    }


def hidden(panel: Panel) -> Updates:
    return {
        panel.box: gr.update(visible=False, open=False),
        **{field: gr.update(choices=[AS_SEEN], value=AS_SEEN) for field in panel.criteria},
        panel.region: gr.update(choices=[NOTHING], value=NOTHING),
        panel.answer: "",
    }


def _options(seen: dict[str, float]) -> list[tuple[str, str]]:
    """(label, state) of a criterion: as seen first, with the state that the model holds likeliest."""
    likeliest = max(seen, key=lambda label: seen[label])
    return [(f"as seen: {likeliest} ({seen[likeliest]:.0%})", AS_SEEN), *((label, label) for label in seen)]
