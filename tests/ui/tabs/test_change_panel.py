"""The panel that asks what would change the answer, without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from skinclip.core import assessment as record
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES, MALIGNANT_CODES
from skinclip.ui.state import AssessedPhoto, answer_key
from skinclip.ui.tabs import change_panel
from skinclip.ui.tabs.change_panel import AS_SEEN, NOTHING, ChangePanel

AFTER = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.025, 0.025])
MALIGNANT = [code in MALIGNANT_CODES for code in DIAGNOSIS_CODES]
TRUST = SimpleNamespace(probabilities=AFTER[None], malignancy=AFTER[None][:, MALIGNANT].sum(1), sets=[("nv",)])


class FakeAssessor:
    predictor = None

    @contextlib.contextmanager
    def using(self, weights: str) -> Iterator[None]:
        assert weights == "0" * 64  # those of the Assessment that is asked about
        yield

    def forward(self, photos: Any, contexts: Any, others: Any) -> str:
        return "seen"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked of the model, in turn."""
    log: list[Any] = []

    def what_if(assessor: Any, seen: Any, context: Any, edits: dict[str, str]) -> Any:
        log.append(edits)
        return TRUST

    def without(assessor: Any, image: Any, context: Any, seen: Any, region: record.Region) -> Any:
        log.append(region)
        return SimpleNamespace(calibrated=TRUST, pixels=np.zeros((8, 8, 3), np.uint8))

    monkeypatch.setattr(change_panel, "what_if", what_if)
    monkeypatch.setattr(change_panel, "without_region", without)
    return log


@pytest.fixture
def panel() -> ChangePanel:
    async def build() -> ChangePanel:
        with gr.Blocks():
            return change_panel.build()

    return asyncio.run(build())


@pytest.fixture
def photo() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def change(panel: ChangePanel, photo: bytes, assessment: record.Assessment | None, *chosen: str) -> str:
    answer = None if assessment is None else AssessedPhoto(photo, assessment, b"", None)
    return change_panel.on_change(FakeAssessor(), panel, answer, *chosen)[panel.answer]  # type: ignore[arg-type]


UNCHANGED = [AS_SEEN] * len(CRITERIA)


def test_an_edited_criterion_shows_before_and_after(panel, photo, made_up, asked) -> None:
    html = change(panel, photo, made_up, "atypical", *UNCHANGED[1:], NOTHING)
    assert asked == [{"pigment_network": "atypical"}]
    assert f'data-answer="{answer_key(made_up)}"' in html
    before = 1 / 9
    leading = made_up.diagnosis[0].code
    moved = 100 * (AFTER[DIAGNOSIS_CODES.index(leading)] - before)
    assert "11\xa0%" in html and f"{abs(moved):.0f} points" in html and "the advice stays" in html


def test_a_region_is_taken_out_and_the_photo_shown(panel, photo, made_up, asked) -> None:
    html = change(panel, photo, made_up, *UNCHANGED, "r1")
    assert asked == [made_up.findings[0].region] and "data:image/jpeg" in html and "irregular streaks" in html


def test_the_advice_is_said_to_change(panel, photo, made_up, asked) -> None:
    kept = dataclasses.replace(made_up, malignancy=record.Malignancy(0.05, 0.2, False))
    html = change(panel, photo, kept, "atypical", *UNCHANGED[1:], NOTHING)
    assert "the advice changes to</b>: Refer" in html


def test_nothing_is_asked_where_nothing_changed_or_the_model_abstained(panel, photo, made_up, asked) -> None:
    quiet = dataclasses.replace(made_up, abstained=True)
    assert change(panel, photo, made_up, *UNCHANGED, NOTHING) == ""
    assert change(panel, photo, None, "atypical", *UNCHANGED[1:], NOTHING) == ""
    assert change(panel, photo, quiet, "atypical", *UNCHANGED[1:], NOTHING) == ""
    assert change(panel, photo, made_up, *UNCHANGED, "r9") == ""  # a finding of another answer
    assert not asked


def test_a_new_assessment_sets_the_panel_back(panel, made_up) -> None:
    updates = change_panel.fresh(panel, made_up)
    options = updates[panel.criteria[0]]["choices"]
    assert options[0][1] == AS_SEEN and "33\xa0%" in options[0][0]
    assert [value for _, value in options[1:]] == list(CRITERIA[0].labels)
    assert [value for _, value in updates[panel.region]["choices"]] == [NOTHING, "r1", "r2"]
    assert updates[panel.box]["visible"] and updates[panel.answer] == ""
    gone = change_panel.fresh(panel, dataclasses.replace(made_up, abstained=True))
    assert not gone[panel.box]["visible"]
