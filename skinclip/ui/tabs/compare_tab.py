"""The tab that lays all explanations of one photo over each other: a divider between two of them, findings one by one.

All layers are part of the page once computed; choosing, dividing, fading and zooming happen in the browser
(`assets/page.js`), by native fields, so that the keyboard does all of it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import cv2
import gradio as gr
import numpy as np

from skinclip.core.assessment import Assessment, Polygon
from skinclip.explain import measured
from skinclip.explain.methods import METHODS, OWN, USUAL
from skinclip.explain.subject import on_photo
from skinclip.imaging.overlay import heat_rgba, hex_colour, ink_of, number_places
from skinclip.imaging.photo import PhotoError, load_photo
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.background_task import BackgroundTask, TaskStopped
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AssessedPhoto

LEFT, RIGHT = OWN, USUAL
WHOLE = "evidence_whole"  # the evidence as heat: what the benchmarks measure; its regions are outlines
TITLES = {WHOLE: "Evidence, weighed"}
READS = {
    WHOLE: "The regions of all criteria, cited or not, each by how far the diagnosis drops without it and holds by it "
    "alone."
}
LAYER_SIDE = 480  # px, longer side of a heat map's layer; it is smooth, the browser enlarges it
NOTHING_YET = (
    '<div class="sk-empty"><h2>Nothing to compare yet</h2><p>Assess a photo first; then all explanations of it are '
    "laid over one another here.</p></div>"
)
COMPUTING = '<div class="sk-empty"><p>The explanations of this photo are being computed.</p></div>'
ABSTAINED = (
    '<div class="sk-empty"><h2>Nothing to compare</h2><p>The model abstained from this photo, so there is no diagnosis '
    "to explain.</p></div>"
)
Updates = dict[Any, Any]


@dataclass(frozen=True)
class CompareView:
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
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds it by its default
    ) -> Generator[Updates]:
        with page.tasks.of(request.session_hash) as begin:
            yield from on_open(page.assessor, view, answer, done, progress, begin)

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
        show_progress_on=view.stage,
    )
    page.answer_events.append(opened)
    return view


def on_select(view: CompareView, answer: AssessedPhoto | None, done: str | None) -> Updates:
    """Clears the layers of an answer before at once, without waiting for the model."""
    if answer is None:
        return {view.stage: NOTHING_YET, view.done: None}
    if answer.assessment.abstained:
        return {view.stage: ABSTAINED, view.done: None}
    return {} if answer.key == done else {view.stage: COMPUTING, view.done: None}


def on_open(
    assessor: Assessor,
    view: CompareView,
    answer: AssessedPhoto | None,
    done: str | None,
    progress: Callable[..., Any],
    begin: Callable[[BackgroundTask], None] = lambda task: None,
) -> Generator[Updates]:
    """Makes the layers of the answer on display, once; ends when its photo is replaced.

    Args:
        progress: a `gr.Progress`.
        begin: called with the task before it starts, so that it can be stopped.
    """
    if answer is None or answer.assessment.abstained or answer.key == done:
        return

    def work(report: Callable[[tuple[float, str] | dict[str, np.ndarray]], None]) -> dict[str, np.ndarray]:
        with assessor.using(answer.assessment.model.weights_sha256):
            return layers(assessor, answer, lambda share, what: report((share, what)))

    task: BackgroundTask[tuple[float, str] | dict[str, np.ndarray]] = BackgroundTask(work)
    begin(task)
    try:
        for report in task:
            if isinstance(report, tuple):
                progress(report[0], desc=report[1])
            else:
                html = components.belonging(answer.assessment, compare(answer.assessment, answer.pixels, report))
                yield {view.stage: html, view.done: answer.key}
    except TaskStopped:
        return
    except (PhotoError, CheckpointError) as problem:
        yield {view.stage: components.error(str(problem)), view.done: None}


def layers(assessor: Assessor, answer: AssessedPhoto, tell: Callable[[float, str], None]) -> dict[str, np.ndarray]:
    """Layer -> map of the leading diagnosis [H, W] in 0..1.

    A method that this model or installation has not is left out. Raises PhotoError.
    """
    assessment = answer.assessment
    subject = assessor.subject(load_photo(answer.photo), assessment.context, assessment.diagnosis[0].code)
    found = {}
    for i, method in enumerate(METHODS.values()):
        tell((i + 1) / (len(METHODS) + 1), method.title)
        try:
            found[WHOLE if method.key == LEFT else method.key] = on_photo(method.maps(subject)[0].heat, subject)
        except (NotImplementedError, CheckpointError):
            continue
    return found


def compare(assessment: Assessment, pixels: np.ndarray, heats: dict[str, np.ndarray]) -> str:
    """The whole tab as HTML, evidence on the left of the divider and Grad-CAM on its right.

    Args:
        heats: layer -> map, as `layers` gives them.
    """
    keys = [LEFT, *heats]
    right = RIGHT if RIGHT in heats else LEFT
    drawn = "".join(_layer(key, heat, right) for key, heat in heats.items())
    size = f"{assessment.photo.width} {assessment.photo.height}"
    ratio = assessment.photo.width / assessment.photo.height
    return (
        # the ratio lets the whole photo be seen at once before it is enlarged
        f'<div class="sk-compare" style="--split:50%;--opacity:.7;--zoom:1;--ratio:{ratio:.3f}">'
        f'<div class="sk-compare-bar">{_select("left", keys, LEFT)}{_select("right", keys, right)}'
        f"{_range('Opacity', '--opacity', 0, 100, 70, 0.01)}{_range('Zoom', '--zoom', 100, 500, 100, 0.01, 25)}</div>"
        '<div class="sk-stage" tabindex="0" role="group" aria-label="The photo with both explanations; scroll with the '
        'arrow keys when enlarged"><div class="sk-stage-in">'
        f'<img alt="The assessed photo" src="{components.data_url(pixels)}">{drawn}'
        f'<svg class="sk-layer sk-outline" data-part="lesion" viewBox="0 0 {size}" preserveAspectRatio="none" '
        f'role="img" aria-label="Outline of the lesion">{_outlines(assessment.lesion.polygons)}</svg>'
        f'<svg class="sk-layer" data-method="{LEFT}" data-on="{"both" if right == LEFT else "left"}" '
        f'viewBox="0 0 {size}" preserveAspectRatio="none" role="img" aria-label="Regions of the findings">'
        f"{_regions(assessment)}</svg>"
        '<div class="sk-divider" aria-hidden="true"></div></div></div>'
        f"{_range('Divider', '--split', 0, 100, 50, None)}{_toggles(assessment)}"
        f'<div class="sk-how">{"".join(_how(key, key in (LEFT, right)) for key in keys)}</div></div>'
    )


def title(key: str) -> str:
    return TITLES.get(key) or METHODS[key].title


def _select(side: str, keys: list[str], chosen: str) -> str:
    options = "".join(
        f'<option value="{k}"{" selected" if k == chosen else ""}>{escape(title(k))}</option>' for k in keys
    )
    label = "Left of the divider" if side == "left" else "Right of the divider"
    return f'<label class="sk-field">{label}<select data-side="{side}">{options}</select></label>'


def _range(label: str, variable: str, low: int, high: int, value: int, factor: float | None, step: int = 1) -> str:
    """A slider that sets a CSS variable: its value in per cent, or times `factor`."""
    unit = 'data-unit="%"' if factor is None else f'data-factor="{factor}"'
    return (
        f'<label class="sk-field">{label}<input type="range" data-var="{variable}" {unit} min="{low}" max="{high}" '
        f'step="{step}" value="{value}"></label>'
    )


def _layer(key: str, heat: np.ndarray, right: str) -> str:
    on = "right" if key == right else "none"
    return (
        f'<img class="sk-layer" data-method="{key}" data-on="{on}" alt="{escape(title(key))}" src="{heat_layer(heat)}">'
    )


def heat_layer(heat: np.ndarray) -> str:
    """A heat map [H, W] in 0..1 as the address of a PNG that is clear where the map is cold."""
    scale = min(1.0, LAYER_SIDE / max(heat.shape))
    small = cv2.resize(heat.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    bgra = cv2.cvtColor((heat_rgba(small) * 255).round().astype(np.uint8), cv2.COLOR_RGBA2BGRA)
    ok, data = cv2.imencode(".png", bgra)
    if not ok:
        raise RuntimeError("a map could not be encoded")
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"


def _regions(assessment: Assessment) -> str:
    """Each finding's outlines and number, as an SVG group that can be hidden alone; all outlines below all numbers."""
    radius = max(assessment.photo.width, assessment.photo.height) / 46
    places = number_places(assessment, radius)
    shapes, numbers = [], []
    for i, finding in enumerate(assessment.findings):
        colour, (red, green, blue) = hex_colour(i), ink_of(i)
        # the lesion as a whole has an outline of its own
        if finding.region.polygons != assessment.lesion.polygons:
            drawn = _outlines(finding.region.polygons, f'stroke="{colour}" fill="{colour}" fill-opacity=".16"')
            shapes.append(f'<g data-part="{finding.ref}">{drawn}</g>')
        if finding.ref in places:
            x, y = places[finding.ref]
            numbers.append(
                f'<g data-part="{finding.ref}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" '
                f'stroke="#10181f"/><text x="{x:.1f}" y="{y:.1f}" font-size="{1.4 * radius:.1f}" text-anchor="middle" '
                f'dominant-baseline="central" fill="rgb({red},{green},{blue})">{i + 1}</text></g>'
            )
    return "".join([*shapes, *numbers])


