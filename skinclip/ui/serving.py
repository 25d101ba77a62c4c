"""Launches a page with everything closed that need not be open."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import gradio as gr

from skinclip.ui.theme import theme


def own_upload_folder() -> None:
    """Uploads pass through a folder that only this user can enter and that goes when the program ends."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="skinclip-")
        os.environ["GRADIO_TEMP_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def serve(
    page: gr.Blocks, host: str, port: int, css: str, head: str, name: str, block: bool = True, visitors: int = 64
) -> str:
    """Serves the page and returns its local address. What the page keeps of more than `visitors` is forgotten.

    No history of runs: Gradio would keep photos and results in the browser's own storage. No file is served beside
    the page's own code: pictures are part of the page.
    """
    page.queue(max_size=16, default_concurrency_limit=4)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css=css,
        head=head,
        share=False,
        show_error=False,
        max_file_size="20mb",
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        state_session_capacity=visitors,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"{name} is ready on {url}", flush=True)
    if block:
        page.block_thread()
    return url
