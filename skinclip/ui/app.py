"""The model's page as a whole: loads the model, composes the tabs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import gradio as gr
from fastapi import FastAPI

from skinclip.hub import MissingWeights, checkpoint_folder
from skinclip.model.adapters.files import list_adapters
from skinclip.model.errors import CheckpointError
from skinclip.model.memory import TooLittleMemory
from skinclip.pipeline.assessor import Assessor
from skinclip.service.metrics import METRICS
from skinclip.ui import components, serving, weights_download
from skinclip.ui.answer import warm_up
from skinclip.ui.guard.uploads import UploadStore, upload_route
from skinclip.ui.loading import LoadingAssessor
from skinclip.ui.page import ModelPage
from skinclip.ui.server import ReportStep, StartupError
from skinclip.ui.tabs import registry
from skinclip.ui.tabs.photo_field import example_css
from skinclip.ui.theme import css, head


def open_app(preset: str, weights: Path | None, report: ReportStep, adapters: Path | None = None) -> FastAPI:
    """Opens the page of a preset's model. Raises StartupError saying what is missing.

    An embedded model is loaded while visitors already add photos; `state.background` is done when it is there.

    Args:
        weights: a checkpoint directory; by default the first of `adapters`, or the preset's own.
        report: called with each step, for those who wait.
        adapters: a folder of checkpoints on the same base, among which visitors choose.
    """
    try:
        weights = weights_download.download_weights(preset, weights, report)
        later = None if adapters else _embedded(preset, weights, report)
        assessor = later or _loaded(preset, weights, adapters, report)
    except (ValueError, OSError, CheckpointError, MissingWeights, TooLittleMemory) as problem:
        raise StartupError(str(problem)) from problem
    METRICS.name_model(assessor.model_info)
    uploads = UploadStore()
    page = build_page(cast(Assessor, assessor), uploads)
    application = serving.mount_page(page, css() + example_css(), head(), routes=[upload_route(uploads)])
    if later is not None:
        application.state.background = later.loaded
        later.start()
    return application


def _embedded(preset: str, weights: Path | None, report: ReportStep) -> LoadingAssessor | None:
    """The assessor of an embedded model, to be loaded later; None for a big one, which the page waits for."""
    folder = weights or checkpoint_folder(preset)

    def load() -> Assessor:
        report("Loading the model")
        try:
            assessor = load_assessor(preset, weights, None)
        except (ValueError, OSError, CheckpointError, MissingWeights, TooLittleMemory) as problem:
            raise StartupError(str(problem)) from problem
        report("The model is loaded")
        return assessor

    assessor = LoadingAssessor(folder, load)
    return assessor if assessor.config.reasoner.base is None else None


def _loaded(preset: str, weights: Path | None, adapters: Path | None, report: ReportStep) -> Assessor:
    report("Loading the model")
    assessor = load_assessor(preset, weights, adapters)
    report("Trying the model on a synthetic photo")  # the first use of a GPU takes its time
    warm_up(assessor)
    return assessor


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
