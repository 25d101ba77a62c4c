"""The other photo of the lesion: taken, refused, replaced, removed; the kinds of both; and the answer to both."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
import pytest

from skinclip.core import assessment as record
from skinclip.imaging.photo import PhotoError
from skinclip.imaging.reframe import Edit
from skinclip.pipeline.settings import Settings
from skinclip.ui import components
from skinclip.ui.guard.sessions import size_of
from skinclip.ui.state import (
    AS_RECOGNISED,
    AssessedPhoto,
    Entries,
    FormPhotos,
    Kinds,
    edits_in_words,
    photo_hash,
    photos_mark,
)
from skinclip.ui.tabs import assess_tab, other_photo, photo_events, requests
from skinclip.ui.tabs.assess_tab import AssessView, Display
from skinclip.ui.tabs.photo_field import example_files
from tests.ui.tabs.test_assess_tab import FakeAssessor, built, photo_file

on_request = partial(requests.on_request, None)  # these requests need no model
WIDE, HIGH = photo_file((160, 120)), photo_file((120, 160))  # dermoscopy and a close-up to the `FakeAssessor`
AUTO = (AS_RECOGNISED, AS_RECOGNISED)


@pytest.fixture
def assessor(made_up: record.Assessment) -> FakeAssessor:
    return FakeAssessor(made_up)


@pytest.fixture
def view(assessor: FakeAssessor) -> AssessView:
    return built(assessor)


def answered(
    assessor: FakeAssessor,
    view: AssessView,
    photos: tuple[bytes, bytes | None],
    kinds: Kinds = (None, None),
    **how: Any,
) -> dict[Any, Any]:
    """The last update of an assessment of the photos in the form."""
    other = None if photos[1] is None else photo_hash(photos[1])
    entries = Entries(photo_hash(photos[0]), "", "female", "not given", None, other, kinds)
    run = assess_tab.on_assess(assessor, view, photos, entries, how=Display(**how))  # type: ignore[arg-type]
    return list(run)[-1]


def test_the_other_photo_is_shown_and_the_answer_to_one_goes(view: AssessView) -> None:
    updates = photo_events.on_other_upload(view, lambda: HIGH, WIDE)
    assert updates[view.other] == HIGH and view.photo not in updates and view.preview not in updates
    assert "120 × 160" in updates[view.slot.preview] and 'data-which="other"' in updates[view.slot.preview]
    assert updates[view.answer] is None and updates[view.result] == components.READY


def _gone() -> bytes:
    raise PhotoError("The upload is no longer there. Add the photo again.")


@pytest.mark.parametrize(
    ("take", "photo", "words"),
    [
        (lambda: b"just some text", WIDE, "holds text, not a photo"),
        (lambda: WIDE, WIDE, "there already"),
        (lambda: HIGH, None, "Add the first photo"),
        (_gone, WIDE, "no longer there"),
    ],
)
def test_a_refused_one_is_told_in_its_place_and_leaves_the_first_alone(
    view: AssessView, take: Callable[[], bytes], photo: bytes | None, words: str
) -> None:
    updates = photo_events.on_other_upload(view, take, photo)
    assert words in updates[view.slot.preview] and 'role="alert"' in updates[view.slot.preview]
    assert updates[view.other] is None and updates[view.answer] is None and view.photo not in updates
    said = photo_events.on_other_refusal(view, "size:1")
    assert "larger than 20 MB" in said[view.slot.preview] and view.photo not in said and said[view.other] is None


def test_a_new_first_photo_begins_a_new_lesion_and_says_so(view: AssessView) -> None:
    for updates in (
        photo_events.on_upload(view, lambda: WIDE, HIGH),
        photo_events.on_example(view, example_files()[0], HIGH),
    ):
        assert updates[view.other] is None and "a new photo begins a new lesion" in updates[view.slot.preview]
        assert updates[view.recognised] is None and updates[view.kind]["value"] == AS_RECOGNISED
    assert photo_events.on_upload(view, lambda: WIDE)[view.slot.preview] == ""  # there was none to lose
    assert photo_events.on_refusal(view, "folder:1")[view.other] is None
    turn = {"turns": 1, "box": [0, 0, 1, 1]}
    kept = photo_events.on_reframe(view, turn, FormPhotos(WIDE))
    assert view.other not in kept and view.kind not in kept  # a turned photo is of the same lesion and kind


def test_either_photo_is_turned_and_cropped_and_given_back(view: AssessView) -> None:
    for which, photo, edit in (("first", view.photo, view.edit), ("other", view.other, view.other_edit)):
        held = {"first": ("photo", "edit"), "other": ("other", "other_edit")}[which]
        asked = {"which": which, "turns": 1, "box": [0, 0, 1, 1]}
        turned = photo_events.on_reframe(view, asked, FormPhotos(WIDE, None, HIGH))
        whole = {"first": WIDE, "other": HIGH}[which]
        assert turned[edit] == Edit(whole, "turned right") and turned[photo] != whole and turned[view.answer] is None
        now = replace(FormPhotos(WIDE, None, HIGH), **{held[0]: turned[photo], held[1]: turned[edit]})
        again = photo_events.on_reframe(view, asked, now)  # of the photo as it is displayed
        assert again[edit] == Edit(whole, "turned right, then turned right")
        back = photo_events.on_reframe(view, {"which": which}, now)
        assert back[photo] == whole and back[edit] is None
        assert photo_events.on_reframe(view, {**asked, "turns": 0}, now) == gr.skip()
        wrong = photo_events.on_reframe(view, {**asked, "box": [0, 0, 0.001, 1]}, now)
        assert wrong[photo] == turned[photo] and wrong[edit] == turned[edit]  # nothing is lost
        preview = wrong[view.preview if which == "first" else view.slot.preview]
        assert "smaller than" in preview and "turned right" in preview and (view.photo in wrong) == (which == "first")
    promoted = photo_events.on_remove(view, "first", FormPhotos(WIDE, None, HIGH, Edit(WIDE, "turned left")))
    assert promoted[view.photo] == HIGH and promoted[view.edit] == Edit(WIDE, "turned left")
    assert promoted[view.other_edit] is None and "turned left" in promoted[view.preview]


def test_edits_are_named_by_their_photo() -> None:
    turned, cropped = Edit(WIDE, "turned left"), Edit(HIGH, "cropped to 50 % × 50 %")
    assert edits_in_words(turned, None, two=False) == "turned left" and edits_in_words(None, None, two=True) == ""
    both = edits_in_words(turned, cropped, two=True)
    assert both == "turned left (the photo added first) and cropped to 50 % × 50 % (the photo added second)"


def test_either_photo_can_be_removed(view: AssessView) -> None:
    without = photo_events.on_remove(view, "other", FormPhotos(WIDE, None, HIGH))
    assert without[view.other] is None and view.photo not in without and without[view.answer] is None
    both = FormPhotos(WIDE, None, HIGH, None, "clinical", ("dermoscopy", "dermoscopy"))
    promoted = photo_events.on_remove(view, "first", both)
    assert promoted[view.photo] == HIGH and promoted[view.edit] is None and promoted[view.other] is None
    assert promoted[view.kind]["value"] == "clinical" and promoted[view.recognised] == ("dermoscopy", None)
    assert promoted[view.kind]["choices"][0][0] == "recognised: dermoscopy" and promoted[view.answer] is None
    empty = photo_events.on_remove(view, "first", FormPhotos(WIDE, recognised=("clinical", None)))
    assert empty[view.photo] is None and empty[view.recognised] is None and "No assessment yet" in empty[view.result]
    assert photo_events.on_remove(view, "everything", FormPhotos(WIDE, None, HIGH)) == gr.skip()


def test_each_photo_is_named_by_its_kind_and_two_of_one_kind_are_told(assessor: FakeAssessor, view: AssessView) -> None:
    def recognised(photos: tuple[bytes | None, bytes | None], given: tuple[str, str] = AUTO) -> dict[Any, Any]:
        return photo_events.on_recognise(assessor, view, photos, given)  # type: ignore[arg-type]

    found = recognised((WIDE, HIGH))
    first, other = (found[field]["choices"][0] for field in (view.kind, view.slot.kind))
    assert (first[0], other[0]) == ("recognised: dermoscopy", "recognised: clinical close-up")
    assert found[view.recognised] == ("dermoscopy", "clinical") and found[view.slot.note] == ""
    assert (
        "Both photos are taken for clinical close-ups"
        in recognised((WIDE, HIGH), ("clinical", "recognised"))[view.slot.note]
    )
    assert recognised((WIDE, None))[view.slot.note] == "" and recognised((None, None))[view.recognised] is None
    assessor.tells_kinds = False  # a model that tells none apart is not asked
    assessor.recognise = lambda images: [None] * len(images)  # type: ignore[method-assign]
    assert recognised((WIDE, b"no photo"))[view.kind]["choices"][0][0] == "not given"
    note = photo_events.on_kind(view, HIGH, "dermoscopy", "dermoscopy", None)[view.slot.note]
    assert "Both photos are taken for dermoscopy" in note
    assert photo_events.on_kind(view, None, "dermoscopy", "dermoscopy", None)[view.slot.note] == ""
    assert other_photo.taken(("clinical", AS_RECOGNISED), ("dermoscopy", "dermoscopy")) == ("clinical", "dermoscopy")


@pytest.mark.parametrize("photos", [(WIDE, HIGH), (HIGH, WIDE)])
def test_the_answer_is_to_both_whichever_came_first(
    assessor: FakeAssessor, view: AssessView, photos: tuple[bytes, bytes]
) -> None:
    updates = answered(assessor, view, photos, edited="turned right (the photo added first)")
    answer: AssessedPhoto = updates[view.answer]
    assert (answer.photo, answer.other) == (WIDE, HIGH)  # regions are drawn in dermoscopy
    image, beside = answer.load()
    assert (image.width, beside and beside.width) == (160, 120)
    kinds = [photo.kind for photo in answer.assessment.photos]
    assert kinds == ["dermoscopy", "clinical"]
    mark = f'data-photo="{"+".join(sorted([photo_hash(WIDE), photo_hash(HIGH)]))}"'
    for part in (updates[view.result], updates[view.side]["value"], updates[view.rationale]["value"]):
        assert mark in part
    assert photos_mark(answer.assessment) in mark
    assert "these two photos alone: dermoscopy and clinical close-up" in updates[view.result]
    names = f"photos {photo_hash(WIDE)[:8]} (dermoscopy) and {photo_hash(HIGH)[:8]} (clinical close-up)"
    assert f"Made for {names}" in updates[view.rationale]["value"]
    assert answer.exported.clinician and answer.exported.clinician.photo_edit == "turned right (the photo added first)"


def test_a_correction_is_used_recorded_and_marks_the_answer_before(assessor: FakeAssessor, view: AssessView) -> None:
    before: AssessedPhoto = answered(assessor, view, (WIDE, HIGH))[view.answer]
    form = ("", "female", "not given", None)
    marked = assess_tab.on_entries(assessor, view, None, before, *form, "clinical", AS_RECOGNISED)  # type: ignore[arg-type]
    assert marked[view.outdated]["visible"]
    assert "the first photo of the kind recognised" in marked[view.outdated_note]
    same = assess_tab.on_entries(assessor, view, None, before, *form, *AUTO)  # type: ignore[arg-type]
    assert not same[view.outdated]["visible"]

    updates = answered(assessor, view, (WIDE, HIGH), ("clinical", "dermoscopy"))
    answer: AssessedPhoto = updates[view.answer]
    assert answer.photo == HIGH and answer.key != before.key
    reply = on_request(view, '{"kind": "json", "number": 1}', answer, Settings())[view.reply]
    assert "json" in reply
    exported = json.loads(answer.exported.to_json())
    assert [(p["kind"], p["kind_given"], p["kind_recognised"]) for p in exported["photos"]] == [
        ("dermoscopy", "dermoscopy", "clinical"),
        ("clinical", "clinical", "dermoscopy"),
    ]
    assert "dermoscopy as given" in updates[view.result]
    assert [image and image.kind for image in answer.load()] == ["dermoscopy", "clinical"]


def test_an_answer_whose_other_photo_went_while_it_waited_is_not_given(
    assessor: FakeAssessor, view: AssessView
) -> None:
    entries = Entries(photo_hash(WIDE), "", "female", "not given", None, photo_hash(HIGH))
    run = assess_tab.on_assess(assessor, view, (WIDE, None), entries)  # type: ignore[arg-type]
    assert list(run) == [gr.skip()] and assessor.context is None


def test_a_clinical_photo_alone_gets_abcd_and_no_dermoscopic_terms(assessor: FakeAssessor, view: AssessView) -> None:
    measured = tuple(f for f in assessor.answer.findings if f.criterion == "border")
    clinical = dataclasses.replace(
        assessor.answer, findings=measured, criteria={}, rationale="Melanoma leads, for [r2] irregular border."
    )
    assessor.answer = clinical
    updates = answered(assessor, view, (HIGH, None))
    side = updates[view.side]["value"]
    assert "ABCD" in side and "irregular, measured, 0.70" in side and "not clear either way" in side
    letter = on_request(view, '{"kind": "letter", "number": 1}', updates[view.answer], Settings())[view.reply]
    for text in (side, updates[view.rationale]["value"], letter):
        for term in ("7-point", "ermoscop", "network", "streaks", "veil", "globules"):
            assert term not in text.replace("SkinCLIP-VL", "")


def test_the_other_photo_counts_in_the_bounded_memory_and_names_files(assessor: FakeAssessor, view: AssessView) -> None:
    one, two = (answered(assessor, view, photos)[view.answer] for photos in ((WIDE, None), (WIDE, HIGH)))
    assert two.other_picture is not None and one.other_picture is None
    assert size_of(two) - size_of(one) >= len(HIGH) + len(two.other_picture)
    made = on_request(view, '{"kind": "pdf", "number": 1}', two, Settings())[view.reply]
    assert "application/pdf" in made
