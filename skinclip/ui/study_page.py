"""A study's page as a whole: readers and coordinator, no model and no word about one.

It is a page of its own. Beside the tabs in which photos are assessed, readers could look up what must stay hidden from
them: which model it is, what it says about a photo, and how the aid differs between arms.
"""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from skinclip.study.session.session_service import Study
from skinclip.ui import serving
from skinclip.ui.study_html import page_words
from skinclip.ui.tabs import coordinator_tab, study_tab
from skinclip.ui.templating import macro
from skinclip.ui.theme import study_css, study_head

VISITORS = 2000  # next to nothing is kept of one: the tokens of sign-ins lie in the browsers


def open_study_app(study: Study) -> FastAPI:
    """The page around an opened study, ready for the first reader."""
    routes = [study_tab.session_route(study)]
    return serving.mount_page(build_study_page(study), study_css(), study_head(), VISITORS, routes)


def build_study_page(study: Study) -> gr.Blocks:
    """The page around an opened study."""
    t = page_words(study.protocol.languages[0])  # `study.js` puts the reader's language in its place
    with gr.Blocks(title=t("title"), analytics_enabled=False) as page:
        gr.HTML(macro("page.html", "banner", t("banner")), elem_id="banner")
        with gr.Tabs() as tabs:
            with gr.Tab(t("tab_reader"), id="study"):
                study_tab.build(study)
            with gr.Tab(t("tab_coordinator"), id=coordinator_tab.TAB):
                view = coordinator_tab.build(study)
        coordinator_tab.resume_on_load(page, tabs, study, view)
    return page
