"""The panel with a second opinion on the regions, without a browser."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import nullcontext
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from skinclip.core import assessment as record
from skinclip.core.config import preset
from skinclip.explain.grounding import SecondOpinion
from skinclip.imaging.examples import draw
from skinclip.imaging.overlay import boxes_overlay, region_overlay
from skinclip.imaging.photo import encode_jpeg, encode_png
from skinclip.ui import components
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs import assess_tab, opinion_panel
from skinclip.ui.tabs.opinion_panel import OpinionPanel

PHOTO = encode_png(draw("melanoma", 7))


@pytest.fixture
def panel() -> OpinionPanel:
    async def build() -> OpinionPanel:
        with gr.Blocks():
            return opinion_panel.build()

    return asyncio.run(build())


@pytest.fixture
def answer(made_up: record.Assessment) -> AssessedPhoto:
    return AssessedPhoto(PHOTO, made_up, encode_jpeg(np.full((120, 160, 3), 90, np.uint8)), None)


def asked(panel: OpinionPanel, answer: AssessedPhoto | None, opinions: list[SecondOpinion], monkeypatch) -> str:
    used: list[str] = []
    assessor = SimpleNamespace(predictor=None, using=lambda weights: nullcontext(used.append(weights)))
    monkeypatch.setattr(opinion_panel, "second_opinions", lambda assessor, image, assessment: opinions)
    html = opinion_panel.on_ask(assessor, panel, answer)[panel.answer]  # type: ignore[arg-type]
    assert not html or used == ["0" * 64]  # the model that made the assessment
    return html


def test_each_finding_is_told_and_its_boxes_drawn(panel: OpinionPanel, answer: AssessedPhoto, monkeypatch) -> None:
    there = SecondOpinion("r1", ((42.0, 42.0, 80.0, 80.0),), 0.9, True)
    html = asked(panel, answer, [there], monkeypatch)
    assert components.chip(0) in html and "irregular streaks: It sees it there too (overlap 0.90)." in html
    assert html.count("<img") == 1


def test_without_a_usable_box_there_is_no_picture(panel: OpinionPanel, answer: AssessedPhoto, monkeypatch) -> None:
    html = asked(panel, answer, [SecondOpinion("r1", (), None, None, ("a point",))], monkeypatch)
    assert "It gave no usable box." in html and "<img" not in html
    assert "No finding here has a region of its own" in asked(panel, answer, [], monkeypatch)


def test_nothing_is_asked_without_an_answer(panel: OpinionPanel, answer: AssessedPhoto, monkeypatch) -> None:
    assert asked(panel, None, [], monkeypatch) == ""
    quiet = dataclasses.replace(answer.assessment, abstained=True)
    assert asked(panel, dataclasses.replace(answer, assessment=quiet), [], monkeypatch) == ""
    updates = opinion_panel.fresh(panel, quiet)
    assert not updates[panel.box]["visible"] and updates[panel.answer] == ""


def test_boxes_are_drawn_in_the_colour_of_their_finding(made_up: record.Assessment) -> None:
    pixels = np.full((240, 320, 3), 90, np.uint8)  # twice the size of the photo that was assessed
    plain = region_overlay(pixels, made_up)
    assert np.array_equal(boxes_overlay(pixels, made_up, {"r1": ()}), plain)
    drawn = boxes_overlay(pixels, made_up, {"r1": ((120.0, 10.0, 150.0, 30.0),)})
    rows, columns = np.nonzero((drawn != plain).any(-1))
    assert abs(columns.min() - 240) < 6 and abs(columns.max() - 300) < 6 and abs(rows.max() - 60) < 6


@pytest.mark.parametrize(("name", "there"), [("mini", False), ("qwen-3b", True), ("qwen-7b", True)])
def test_only_a_preset_with_qwens_vision_tower_offers_it(made_up: record.Assessment, name: str, there: bool) -> None:
    assessor = SimpleNamespace(config=preset(name), checkpoints={}, model_info=made_up.model)

    async def build() -> assess_tab.AssessView:
        with gr.Blocks(), gr.Tab() as tab:
            return assess_tab.build(ModelPage(assessor), tab)  # type: ignore[arg-type]

    view = asyncio.run(build())
    assert (view.opinion is not None) == there
    if view.opinion is not None:
        assert view.opinion.box in view.outputs and opinion_panel.hidden(view.opinion)[view.opinion.answer] == ""
