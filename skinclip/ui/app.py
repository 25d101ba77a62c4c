"""The model's page as a whole: loads the model, composes the tabs."""

from __future__ import annotations

import sys
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from skinclip.hub import MissingWeights
from skinclip.model.adapters.files import list_adapters
from skinclip.model.errors import CheckpointError
from skinclip.model.memory import TooLittleMemory
from skinclip.pipeline.assessor import Assessor
from skinclip.service.metrics import METRICS
from skinclip.ui import components, serving, weights_download
from skinclip.ui.answer import warm_up
from skinclip.ui.guard.uploads import UploadStore, upload_route
from skinclip.ui.page import ModelPage
from skinclip.ui.server import ReportStep, StartupError
from skinclip.ui.tabs import registry
from skinclip.ui.tabs.photo_field import example_css
from skinclip.ui.theme import css, head


def open_app(preset: str, weights: Path | None, report: ReportStep, adapters: Path | None = None) -> FastAPI:
    """Loads the page of a preset's model, ready for the first visitor. Raises StartupError saying what is missing.

    Args:
        weights: a checkpoint directory; by default the first of `adapters`, or the preset's own.
        report: called with each step, for those who wait.
        adapters: a folder of checkpoints on the same base, among which visitors choose.
    """
    try:
        weights = weights_download.download_weights(preset, weights, report)
        report("Loading the model")
        assessor = load_assessor(preset, weights, adapters)
    except (ValueError, OSError, CheckpointError, MissingWeights, TooLittleMemory) as problem:
        raise StartupError(str(problem)) from problem
    report("Trying the model on a synthetic photo")
    warm_up(assessor)
    METRICS.name_model(assessor.model_info)
    uploads = UploadStore()
    page = build_page(assessor, uploads)
    return serving.mount_page(page, css() + example_css(), head(), routes=[upload_route(uploads)])


def load_assessor(preset: str, weights: Path | None, adapters: Path | None) -> Assessor:
    """Loads the assessor with all `adapters` that fit its base on offer; those that do not are named on stderr.

    Raises ValueError, CheckpointError or MissingWeights where there is no model at all.
    """
    listed = [] if adapters is None else list_adapters(adapters)
    usable = [a for a in listed if a.problem is None]
    if adapters is not None and not usable:
        raise CheckpointError(
            f"there is no adapter in {adapters} that can be used; see `python -m skinclip adapter list`"
        )
    assessor = Assessor.load(preset, weights or (usable[0].folder if usable else None))
    for adapter in listed:
        try:
            if adapter.problem:
                raise CheckpointError(f"{adapter.folder}: {adapter.problem}")
            assessor.offer(adapter.folder)
        except CheckpointError as problem:
            print(f"not offered: {problem}", file=sys.stderr)
    return assessor


def build_page(assessor: Assessor, uploads: UploadStore | None = None) -> gr.Blocks:
    """The page around a loaded assessor. `uploads`: where the files are that visitors send."""
    with gr.Blocks(title="SkinCLIP-VL", analytics_enabled=False) as page:
        gr.HTML(components.BANNER, elem_id="banner")
        gr.HTML(components.HEADER)
        context = ModelPage(assessor, uploads=uploads or UploadStore())
        with gr.Tabs():
            for entry in registry.TABS:
                with gr.Tab(entry.label, id=entry.key) as tab:
                    entry.build(context, tab)
        gr.on(context.photo_events, None, cancels=context.answer_events)  # their results would be of the photo before
        gr.HTML(components.footer(assessor.model_info, len(assessor.checkpoints) > 1))

        def gone(request: gr.Request) -> None:
            context.line.leave(request.session_hash)  # whose assessment may never have begun

        page.unload(gone)
    return page
