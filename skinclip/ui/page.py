"""The model's page as its tabs share it: the assessor, the visitor's state, and the events that belong to an answer.

A tab is one entry in `skinclip/ui/tabs/registry.py`; its `build` gets this page and lays itself out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.settings import Settings
from skinclip.ui.background_task import TasksByVisitor, WaitingLine
from skinclip.ui.guard.uploads import UploadStore


def _state() -> gr.State:
    return gr.State(None)  # `guard.sessions` says how long it is kept


@dataclass(frozen=True)
class ModelPage:
    """The page around one assessor; made inside its Blocks.

    Attributes:
        photo: bytes of the photo file in the form, or None.
        edit: `reframe.Edit` of that photo, or None where it is as it was added.
        other: bytes of the other photo of the same lesion, or None.
        other_edit: `reframe.Edit` of the other photo, or None.
        recognised: `state.Kinds` that the model takes the photos for, or None.
        settings: `Settings` that the visitor chose; they hold for the photos that follow.
        line: visitors whose assessment waits or runs.
        entries: `state.Entries` of the last assessment, or None.
        answer: `state.AssessedPhoto` on display, or None.
        uploads: files on their way from the browser.
        tasks: what is computed for each visitor; a new photo stops it.
        answer_events: events whose result belongs to the answer on display.
        photo_events: triggers that bring another photo; they cancel all `answer_events`.
    """

    assessor: Assessor
    photo: gr.State = field(default_factory=_state)
    edit: gr.State = field(default_factory=_state)
    other: gr.State = field(default_factory=_state)
    other_edit: gr.State = field(default_factory=_state)
    recognised: gr.State = field(default_factory=_state)
    entries: gr.State = field(default_factory=_state)
    answer: gr.State = field(default_factory=_state)
    uploads: UploadStore = field(default_factory=UploadStore)
    settings: gr.State = field(default_factory=lambda: gr.State(Settings()))
    tasks: TasksByVisitor = field(default_factory=TasksByVisitor)
    line: WaitingLine = field(default_factory=WaitingLine)
    answer_events: list[Any] = field(default_factory=list)
    photo_events: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Tab:
    """A tab of the model's page.

    Attributes:
        key: its id in the page's address and in tests.
        build: lays the tab out inside `gr.Tab` and wires its events.
    """

    key: str
    label: str
    build: Callable[[ModelPage, gr.Tab], Any]
