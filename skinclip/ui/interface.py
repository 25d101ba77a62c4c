"""The model's page as a whole: composes the tabs."""

from __future__ import annotations

import gradio as gr

from skinclip.assess import Assessor
from skinclip.ui import assess_tab, compare_tab, components, serving
from skinclip.ui.theme import css, head


def build_page(assessor: Assessor) -> gr.Blocks:
    """The page around a loaded assessor."""
    serving.own_upload_folder()
    # uploads are deleted when they are read; delete_cache catches those of broken connections
    with gr.Blocks(title="SkinCLIP-VL", analytics_enabled=False, delete_cache=(300, 600)) as page:
        gr.HTML(components.BANNER, elem_id="banner")
        gr.HTML(components.HEADER)
        with gr.Tabs():
            with gr.Tab("Assess", id="assess"):
                assessed = assess_tab.build(assessor)
            with gr.Tab("Compare explanations", id="compare") as tab:
                compare_tab.build(assessor, tab, assessed)
        gr.HTML(components.footer(assessor.model_info))
    return page


def launch(page: gr.Blocks, host: str, port: int, block: bool = True) -> str:
    """Serves the page and returns its local address."""
    return serving.serve(page, host, port, css() + assess_tab.example_css(), head(), "SkinCLIP-VL", block)
