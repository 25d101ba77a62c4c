"""The model's page as a whole: loads the model, composes the tabs."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from skinclip.assess import Assessor
from skinclip.hub import MissingWeights
from skinclip.model.budget import TooLittleMemory
from skinclip.model.skinclip_vl import CheckpointError
from skinclip.ui import assess_tab, compare_tab, components, serving
from skinclip.ui.door import NotOpened, Tell
from skinclip.ui.theme import css, head


def open_page(preset: str, weights: Path | None, tell: Tell) -> FastAPI:
    """The page of a preset's model, ready for the first visitor. Raises NotOpened saying what is missing.

    Args:
        weights: a checkpoint directory; by default the preset's own.
        tell: told what is being done, for those who wait.
    """
    tell("Loading the model")
    try:
        assessor = Assessor.load(preset, weights)
    except (ValueError, OSError, CheckpointError, MissingWeights, TooLittleMemory) as problem:
        raise NotOpened(str(problem)) from problem
    tell("Trying the model on a synthetic photo")
    assess_tab.warm_up(assessor)
    return serving.mounted(build_page(assessor), css() + assess_tab.example_css(), head())


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
        gr.HTML(components.footer(assessor.model_info))
    return page
