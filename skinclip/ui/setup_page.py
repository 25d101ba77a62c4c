"""The page on which a coordinator sets up studies. It is none of the readers' pages: only it takes photos."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from skinclip import RESEARCH_USE_ONLY
from skinclip.ui import serving
from skinclip.ui.setup_desk import SetupDesk
from skinclip.ui.study_photos_route import photos_route
from skinclip.ui.tabs import setup_steps, setup_tab
from skinclip.ui.templating import macro
from skinclip.ui.theme import setup_css, setup_head


def open_setup_app(desk: SetupDesk) -> FastAPI:
    """The page, ready for its coordinator."""
    return serving.mount_page(build_setup_page(desk), setup_css(), setup_head(), routes=[photos_route(desk)])


def build_setup_page(desk: SetupDesk) -> gr.Blocks:
    """The page around the studies in preparation."""
    with gr.Blocks(title="Set up a reader study", analytics_enabled=False) as page:
        gr.HTML(macro("page.html", "banner", RESEARCH_USE_ONLY), elem_id="banner")
        view = setup_tab.build(desk)
        setup_steps.wire(desk, view, page)
    return page
