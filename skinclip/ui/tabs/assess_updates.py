"""An answer as updates of the Assess tab: as it grows, and whole."""

from __future__ import annotations

import gradio as gr

from skinclip.ui import components, viewer_html
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs import change_panel, opinion_panel
from skinclip.ui.tabs.assess_view import AssessView, Updates
from skinclip.ui.tabs.photo_events import no_pieces, unmarked


def growing(view: AssessView, answer: AssessedPhoto, begun: bool) -> Updates:
    """The figures at once, and from then on the rationale as it is written."""
    written = gr.update(value=components.rationale(answer.shown, writing=True), visible=True)
    if begun:
        return {view.rationale: written}
    return {**figures(view, answer), **unmarked(view), view.rationale: written, view.answer: None}


def filled(view: AssessView, answer: AssessedPhoto, begun: bool = False) -> Updates:
    """The whole answer on the page. `begun`: the viewer is there already, perhaps in use, and stays."""
    rationale = components.rationale(answer.shown, made_by=answer.made_by)
    updates = {
        **no_pieces(view),
        **figures(view, answer),
        **unmarked(view),
        view.heat: viewer_html.heat(answer),
        view.rationale: gr.update(value=rationale, visible=bool(rationale)),
        view.download: gr.update(value=components.handover(answer.assessment), visible=True),
        **change_panel.fresh(view.panel, answer.assessment),
        **opinion_panel.fresh(view.opinion, answer.assessment),
        view.answer: answer,
    }
    return {k: v for k, v in updates.items() if not (begun and k is view.figures)}


def figures(view: AssessView, answer: AssessedPhoto) -> Updates:
    """Verdict, viewer, differential and findings."""
    side = components.side(answer.shown)
    return {
        view.result: components.result(answer.shown, answer.settings),
        view.figures: gr.update(value=viewer_html.viewer(answer), visible=True),
        view.side: gr.update(value=side, visible=bool(side)),
    }
