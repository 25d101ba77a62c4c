"""The handlers without a browser: what they return for a photo, a bad file, nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from skinclip.core import assessment as record
from skinclip.core.config import preset
from skinclip.imaging.photo import LesionImage, PhotoError, fit
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.photos import photo_info
from skinclip.pipeline.settings import Settings
from skinclip.ui import components
from skinclip.ui.background_task import TasksByVisitor, WaitingLine
from skinclip.ui.guard.uploads import UploadStore
from skinclip.ui.guard.visitors import COOKIE
from skinclip.ui.page import ModelPage
from skinclip.ui.state import AS_RECOGNISED, AssessedPhoto, Entries, answer_key, photo_hash
from skinclip.ui.tabs import assess_tab, photo_field, requests
from skinclip.ui.tabs.assess_tab import AssessView, Display

GONE = "9" * 64  # weights that are not on offer
KINDS = (AS_RECOGNISED, AS_RECOGNISED)


class FakeAssessor:
    """Answers every photo alike, word by word, and remembers what it was asked.

    Attributes:
        failing: raised half way through the rationale.
        read: set by a test when it has read what was told; the answer waits for it, if it is there.
        ended: set when an assessment has ended, whichever way.
    """

    def __init__(self, answer: record.Assessment) -> None:
        self.answer = answer
        self.config = preset("mini")
        self.context: record.Context | None = None
        self.failing: Exception | None = None
        self.read: threading.Event | None = None
        self.ended = threading.Event()
        self.words = 0
        self.model_info = answer.model
        self.checkpoints: dict[str, Path] = {}
        self.used: list[str | None] = []

    tells_kinds = True

    def recognise(self, images: Sequence[LesionImage]) -> list[record.Kind | None]:
        """What is wider than high is dermoscopy."""
        return ["dermoscopy" if image.width > image.height else "clinical" for image in images]

    def heat_on_photo(self, image: Any, context: Any, code: str, clinical: Any = None) -> np.ndarray:
        return np.ones((image.height, image.width), np.float32)

    @contextlib.contextmanager
    def using(self, weights: str | None) -> Iterator[None]:
        if weights == GONE:
            raise CheckpointError("it is no longer here")
        self.used.append(weights)
        yield

    def assess(
        self,
        image: LesionImage,
        context: record.Context,
        progress: Callable[[float, str], None],
        on_partial: Callable[[record.Assessment], None],
        clinical: LesionImage | None = None,
    ) -> record.Assessment:
        progress(0.5, "Looking at the photo")
        self.context = context
        photos = [
            photo_info(one, self.answer.photo.quality, self.recognise([one])[0])
            for one in (image, clinical)
            if one is not None
        ]
        both = tuple(photos) if clinical else ()
        whole = dataclasses.replace(self.answer, photo=photos[0], photos=both, context=context)
        try:
            if not whole.abstained:
                self._write(whole, on_partial)
        finally:
            self.ended.set()
        return whole

    def _write(self, whole: record.Assessment, on_partial: Callable[[record.Assessment], None]) -> None:
        words = whole.rationale.split(" ")
        for self.words in range(len(words)):
            if self.words == 4 and self.failing is not None:
                raise self.failing
            if self.words > 4 and self.read is not None:
                assert self.read.wait(20)
            on_partial(dataclasses.replace(whole, rationale=" ".join(words[: self.words])))


@pytest.fixture
def assessor(made_up: record.Assessment) -> FakeAssessor:
    return FakeAssessor(made_up)


@pytest.fixture
def view(assessor: FakeAssessor) -> AssessView:
    return built(assessor)


def built(assessor: FakeAssessor) -> AssessView:
    async def build() -> AssessView:  # within a running event loop: Gradio would open one of its own and leave it open
        with gr.Blocks(), gr.Tab() as tab:
            return assess_tab.build(ModelPage(assessor), tab)  # type: ignore[arg-type]

    return asyncio.run(build())


def photo_file(size: tuple[int, int] = (160, 120), kind: str = "PNG") -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def assess(assessor: FakeAssessor, view: AssessView, photo: bytes | None, age: str = "") -> dict[Any, Any]:
    return list(assessing(assessor, view, photo, age))[-1]


def assessing(
    assessor: FakeAssessor,
    view: AssessView,
    photo: bytes | None,
    age: str = "",
    begin: Callable = lambda run: None,
    adapter: str | None = None,
    first: bool = False,
) -> Generator[dict[Any, Any]]:
    """What the page gets, one update after the other."""
    entries = None if photo is None else Entries(photo_hash(photo), age, "female", "not given", adapter)
    return assess_tab.on_assess(assessor, view, (photo, None), entries, begin, Display(first))  # type: ignore[arg-type]


def test_an_upload_is_shown(view: AssessView) -> None:
    updates = assess_tab.on_upload(view, lambda: photo_file(kind="TIFF"))
    assert updates[view.photo] == photo_file(kind="TIFF")
    assert "data:image/jpeg" in updates[view.preview] and "160 × 120" in updates[view.preview]
    assert updates[view.answer] is None  # what was said about the photo before is gone


def test_a_bad_upload_is_told_and_replaces_the_photo_before_it(view: AssessView) -> None:
    updates = assess_tab.on_upload(view, lambda: b"just some text")
    assert "holds text, not a photo" in updates[view.preview]
    assert updates[view.photo] is None
    assert view.age not in updates and view.sex not in updates


def test_an_upload_is_given_once_and_to_its_visitor_alone() -> None:
    store = UploadStore()
    name = store.keep("the visitor", b"a photo")
    for cookies, asked in (({COOKIE: "another"}, name), ({}, name), ({COOKIE: "the visitor"}, "/etc/passwd")):
        with pytest.raises(PhotoError, match="Add the photo again"):
            photo_field.uploaded_bytes(store, SimpleNamespace(cookies=cookies), asked)  # type: ignore[arg-type]
    request = SimpleNamespace(cookies={COOKIE: "the visitor"})
    assert photo_field.uploaded_bytes(store, request, name) == b"a photo"  # type: ignore[arg-type]
    with pytest.raises(PhotoError, match="Add the photo again"):
        photo_field.uploaded_bytes(store, request, name)  # type: ignore[arg-type]


def test_a_photo_is_assessed(assessor: FakeAssessor, view: AssessView) -> None:
    updates = assess(assessor, view, photo_file(), age="61")
    assert assessor.context == record.Context(61.0, "female", None)
    assert "Differential diagnosis" in updates[view.side]["value"] and "threshold" in updates[view.result]
    assert view.figures not in updates  # it came with the first figures, and may be in use
    assert "data:image/png" in updates[view.heat]
    shown = updates[view.answer]
    assert shown.pixels.shape[:2] == (480, 640)  # small photos are enlarged to be drawn on
    assert isinstance(shown.picture, bytes) and isinstance(shown.heat, bytes)  # kept encoded


def test_the_rationale_is_seen_while_it_is_written(assessor: FakeAssessor, view: AssessView) -> None:
    """The answer cannot go on before the page has what there is of it; what it shows in the end is as ever."""
    assessor.read = threading.Event()
    updates = assessing(assessor, view, photo_file())
    running, first, part = next(updates), next(updates), [next(updates) for _ in range(4)][-1]
    assert "Looking at the photo" in running[view.result]
    assert "Differential diagnosis" in first[view.side]["value"] and first[view.answer] is None
    assert first[view.figures]["value"].count('class="sk-pane"') == 2
    assert 'aria-busy="true"' in first[view.rationale]["value"]
    assert (
        "Melanoma is the leading<" in part[view.rationale]["value"] and "supported" not in part[view.rationale]["value"]
    )
    assert set(part) == {view.rationale}  # nothing else moves
    assessor.read.set()
    *_, before, last = updates
    assert components.chip(0) in before[view.rationale]["value"]
    assert "irregular border" not in before[view.rationale]["value"]
    assert last[view.answer].assessment.rationale == assessor.answer.rationale
    assert "irregular border" in last[view.rationale]["value"] and "aria-busy" not in last[view.rationale]["value"]


@pytest.mark.parametrize("how", ["stopped", "left"])
def test_an_assessment_ends_when_it_is_stopped_or_the_visitor_leaves(
    assessor: FakeAssessor, view: AssessView, how: str
) -> None:
    assessor.read, runs = threading.Event(), TasksByVisitor()
    updates = assessing(assessor, view, photo_file(), begin=lambda run: runs.begin("me", run))
    for _ in range(3):
        next(updates)
    if how == "stopped":
        runs.stop("someone else")
        runs.stop("me")
        *_, last = updates
        assert last[view.result] == components.STOPPED
        assert last[view.answer] is None and not last[view.figures]["visible"]
    else:
        updates.close()
    assessor.read.set()
    assert assessor.ended.wait(20) and assessor.words < len(assessor.answer.rationale.split()) - 1


def test_what_fails_while_the_rationale_is_written_is_told(assessor: FakeAssessor, view: AssessView, caplog) -> None:
    assessor.failing = PhotoError("The photo is a riddle.")
    assert "The photo is a riddle." in assess(assessor, view, photo_file())[view.result]
    assert not caplog.records
    assessor.failing = RuntimeError("out of memory")
    last = assess(assessor, view, photo_file())
    assert 'role="alert"' in last[view.result] and "out of memory" not in last[view.result]
    assert "RuntimeError" in caplog.text and "out of memory" not in caplog.text
    assert last[view.answer] is None


def test_one_of_several_models_is_chosen_and_named(assessor: FakeAssessor, tmp_path: Path) -> None:
    named = {"0" * 64: ("first", "Skin model"), "1" * 64: ("second", "Skin model"), "2" * 64: ("third", "Another")}
    for sha, (folder, name) in named.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(f"---\na: b\n---\n\n# Model card: {name}\n")
        assessor.checkpoints[sha] = tmp_path / folder

    view = built(assessor)
    names = ["Skin model (first)", "Skin model (second)", "Another"]
    assert view.adapter.visible and view.adapter.choices == list(zip(names, named, strict=True))
    last = list(assessing(assessor, view, photo_file(), adapter="1" * 64))[-1]
    assert assessor.used == ["1" * 64]
    assert "Answered by Skin model (first), weights 000000000000" in last[view.rationale]["value"]
    last = list(assessing(assessor, view, photo_file(), adapter=GONE))[-1]
    assert "it is no longer here" in last[view.result] and last[view.answer] is None


def test_a_single_model_is_neither_chosen_nor_named(assessor: FakeAssessor, view: AssessView) -> None:
    assert (
        not view.adapter.visible and "Answered by" not in assess(assessor, view, photo_file())[view.rationale]["value"]
    )


def test_an_answer_that_is_late_for_its_photo_is_dropped(assessor: FakeAssessor, view: AssessView) -> None:
    """The photo is replaced while the rationale is written: nothing more of the old answer reaches the page."""
    assessor.read, tasks = threading.Event(), TasksByVisitor()
    updates = assessing(assessor, view, photo_file(), begin=lambda task: tasks.begin("me", task))
    for _ in range(3):
        next(updates)
    tasks.stop("me", superseded=True)  # as on_upload's wiring does
    assessor.read.set()
    assert list(updates) == [gr.skip()]


def test_an_assessment_whose_photo_went_while_it_waited_says_nothing(assessor: FakeAssessor, view: AssessView) -> None:
    for entries in (None, Entries(photo_hash(b"another photo"), "61", "female", "back", None)):
        assert list(assess_tab.on_assess(assessor, view, (photo_file(), None), entries)) == [gr.skip()]  # type: ignore
    assert assessor.context is None


def test_every_part_of_an_answer_carries_its_photo_and_its_key(assessor: FakeAssessor, view: AssessView) -> None:
    photo = photo_file()
    updates = assess(assessor, view, photo, age="61")
    answer: AssessedPhoto = updates[view.answer]
    assert answer.photo == photo and answer.assessment.photo.sha256 == photo_hash(photo)
    marks = f'data-photo="{photo_hash(photo)}" data-answer="{answer_key(answer.assessment)}"'
    assert marks in updates[view.result] and "age 61, female" in updates[view.rationale]["value"]
    for part in (view.side, view.rationale, view.download):
        assert marks in updates[part]["value"]
    assert marks in updates[view.heat]
    other = assess(assessor, view, photo, age="62")[view.answer]
    assert other.key != answer.key


def test_entries_changed_after_the_answer_mark_it(assessor: FakeAssessor, view: AssessView) -> None:
    entries = Entries("0" * 64, "61", "female", "not given", None)

    def marked(
        age: str,
        sex: str = "female",
        site: str = "not given",
        asked: Entries | None = entries,
        answer: AssessedPhoto | None = None,
    ) -> Any:
        form = (age, sex, site, None, *KINDS)
        return assess_tab.on_entries(assessor, view, asked, answer, *form)  # type: ignore[arg-type]

    for same in ("61", " 61,0 "):
        assert not marked(same)[view.outdated]["visible"]
    assert "says for which" in marked("70", asked=None)[view.outdated_note]  # an answer older than what is kept
    for changed in (marked("70"), marked(""), marked("61", sex="male"), marked("61", site="back"), marked("130")):
        assert changed[view.outdated]["visible"] and "age 61, female" in changed[view.outdated_note]
    shown = assess(assessor, view, photo_file(), age="61")[view.answer]
    waiting = Entries("0" * 64, "70", "female", "not given", None)  # Assess pressed again, the model still busy
    assert "age 61, female" in marked("70", asked=waiting, answer=shown)[view.outdated_note]
    assert not marked("61", asked=waiting, answer=shown)[view.outdated]["visible"]
    assert not marked("70", asked=Entries("0" * 64, "abc", "female", "not given", None))[view.outdated]["visible"]
    form = ("70", "female", "not given", None, *KINDS)
    ended = assess_tab.on_end(assessor, view, entries, None, *form)  # type: ignore[arg-type]
    assert ended[view.outdated]["visible"] and ended[view.button]["interactive"]
    assert not assess(assessor, view, photo_file())[view.outdated]["visible"]


def test_what_the_browser_refuses_is_said_on_the_page_and_clears_the_answer(view: AssessView) -> None:
    for code, words in (("size:1", "larger than 20 MB"), ("several", "one photo"), ("nonsense", "did not reach")):
        updates = assess_tab.on_refusal(view, code)
        assert words in updates[view.preview] and 'role="alert"' in updates[view.preview]
        assert updates[view.photo] is None and updates[view.answer] is None
        assert "No assessment yet" in updates[view.result] and not updates[view.figures]["visible"]


def test_the_answer_stays_hidden_until_the_clinician_has_given_one(assessor: FakeAssessor, view: AssessView) -> None:
    updates = list(assessing(assessor, view, photo_file(), first=True))
    for one in updates:  # no figure of the model's reaches the page
        assert "%" not in str(one.get(view.result, "")) and not any(
            isinstance(one.get(piece), dict) and one[piece]["value"] for piece in view.pieces
        )
    assert 'data-first="waiting"' in updates[1][view.result] and 'data-first="ready"' in updates[-1][view.result]
    hidden: AssessedPhoto = updates[-1][view.answer]
    asked = '{"kind": "first", "code": "nv"}'
    shown = requests.on_request(None, view, asked, hidden, Settings())
    assert "threshold" in shown[view.result] and "melanocytic nevus" in shown[view.agreement]["value"]
    record_of = shown[view.answer].exported.clinician
    assert (record_of.first_diagnosis, record_of.agrees) == ("nv", hidden.assessment.diagnosis[0].code == "nv")
    assert (
        requests.on_request(None, view, asked.replace("nv", "mel"), shown[view.answer], Settings()) == gr.skip()
    )  # once


def test_a_place_in_the_queue_is_told_in_words(view: AssessView) -> None:
    line = WaitingLine()
    for visitor in ("a", "b", "me"):
        line.join(visitor)
    assert line.ahead("me") == 2 and assess_tab.queue_words(2) == "Two assessments run before yours."

    async def waiting() -> list[str]:
        said = []
        async for updates in assess_tab.on_wait(view, line, "me"):
            said.append(updates[view.result])
            line.leave("a" if len(said) == 1 else "b")
        return said

    first, second = asyncio.run(waiting())
    assert "Two assessments run before yours" in first and "One assessment runs before yours" in second


def test_no_photo_and_a_wrong_age_are_told(assessor: FakeAssessor, view: AssessView) -> None:
    assert "There is no photo yet" in assess(assessor, view, None)[view.result]
    updates = assess(assessor, view, photo_file(), age="130")
    assert "0 to 120" in updates[view.result] and updates[view.answer] is None


def test_an_abstained_photo_gets_no_map_and_no_choice(view: AssessView, assessor: FakeAssessor) -> None:
    assessor.answer = dataclasses.replace(assessor.answer, abstained=True, rationale="")
    updates = assess(assessor, view, photo_file())
    shown: AssessedPhoto = updates[view.answer]
    assert shown.heat is None and not updates[view.side]["visible"] and not updates[view.heat]
    assert 'data-view="heat"' not in updates[view.figures]["value"]


def test_every_control_has_a_label(view: AssessView) -> None:
    assert "Photo of the lesion" in view.drop.value
    for control in (view.age, view.sex, view.site, view.first):
        assert control.label
    assert view.button.value == "Assess"


def test_examples_are_named_as_synthetic(view: AssessView) -> None:
    assert photo_field.example_name(Path("synthetic_blue_nevus.jpg")) == "Blue nevus"
    file = sorted(photo_field.EXAMPLES.glob("synthetic_*.jpg"))[0]
    updates = assess_tab.on_example(view, file)
    assert "Synthetic example" in updates[view.preview] and file.exists()


@pytest.mark.parametrize(
    ("size", "expected"), [((200, 100), (640, 320)), ((4400, 2200), (1100, 550)), ((800, 80), (800, 80))]
)
def test_fit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    assert fit(pixels, 1100, 640).shape[:2] == (expected[1], expected[0])
