"""The page as a whole: composes the tabs, and launches with everything closed that need not be open."""

from __future__ import annotations

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr

from skinclip.assess import Assessor
from skinclip.ui import assess_tab, components
from skinclip.ui.theme import css, theme


def build_page(assessor: Assessor) -> gr.Blocks:
    """The page around a loaded assessor."""
    with gr.Blocks(title="SkinCLIP-VL", analytics_enabled=False, delete_cache=(300, 900)) as page:
        gr.HTML(components.BANNER, elem_id="banner")
        gr.HTML(components.HEADER)
        with gr.Tabs(), gr.Tab("Assess a photo", id="assess"):
            assess_tab.build(assessor)
        info = assessor.model_info
        gr.HTML(
            f'<footer class="sk-footer">Model {info.preset} {info.version} · weights {info.weights_sha256[:12]} · '
            "probabilities are at the prevalence of HAM10000</footer>"
        )
    return page


def launch(page: gr.Blocks, host: str, port: int, block: bool = True) -> str:
    """Serves the page and returns its local address."""
    page.queue(max_size=16)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css=css(),
        share=False,
        show_error=False,
        max_file_size="20mb",
        allowed_paths=[str(assess_tab.EXAMPLES)],
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"SkinCLIP-VL is ready on {url}", flush=True)
    if block:
        page.block_thread()
    return url
