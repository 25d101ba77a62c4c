"""The tab that lays all explanations of one photo over each other: a divider between two of them, findings one by one.

All layers are part of the page once computed; choosing, dividing, fading and zooming happen in the browser
(`assets/viewer.js`, `assets/compare.js`), and the keyboard does all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
from markupsafe import Markup

from skinclip.core.assessment import Assessment
from skinclip.explain import measured
from skinclip.explain.methods import METHODS, OWN, USUAL
from skinclip.explain.subject import on_photo
from skinclip.imaging.photo import PhotoError
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.answer import heat_layer
from skinclip.ui.background_task import BackgroundTask, TaskStopped
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.templating import data_url, macro
from skinclip.ui.viewer_html import drawn_findings, points

LEFT, RIGHT = OWN, USUAL
WHOLE = "evidence_whole"  # the evidence as heat: what the benchmarks measure; its regions are outlines
TITLES = {WHOLE: "Evidence, weighed"}
READS = {
    WHOLE: "The regions of all criteria, cited or not, each by how far the diagnosis drops without it and holds by it "
    "alone."
}
NOTHING_YET = components.notice(
    "Nothing to compare yet", "Assess a photo first; its explanations can then be compared here."
)
COMPUTING = components.computing("The explanations of this photo are being computed")
ABSTAINED = components.notice(
    "Nothing to compare", "The model abstained on this photo, so there is no diagnosis to explain."
)
Updates = dict[Any, Any]


@dataclass(frozen=True)
class CompareView:
    """The tab's components and state."""

    stage: gr.HTML
    done: gr.State  # key of the answer whose layers are on the page


def build(page: ModelPage, tab: gr.Tab) -> CompareView:
    """Lays the tab out inside `tab`; its layers are made when it is opened."""
    stage = gr.HTML(NOTHING_YET, elem_id="compare")
    view = CompareView(stage, gr.State(None))

    # Gradio gives the request to functions alone that ask for it by their annotation
    def open_tab(
        answer: AssessedPhoto | None,
        done: str | None,
        request: gr.Request,
    ) -> Generator[Updates]:
        with page.tasks.of(request.session_hash) as begin:
            yield from on_open(page.assessor, view, answer, done, begin)

    tab.select(
        partial(on_select, view),
        [page.answer, view.done],
        [view.stage, view.done],
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )
    opened = tab.select(
        open_tab,
        [page.answer, view.done],
        [view.stage, view.done],
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
        show_progress="hidden",
    )
    page.answer_events.append(opened)
    return view


def on_select(view: CompareView, answer: AssessedPhoto | None, done: str | None) -> Updates:
    """Clears the layers of an answer before at once, without waiting for the model."""
    if answer is None:
        return {view.stage: NOTHING_YET, view.done: None}
    if answer.assessment.abstained:
        return {view.stage: ABSTAINED, view.done: None}
    return gr.skip() if answer.key == done else {view.stage: COMPUTING, view.done: None}


def on_open(
    assessor: Assessor,
    view: CompareView,
    answer: AssessedPhoto | None,
    done: str | None,
    begin: Callable[[BackgroundTask], None] = lambda task: None,
) -> Generator[Updates]:
    """Makes the layers of the answer on display, once; ends when its photo is replaced.

    Args:
        begin: called with the task before it starts, so that it can be stopped.
    """
    if answer is None or answer.assessment.abstained or answer.key == done:
        yield gr.skip()  # not nothing: Gradio would empty the outputs
        return

    def work(report: Callable[[tuple[float, str] | dict[str, np.ndarray]], None]) -> dict[str, np.ndarray]:
        with assessor.using(answer.assessment.model.weights_sha256):
            return layers(assessor, answer, lambda share, what: report((share, what)))

    task: BackgroundTask[tuple[float, str] | dict[str, np.ndarray]] = BackgroundTask(work)
    begin(task)
    try:
        for report in task:
            if isinstance(report, tuple):
                yield {view.stage: components.computing(f"Computing: {report[1]}"), view.done: None}
            else:
                html = components.belonging(answer.assessment, compare(answer.assessment, answer.picture, report))
                yield {view.stage: html, view.done: answer.key}
    except TaskStopped:
        yield gr.skip()
    except (PhotoError, CheckpointError) as problem:
        yield {view.stage: components.error(str(problem)), view.done: None}


def layers(assessor: Assessor, answer: AssessedPhoto, tell: Callable[[float, str], None]) -> dict[str, np.ndarray]:
    """Layer -> map of the leading diagnosis [H, W] in 0..1.

    A method that this model or installation has not is left out. Raises PhotoError.
    """
    assessment = answer.assessment
    image, other = answer.load()
    subject = assessor.subject(image, assessment.context, assessment.diagnosis[0].code, other)
    heats = {}
    for i, method in enumerate(METHODS.values()):
        tell((i + 1) / (len(METHODS) + 1), method.title)
        try:
            heats[WHOLE if method.key == LEFT else method.key] = on_photo(method.maps(subject)[0].heat, subject)
        except (NotImplementedError, CheckpointError):
            continue
    return heats


def compare(assessment: Assessment, picture: bytes, heats: dict[str, np.ndarray]) -> Markup:
    """The whole tab as HTML, evidence on the left of the divider and Grad-CAM on its right.

    Args:
        picture: the photo at the size displayed, JPEG.
        heats: layer -> map, as `layers` gives them.
    """
    keys = [LEFT, *heats]
    right = RIGHT if RIGHT in heats else LEFT
    return macro(
        "compare.html",
        "stage",
        leading=assessment.diagnosis[0],
        made=components.made_for(assessment),
        keys=keys,
        titles={key: title(key) for key in keys},
        right=right,
        photo=data_url(picture),
        layers=[{"key": key, "address": data_url(heat_layer(heat), "image/png")} for key, heat in heats.items()],
        width=assessment.photo.width,
        height=assessment.photo.height,
        lesion=points(assessment.lesion.polygons),
        findings=drawn_findings(assessment, assessment.findings),
        explained=[_explained(key, key in (LEFT, right)) for key in keys],
    )


def title(key: str) -> str:
    """Name of a layer."""
    return TITLES.get(key) or METHODS[key].title


def _explained(key: str, open_now: bool) -> dict[str, Any]:
    """How a layer is read, and its measured figures."""
    figures = measured.summary(LEFT if key == WHOLE else key)
    if key == LEFT and figures:  # outlines have no order of places to be followed; their figures are those of the heat
        figures = f"Its figures are those of “{TITLES[WHOLE]}”. {measured.cited()}"
    caption = READS.get(key) or METHODS[key].caption
    experts = measured.experts(LEFT if key == WHOLE else key)
    return {"key": key, "open": open_now, "caption": caption, "figures": figures, "experts": experts}
