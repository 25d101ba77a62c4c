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
from skinclip.ui import components, serving, weights_download
from skinclip.ui.server import NotOpened, Tell
from skinclip.ui.tabs import assess_tab, compare_tab
from skinclip.ui.theme import css, head


def open_page(preset: str, weights: Path | None, tell: Tell, adapters: Path | None = None) -> FastAPI:
    """The page of a preset's model, ready for the first visitor. Raises NotOpened saying what is missing.

    Args:
        weights: a checkpoint directory; by default the first of `adapters`, or the preset's own.
        tell: told what is being done, for those who wait.
        adapters: a folder of checkpoints on the same base, among which visitors choose.
    """
    try:
        weights = weights_download.bring(preset, weights, tell)
        tell("Loading the model")
        assessor = offering(preset, weights, adapters)
    except (ValueError, OSError, CheckpointError, MissingWeights, TooLittleMemory) as problem:
        raise NotOpened(str(problem)) from problem
    tell("Trying the model on a synthetic photo")
    assess_tab.warm_up(assessor)
    return serving.mounted(build_page(assessor), css() + assess_tab.example_css(), head())


def offering(preset: str, weights: Path | None, adapters: Path | None) -> Assessor:
    """The assessor with all `adapters` that fit its base on offer; those that do not are told on stderr.

    Raises ValueError, CheckpointError or MissingWeights where there is no model at all.
    """
    found = [] if adapters is None else list_adapters(adapters)
    usable = [a for a in found if a.problem is None]
    if adapters is not None and not usable:
        raise CheckpointError(
            f"there is no adapter in {adapters} that can be used; see `python -m skinclip adapter list`"
        )
    assessor = Assessor.load(preset, weights or (usable[0].folder if usable else None))
    for adapter in found:
        try:
            if adapter.problem:
                raise CheckpointError(f"{adapter.folder}: {adapter.problem}")
            assessor.offer(adapter.folder)
        except CheckpointError as problem:
            print(f"not offered: {problem}", file=sys.stderr)
    return assessor


def build_page(assessor: Assessor) -> gr.Blocks:
    """The page around a loaded assessor."""
    # uploads are deleted when they are read; delete_cache catches those of broken connections
    with gr.Blocks(title="SkinCLIP-VL", analytics_enabled=False, delete_cache=(300, 600)) as page:
        gr.HTML(components.BANNER, elem_id="banner")
        gr.HTML(components.HEADER)
        with gr.Tabs():
            with gr.Tab("Assess", id="assess"):
                assessed = assess_tab.build(assessor)
            with gr.Tab("Compare explanations", id="compare") as tab:
                compare_tab.build(assessor, tab, assessed)
        gr.HTML(components.footer(assessor.model_info, len(assessor.checkpoints) > 1))
    return page
