"""The comparison without a browser: its layers, what each can hide, and when they are made."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import cv2
import gradio as gr
import numpy as np
import pytest

from skinclip.core import assessment as record
from skinclip.explain import measured
from skinclip.explain.methods import METHODS
from skinclip.imaging.overlay import number_places
from skinclip.imaging.photo import encode_jpeg
from skinclip.ui.background_task import TasksByVisitor
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs import compare_tab
from skinclip.ui.tabs.compare_tab import CompareView

PICTURE = encode_jpeg(np.full((120, 160, 3), 90, np.uint8))
HEATS = {key: np.linspace(0, 1, 160 * 120).reshape(120, 160) for key in (compare_tab.WHOLE, "grad_cam", "gaussian")}


@pytest.fixture
def html(made_up: record.Assessment) -> str:
    return compare_tab.compare(made_up, PICTURE, HEATS)


@pytest.fixture
def view() -> CompareView:
    async def build() -> CompareView:
        with gr.Blocks():
            return CompareView(gr.HTML(), gr.State(None))

    return asyncio.run(build())


def test_every_method_is_one_layer_and_can_be_chosen_on_either_side(html: str) -> None:
    for key in ("evidence", *HEATS):
        assert len(re.findall(f'data-method="{key}"', html)) == 1
        assert len(re.findall(f'<option value="{key}"', html)) == 2
        assert (compare_tab.READS.get(key) or METHODS[key].caption).split(",")[0] in html
    assert 'data-method="evidence" data-on="left"' in html and 'data-method="grad_cam" data-on="right"' in html
    assert 'data-how="gaussian" hidden' in html


def test_each_method_is_told_with_what_was_measured(html: str, made_up: record.Assessment, monkeypatch) -> None:
    row = {"energy": 0.8, "deletion": 0.4, "insertion": 0.7, "beats_random": 0.9, "stable": 0.6}
    methods = {"evidence": row, "grad_cam": {**row, "energy": 0.3, "deletion": 0.5, "stable": 0.9}}
    found = {"drop": 0.2, "random": 0.05, "beats_draws": 0.75}
    cited = {"joined": found, "pivotal": {**found, "beats_draws": 0.9}}
    monkeypatch.setattr(measured, "figures", lambda: {"n": 7, "data": "drawn", "methods": methods, "cited": cited})
    shown = compare_tab.compare(made_up, PICTURE, HEATS)
    assert made_up.diagnosis[0].name in shown and f"Made for photo {made_up.photo.sha256[:8]}" in shown
    assert "sk-compare-outdated" in shown
    grad_cam = re.findall('data-how="grad_cam".*?</section>', shown)[0]
    assert "Measured on 7 photos (drawn): 30\xa0% of it lies in the lesion" in grad_cam
    assert "Best of the 2 compared: it changes least under small noise." in grad_cam
    assert "Worst of the 2 compared: least of it lies in the lesion; the diagnosis falls latest" in grad_cam
    assert "drops by 20 points" in re.findall('data-how="evidence".*?</section>', shown)[0]
    assert "80\xa0% of it" in re.findall(f'data-how="{compare_tab.WHOLE}".*?</section>', shown)[0]
    assert "Measured" not in re.findall('data-how="gaussian".*?</section>', shown)[0]  # it was not measured


def test_findings_and_outline_can_be_hidden_one_by_one(html: str) -> None:
    for part in ("r1", "r2", "lesion"):
        assert html.count(f'data-show="{part}"') == 1
    first, second = (
        "".join(re.findall(f'<g class="sk-region sk-e." data-ref="{r}">(.*?)</g></g>', html)) for r in ("r1", "r2")
    )
    assert "40.0,40.0" in first and ">1</text>" in first
    assert "polygon" not in second and ">2</text>" in second  # about the lesion as a whole: its outline is one already
    assert html.count('data-part="lesion"') == 1


def test_numbers_are_clear_of_one_another(made_up: record.Assessment) -> None:
    twice = dataclasses.replace(made_up.findings[0], ref="r2")
    crowded = dataclasses.replace(made_up, findings=(made_up.findings[0], twice))
    (x0, y0), (x1, y1) = number_places(crowded, 5.0).values()
    assert np.hypot(x1 - x0, y1 - y0) >= 10


def test_a_cold_map_is_clear_and_a_hot_one_is_not() -> None:
    data = compare_tab.heat_layer(np.array([[0.0, 0.2], [0.5, 1.0]]))
    alpha = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., 3]
    assert alpha[0, 0] == 0 and alpha[1, 1] == 255 and alpha[0, 1] < alpha[1, 0]


def test_layers_are_given_up_when_the_photo_is_replaced(view: CompareView, made_up, monkeypatch) -> None:
    tasks = TasksByVisitor()

    def layers(assessor: Any, answer: AssessedPhoto, tell: Any) -> dict[str, np.ndarray]:
        tasks.stop("me", superseded=True)  # as a new photo's wiring does
        tell(0.5, "Grad-CAM")
        raise AssertionError("it goes on")

    monkeypatch.setattr(compare_tab, "layers", layers)
    answer = AssessedPhoto(b"photo", made_up, PICTURE, None)
    assessor = SimpleNamespace(using=nullcontext)
    with tasks.of("me") as begin:
        assert list(compare_tab.on_open(assessor, view, answer, None, begin)) == [gr.skip()]  # type: ignore[arg-type]


def test_layers_are_made_once_for_each_photo(view: CompareView, made_up: record.Assessment, monkeypatch) -> None:
    made: list[bytes] = []

    def layers(assessor: Any, answer: AssessedPhoto, tell: Any) -> dict[str, np.ndarray]:
        made.append(answer.photo)
        tell(0.5, "Grad-CAM")
        return HEATS

    monkeypatch.setattr(compare_tab, "layers", layers)
    shown = AssessedPhoto(b"photo", made_up, PICTURE, None)

    used: list[str] = []
    assessor = SimpleNamespace(using=lambda weights: nullcontext(used.append(weights)))

    def opened(answer: AssessedPhoto | None, done: str | None) -> list[dict[Any, Any]]:
        selected = compare_tab.on_select(view, answer, done)
        computed = compare_tab.on_open(assessor, view, answer, done)  # type: ignore[arg-type]
        return [updates for updates in (selected, *computed) if updates != gr.skip()]

    assert "Assess a photo first" in opened(None, None)[0][view.stage]
    clear, computing, first = opened(shown, None)
    assert "Computing: Grad-CAM" in computing[view.stage] and computing[view.done] is None
    assert clear == {view.stage: compare_tab.COMPUTING, view.done: None}
    assert "sk-compare" in first[view.stage] and first[view.done] == shown.key
    assert f'data-photo="{made_up.photo.sha256}" data-answer="{shown.key}"' in first[view.stage]
    assert opened(shown, first[view.done]) == [] and made == [b"photo"]
    assert used == [made_up.model.weights_sha256]  # that which made the assessment explains it
    quiet = dataclasses.replace(shown, assessment=dataclasses.replace(made_up, abstained=True))
    assert "abstained" in opened(quiet, first[view.done])[0][view.stage]
