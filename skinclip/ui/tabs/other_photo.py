"""The place of a second photo of the same lesion, and the kinds of both: recognised, or corrected by the visitor.

The browser keeps the place unseen until there is a first photo (`assets/style.css`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from skinclip.core.assessment import Kind
from skinclip.reporting.phrasing import KIND_NAMES
from skinclip.ui import components
from skinclip.ui.state import AS_RECOGNISED, GIVEN, Kinds


@dataclass(frozen=True)
class OtherSlot:
    """The components of the place.

    `uploaded` and `refusal` are unseen, as those of the first photo are. `note` says what is to be said of both kinds.
    """

    drop: gr.HTML
    uploaded: gr.Textbox
    refusal: gr.Textbox
    preview: gr.HTML
    kind: gr.Dropdown
    note: gr.HTML


def build_slot() -> OtherSlot:
    """Lays the place out."""
    with gr.Column(elem_id="other-slot", elem_classes="sk-form"):
        drop = gr.HTML(components.OTHER_DROP, elem_id="other")
        names = ("uploaded", "refusal")
        unseen = {n: gr.Textbox(visible="hidden", elem_id=f"other-{n}", label=n) for n in names}
        preview = gr.HTML(elem_id="other-preview")
        kind = build_kind("other-kind", "Kind of the other photo")
        note = gr.HTML(elem_id="kinds-note")
    return OtherSlot(drop=drop, preview=preview, kind=kind, note=note, **unseen)


def build_kind(name: str, label: str) -> gr.Dropdown:
    """The field for the kind of a photo."""
    return gr.Dropdown(choices(None, asked=False), value=AS_RECOGNISED, label=label, filterable=False, elem_id=name)


def choices(recognised: Kind | None, asked: bool = True, tells: bool = True) -> list[tuple[str, str]]:
    """(label, value) of each kind that a visitor may choose, the model's own first.

    Args:
        asked: the model was asked.
        tells: it tells kinds apart.
    """
    if not asked or not tells:
        own = "as recognised" if tells else "not given"
    else:
        own = "not recognised" if recognised is None else f"recognised: {KIND_NAMES[recognised]}"
    return [(own, AS_RECOGNISED), *((KIND_NAMES[kind], code) for code, kind in GIVEN.items())]


def taken(given: tuple[str, str], recognised: Kinds | None) -> Kinds:
    """The kinds that both photos are taken for: as given, or else as recognised."""
    own = recognised or (None, None)
    return GIVEN.get(given[0], own[0]), GIVEN.get(given[1], own[1])


def note(kinds: Kinds, both: bool) -> Any:
    """The words on two photos of one kind; nothing where there is one photo, or the kinds differ or are not known."""
    return components.one_kind(kinds[0]) if both and kinds[0] is not None and kinds[0] == kinds[1] else ""
