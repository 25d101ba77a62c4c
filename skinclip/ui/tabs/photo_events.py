"""Handlers of the photos: added, refused, turned and cropped, removed. Each clears the answer to the photos before.

A new first photo begins a new lesion, so that the other photo of the one before goes with it: two patients' photos must
never be answered together by mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from skinclip.core.assessment import QualityIssue
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.photo import LesionImage, PhotoError, fit, photo_quality
from skinclip.imaging.reframe import Edit, Frame, reframed
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.state import AS_RECOGNISED, FormPhotos, Kinds, Photos
from skinclip.ui.tabs import change_panel, opinion_panel, other_photo
from skinclip.ui.tabs.assess_view import AssessView, Updates
from skinclip.ui.tabs.photo_field import example_name, refusal_words

PREVIEW_SIDE = 640  # px


def on_upload(view: AssessView, take: Callable[[], bytes], other: bytes | None = None) -> Updates:
    """Takes a chosen, dropped or pasted file: displayed, or refused in words.

    Args:
        take: gives the file's bytes. Raises PhotoError where they are gone.
        other: the other photo of the lesion before.
    """
    try:
        updates = take_photo(view, take())
    except PhotoError as problem:
        return refused(view, str(problem))
    return {**emptied(view), **without_other(view, other is not None), **updates}


def on_refusal(view: AssessView, code: str | None) -> Updates:
    """Says what the browser refused, and clears the photo and answer before it."""
    return refused(view, refusal_words(code))


def on_example(view: AssessView, file: Path, other: bytes | None = None) -> Updates:
    """Takes one of the synthetic examples."""
    updates = take_photo(view, file.read_bytes(), f"Synthetic example: {example_name(file).lower()}")
    return {**emptied(view), **without_other(view, other is not None), **updates}


def on_other_upload(view: AssessView, take: Callable[[], bytes], photo: bytes | None) -> Updates:
    """Takes the other photo of the lesion in the form; what is refused leaves the first photo alone.

    Args:
        photo: the first one.
    """
    try:
        data = take()
        if photo is None:
            raise PhotoError("Add the first photo of the lesion before the other one.")
        if data == photo:
            raise PhotoError("This is the photo that is there already. Add another one of the same lesion.")
        return {**emptied(view), **without_other(view), **take_other(view, data)}
    except PhotoError as problem:
        return other_refused(view, str(problem))


def on_other_refusal(view: AssessView, code: str | None) -> Updates:
    """Says what the browser refused in the place of the other photo."""
    return other_refused(view, refusal_words(code))


def other_refused(view: AssessView, words: str) -> Updates:
    """The other photo before a refused one must not be assessed, or its answer read, by mistake; the first stays."""
    refusal = components.error(words, "This photo cannot be used")
    there = {**without_other(view), view.slot.preview: refusal}
    return {**emptied(view), **there, **cleared(view, components.READY)}


def on_remove(view: AssessView, which: Any, form: FormPhotos) -> Updates:
    """Takes one of the photos out of the form; without the first, the other one takes its place."""
    if which == "other":
        return {**emptied(view), **without_other(view), **cleared(view, components.READY)}
    if which != "first":
        return gr.skip()
    if form.other is None:
        empty = {view.preview: components.FORMATS, view.photo: None, view.edit: None}
        return {**emptied(view), **without_other(view), **no_kind(view), **empty, **cleared(view, components.EMPTY)}
    try:
        updates = take_photo(view, form.other, edit=form.other_edit)
    except PhotoError as problem:
        return refused(view, str(problem))
    kind = None if form.recognised is None else form.recognised[1]
    known = {
        view.kind: gr.update(choices=other_photo.choices(kind, form.recognised is not None), value=form.other_kind),
        view.recognised: None if form.recognised is None else (kind, None),
    }
    return {**emptied(view), **without_other(view), **updates, **known}


def on_recognise(assessor: Assessor, view: AssessView, photos: Photos, given: tuple[str, str]) -> Updates:
    """Asks the model of what kind the photos are, for the visitor to correct."""
    images = []
    try:
        if assessor.tells_kinds:
            images = [load_photo_bounded(photo) for photo in photos if photo is not None]
        first, other, *_ = (*assessor.recognise(images), None, None)
    except PhotoError:  # who assesses it is told
        return gr.skip()
    recognised = (first, other)
    return {
        view.kind: gr.update(choices=other_photo.choices(first, tells=assessor.tells_kinds)),
        view.slot.kind: gr.update(choices=other_photo.choices(other, tells=assessor.tells_kinds)),
        view.slot.note: other_photo.note(other_photo.taken(given, recognised), photos[1] is not None),
        view.recognised: None if photos[0] is None else recognised,
    }


def on_kind(view: AssessView, other: bytes | None, kind: str, other_kind: str, recognised: Kinds | None) -> Updates:
    """Says where both photos are now taken for the same kind."""
    taken = other_photo.taken((kind, other_kind), recognised)
    return {view.slot.note: other_photo.note(taken, other is not None)}


def without_other(view: AssessView, lost: bool = False) -> Updates:
    """No other photo. `lost`: there was one, and it is said why it went."""
    preview = components.OTHER_LOST if lost else ""
    unknown = gr.update(choices=other_photo.choices(None, asked=False), value=AS_RECOGNISED)
    gone = {view.other: None, view.other_edit: None}
    return {view.slot.preview: preview, view.slot.kind: unknown, view.slot.note: "", **gone}


def no_kind(view: AssessView) -> Updates:
    """Nothing known of the first photo's kind."""
    unknown = gr.update(choices=other_photo.choices(None, asked=False), value=AS_RECOGNISED)
    return {view.kind: unknown, view.recognised: None}


