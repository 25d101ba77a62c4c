"""The handlers without a browser: what they return for a photo, a bad file, nothing at all."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from skinclip import assessment as record
from skinclip.images import LesionImage, PhotoError
from skinclip.ui import assess_tab
from skinclip.ui.assess_tab import ALL, Shown, View


class FakeAssessor:
    """Answers every photo alike and remembers what it was asked."""

    def __init__(self, answer: record.Assessment) -> None:
        self.answer = answer
        self.trust = SimpleNamespace(referral=SimpleNamespace(sensitivity=0.92))
        self.context: record.Context | None = None

    def assess(
        self, image: LesionImage, context: record.Context, progress: Callable[[float, str], None]
    ) -> record.Assessment:
        progress(0.5, "Looking at the photo")
        self.context = context
        photo = dataclasses.replace(self.answer.photo, width=image.width, height=image.height)
        return dataclasses.replace(self.answer, photo=photo, context=context)


@pytest.fixture
def assessor(made_up: record.Assessment, monkeypatch: pytest.MonkeyPatch) -> FakeAssessor:
    monkeypatch.setattr(
        assess_tab,
        "heat_on_photo",
        lambda assessor, image, context, code: np.ones((image.height, image.width), np.float32),
    )
    return FakeAssessor(made_up)


@pytest.fixture
def view(assessor: FakeAssessor) -> View:
    async def build() -> View:  # within a running event loop: Gradio would open one of its own and leave it open
        with gr.Blocks():
            return assess_tab.build(assessor)  # type: ignore[arg-type]

    return asyncio.run(build())


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uploads" / "0123"
    folder.mkdir(parents=True)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder.parent))
    return folder


def photo_file(size: tuple[int, int] = (160, 120), kind: str = "PNG") -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def progress(share: float, desc: str) -> None:
    assert 0 <= share <= 1 and desc


def assess(assessor: FakeAssessor, view: View, photo: bytes | None, age: str = "") -> dict[Any, Any]:
    return assess_tab.on_assess(assessor, view, photo, age, "female", "not given", progress)  # type: ignore[arg-type]


def test_an_upload_is_shown_and_gone_from_disk(view: View, uploads: Path) -> None:
    file = uploads / "patient name.tiff"
    file.write_bytes(photo_file(kind="TIFF"))
    updates = assess_tab.on_upload(view, {"path": str(file)})
    assert not uploads.exists()
    assert updates[view.photo] == photo_file(kind="TIFF")
    assert "data:image/jpeg" in updates[view.preview] and "160 × 120" in updates[view.preview]
    assert "patient name" not in updates[view.preview]
    assert updates[view.shown] is None  # what was said about the photo before is gone


def test_a_bad_upload_is_told_and_replaces_the_photo_before_it(view: View, uploads: Path) -> None:
    file = uploads / "photo.jpg"
    file.write_text("just some text")
    updates = assess_tab.on_upload(view, {"path": str(file)})
    assert "holds text, not a photo" in updates[view.preview]
    assert updates[view.photo] is None and not file.exists()
    assert view.age not in updates and view.sex not in updates


def test_only_uploads_are_read_and_deleted(tmp_path: Path, uploads: Path) -> None:
    mine = tmp_path / "mine.png"
    mine.write_bytes(photo_file())
    for path in (mine, uploads / ".." / ".." / "mine.png", uploads / "missing.png"):
        with pytest.raises(PhotoError, match="Add the photo again"):
            assess_tab.read_and_delete(path)
    assert mine.exists()


def test_a_photo_is_assessed(assessor: FakeAssessor, view: View) -> None:
    updates = assess(assessor, view, photo_file(), age="61")
    assert assessor.context == record.Context(61.0, "female", None)
    assert "Differential diagnosis" in updates[view.result] and "92%" in updates[view.result]
    assert updates[view.figures]["value"].count("<img") == 2
    assert [value for _, value in updates[view.finding]["choices"]] == [ALL, "r1", "r2"]
    shown = updates[view.shown]
    assert shown.pixels.shape[:2] == shown.heat.shape == (480, 640)  # small photos are enlarged to be drawn on


def test_choosing_a_finding_changes_the_picture(assessor: FakeAssessor, view: View) -> None:
    shown = assess(assessor, view, photo_file())[view.shown]
    every, one = (assess_tab.on_choice(view, choice, shown)[view.figures] for choice in (ALL, "r1"))
    assert every != one and "Irregular streaks" in one
    assert assess_tab.on_choice(view, "r1", None) == {}


def test_no_photo_and_a_wrong_age_are_told(assessor: FakeAssessor, view: View) -> None:
    assert "There is no photo yet" in assess(assessor, view, None)[view.result]
    updates = assess(assessor, view, photo_file(), age="130")
    assert "0 to 120" in updates[view.result] and updates[view.shown] is None


def test_an_abstained_photo_gets_no_map_and_no_choice(view: View, assessor: FakeAssessor) -> None:
    assessor.answer = dataclasses.replace(assessor.answer, abstained=True, rationale="")
    updates = assess(assessor, view, photo_file())
    shown: Shown = updates[view.shown]
    assert shown.heat is None and not updates[view.finding]["visible"]
    assert updates[view.figures]["value"].count("<img") == 1


def test_every_control_has_a_label(view: View) -> None:
    for control in (view.drop, view.age, view.sex, view.site, view.finding):
        assert control.label
    assert view.button.value == "Assess"


def test_examples_are_named_as_synthetic(view: View) -> None:
    assert assess_tab.example_name(Path("synthetic_blue_nevus.jpg")) == "Blue nevus"
    file = sorted(assess_tab.EXAMPLES.glob("synthetic_*.jpg"))[0]
    updates = assess_tab.on_example(view, file)
    assert "Synthetic example" in updates[view.preview] and file.exists()


@pytest.mark.parametrize(
    ("size", "expected"), [((200, 100), (640, 320)), ((4400, 2200), (1100, 550)), ((800, 80), (800, 80))]
)
def test_fit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    assert assess_tab.fit(pixels, 1100, 640).shape[:2] == (expected[1], expected[0])