def _outlines(polygons: tuple[Polygon, ...], look: str = "") -> str:
    drawn = []
    for polygon in polygons:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in polygon)
        drawn.append(f'<polygon class="sk-casing" points="{points}"/><polygon {look} points="{points}"/>')
    return "".join(drawn)


def _toggles(assessment: Assessment) -> str:
    """A box to tick for each finding and for the lesion's outline."""
    rows = "".join(
        f'<label class="sk-toggle"><input type="checkbox" data-show="{f.ref}" checked>'
        f'<span class="sk-chip" style="--chip:{hex_colour(i)};--ink:rgb{ink_of(i)}">{i + 1}</span>'
        f"{escape(components.phrase(f))}</label>"
        for i, f in enumerate(assessment.findings)
    )
    lesion = '<label class="sk-toggle"><input type="checkbox" data-show="lesion" checked>outline of the lesion</label>'
    return f'<fieldset class="sk-toggles"><legend class="sk-label">Show</legend>{rows}{lesion}</fieldset>'


def _how(key: str, open_now: bool) -> str:
    hidden = "" if open_now else " hidden"
    reads = READS.get(key) or METHODS[key].caption
    figures = measured.said(LEFT if key == WHOLE else key)
    if key == LEFT and figures:  # outlines have no order of places to be followed; their figures are those of the heat
        figures = f"Its figures are those of “{TITLES[WHOLE]}”. {measured.cited()}"
    return (
        f'<section class="sk-card" data-how="{key}"{hidden}><h2 class="sk-label">How to read: {escape(title(key))}</h2>'
        f"<p>{escape(reads)}</p>{f'<p>{escape(figures)}</p>' if figures else ''}</section>"
    )
