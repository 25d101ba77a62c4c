"""The page as a whole: composes the tabs, and launches with everything closed that need not be open."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr

from skinclip.assess import Assessor
from skinclip.ui import assess_tab, compare_tab, components
from skinclip.ui.theme import css, head, theme


def build_page(assessor: Assessor) -> gr.Blocks:
    """The page around a loaded assessor."""
    _own_upload_folder()
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


def _own_upload_folder() -> None:
    """Uploads pass through a folder that only this user can enter and that goes when the program ends."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="skinclip-")
        os.environ["GRADIO_TEMP_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def launch(page: gr.Blocks, host: str, port: int, block: bool = True) -> str:
    """Serves the page and returns its local address.

    No history of runs: Gradio would keep photos and results in the browser's own storage. No file is served beside
    the page's own code: pictures are part of the page.
    """
    page.queue(max_size=16, default_concurrency_limit=4)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css=css() + assess_tab.example_css(),
        head=head(),
        share=False,
        show_error=False,
        max_file_size="20mb",
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        state_session_capacity=64,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"SkinCLIP-VL is ready on {url}", flush=True)
    if block:
        page.block_thread()
    return url