def on_reframe(view: AssessView, asked: dict[str, Any], form: FormPhotos) -> Updates:
    """Turns and crops a photo in the form, or gives the whole photo back.

    Args:
        asked: "turns" and "box" as of `Frame`, of the photo as it is displayed; neither for the whole photo. "which" is
            "other" for the other photo.
    """
    other = asked.get("which") == "other"
    photo, edit = (form.other, form.other_edit) if other else (form.photo, form.edit)
    if photo is None:
        return gr.skip()
    take = partial(take_other, view) if other else partial(take_photo, view, same=True)
    try:
        if "box" not in asked:
            return {**emptied(view), **(take(photo) if edit is None else take(edit.whole))}
        frame = Frame.of(asked)
        if not frame.in_words:  # the photo as it is
            return gr.skip()
        part = reframed(load_photo_bounded(photo), frame)
        return {**emptied(view), **take(part, edit=Edit.of(photo, frame, edit))}
    except (PhotoError, ValueError) as problem:  # the photo stays as it was
        updates, place = take(photo, edit=edit), view.slot.preview if other else view.preview
        updates[place] = components.error(str(problem), "This part cannot be used") + updates[place]
        return {**emptied(view), **updates}


def refused(view: AssessView, words: str) -> Updates:
    """The photo before a refused one must not be assessed, or its answer read, by mistake."""
    refusal = components.error(words, "This photo cannot be used")
    no_photo = {view.preview: refusal, view.photo: None, view.edit: None}
    return {**emptied(view), **without_other(view), **no_kind(view), **no_photo, **cleared(view, components.EMPTY)}


def emptied(view: AssessView) -> Updates:
    """Nothing runs any more."""
    return {view.button: gr.update(interactive=True), view.stop: gr.update(visible=False)}


def take_photo(view: AssessView, data: bytes, label: str = "", edit: Edit | None = None, same: bool = False) -> Updates:
    """Puts a new photo on the page and clears the answer to the one before. Raises PhotoError.

    Args:
        same: it is the photo that was there, turned or cropped, so that its kind is known.
    """
    preview = components.preview(*_pictured(data), label, edit.words if edit else "")
    kept = {view.photo: data, view.edit: edit, **({} if same else no_kind(view))}
    return {view.preview: preview, **kept, **cleared(view, components.READY)}


def take_other(view: AssessView, data: bytes, edit: Edit | None = None) -> Updates:
    """Puts the other photo on the page, as `take_photo` does the first. Raises PhotoError."""
    preview = components.other_preview(*_pictured(data), edit.words if edit else "")
    return {view.slot.preview: preview, view.other: data, view.other_edit: edit, **cleared(view, components.READY)}


def _pictured(data: bytes) -> tuple[np.ndarray, LesionImage, tuple[QualityIssue, ...]]:
    image = load_photo_bounded(data)
    return fit(image.pixels, PREVIEW_SIDE), image, photo_quality(image)


def cleared(view: AssessView, message: str) -> Updates:
    """A message where the answer was."""
    return {
        **unmarked(view),
        view.result: message,
        **no_pieces(view),
        **change_panel.hidden(view.panel),
        **opinion_panel.hidden(view.opinion),
        view.entries: None,
        view.answer: None,
    }


def no_pieces(view: AssessView) -> Updates:
    """The parts of an answer below its verdict, gone."""
    return {piece: gr.update(value="", visible=piece is view.heat) for piece in view.pieces}


def unmarked(view: AssessView) -> Updates:
    """No mark of changed entries."""
    return {view.outdated: gr.update(visible=False), view.outdated_note: ""}
