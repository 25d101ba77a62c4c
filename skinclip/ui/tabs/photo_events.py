"""Handlers of the photo: added, refused, turned and cropped. Each clears the answer to the photo before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.photo import PhotoError, fit, photo_quality
from skinclip.imaging.reframe import Frame, reframed
from skinclip.ui import components
from skinclip.ui.tabs import change_panel, opinion_panel
from skinclip.ui.tabs.assess_view import AssessView, Updates
from skinclip.ui.tabs.photo_field import example_name, refusal_words

PREVIEW_SIDE = 640  # px


def on_upload(view: AssessView, take: Callable[[], bytes]) -> Updates:
    """Takes a chosen, dropped or pasted file: displayed, or refused in words.

    Args:
        take: gives the file's bytes. Raises PhotoError where they are gone.
    """
    try:
        updates = take_photo(view, take())
    except PhotoError as problem:
        return refused(view, str(problem))
    return {**emptied(view), **updates}


def on_refusal(view: AssessView, code: str | None) -> Updates:
    """Says what the browser refused, and clears the photo and answer before it."""
    return refused(view, refusal_words(code))


def on_example(view: AssessView, file: Path) -> Updates:
    """Takes one of the synthetic examples."""
    updates = take_photo(view, file.read_bytes(), f"Synthetic example: {example_name(file).lower()}")
    return {**emptied(view), **updates}


def on_reframe(view: AssessView, photo: bytes | None, asked: dict[str, Any]) -> Updates:
    """Turns and crops the photo in the form, or gives the whole photo back.

    Args:
        photo: the whole photo.
        asked: "turns" and "box" as of `Frame`; neither for the whole photo.
    """
    if photo is None:
        return gr.skip()
    try:
        if "box" not in asked:
            return {**emptied(view), **take_photo(view, photo)}
        frame = Frame.of(asked)
        edited = reframed(load_photo_bounded(photo), frame)
        return {**emptied(view), **take_photo(view, edited, edited=frame.in_words), view.whole: photo}
    except (PhotoError, ValueError) as problem:
        return refused(view, str(problem))


def refused(view: AssessView, words: str) -> Updates:
    """The photo before a refused one must not be assessed, or its answer read, by mistake."""
    refusal = components.error(words, "This photo cannot be used")
    no_photo = {view.preview: refusal, view.photo: None, view.whole: None, view.edited: None}
    return {**emptied(view), **no_photo, **cleared(view, components.EMPTY)}


def emptied(view: AssessView) -> Updates:
    """Nothing runs any more."""
    return {view.button: gr.update(interactive=True), view.stop: gr.update(visible=False)}


def take_photo(view: AssessView, data: bytes, label: str = "", edited: str = "") -> Updates:
    """Puts a new photo on the page and clears the answer to the one before. Raises PhotoError."""
    image = load_photo_bounded(data)
    preview = components.preview(fit(image.pixels, PREVIEW_SIDE), image, photo_quality(image), label, edited)
    kept = {view.photo: data, view.whole: data, view.edited: edited or None}
    return {view.preview: preview, **kept, **cleared(view, components.READY)}


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
